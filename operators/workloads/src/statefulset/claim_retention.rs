//! `spec.persistentVolumeClaimRetentionPolicy`: what claims go with.
//!
//! | whenDeleted | whenScaled | in range | condemned |
//! |---|---|---|---|
//! | Retain | Retain | nobody | nobody |
//! | Delete | Retain | the set | the set |
//! | Retain | Delete | nobody | its pod |
//! | Delete | Delete | the set | its pod |
//!
//! A claim goes by an owner reference, when the garbage collector finds the owner gone. What somebody else controls
//! is left to them, with an event.

use serde_json::{Value, json};
use trysail_core::{
    Action,
    plan::{EventNote, OwnerReference, Target, Verb},
    pod::Pod,
    resource::{PERSISTENT_VOLUME_CLAIMS, PODS},
};

use super::{failure::Problem, ordinals::pod_name, scene::Scene, volume_claim_templates::claim_name};
use crate::views::PersistentVolumeClaim;

/// Whom a claim belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    Nobody,
    Set,
    Pod,
}

/// The table above.
pub(super) fn keeper(goes_with_set: bool, goes_with_pod: bool, is_condemned: bool) -> Keeper {
    match (goes_with_set, goes_with_pod) {
        (_, true) if is_condemned => Keeper::Pod,
        (true, _) => Keeper::Set,
        (false, _) => Keeper::Nobody,
    }
}

/// The owner reference of a new claim.
pub(super) fn owner_in_range(scene: &Scene<'_>) -> Option<Value> {
    scene.set().retention.goes_with_set.then(|| scene.planner.owner(scene.set()).to_value())
}

/// Refers to an earlier pod of that ordinal, or an earlier set of that name: the garbage collector is about to
/// take the claim, or to take the reference off.
pub(super) fn is_stale(scene: &Scene<'_>, claim: &PersistentVolumeClaim, ordinal: i32) -> bool {
    let set = scene.set();
    let pod = pod_name(&set.meta.key.name, ordinal);
    let own = set.meta.uid.to_string();
    let (kind, api_version) = (scene.planner.resource.kind, scene.planner.resource.api_version());
    claim.owners.iter().any(|owner| {
        let is_pod = owner["kind"] == PODS.kind && owner["apiVersion"] == "v1" && owner["name"] == *pod;
        let is_set = owner["kind"] == kind
            && owner["apiVersion"] == *api_version
            && owner["name"] == *set.meta.key.name
            && owner["uid"] != *own;
        is_pod || is_set
    })
}

/// The writes that give a pod's claims the owners they should have, and claims that others control.
pub(super) fn repair(scene: &Scene<'_>, ordinal: i32, pod: &Pod, problems: &mut Vec<Problem>) -> Vec<Action> {
    let set = scene.set();
    let is_condemned = !scene.fleet.range.contains(ordinal);
    let keeper = keeper(set.retention.goes_with_set, set.retention.goes_with_pod, is_condemned);
    let mut actions = Vec::new();
    for template in &set.claim_templates {
        let name = claim_name(&template.name, &set.meta.key.name, ordinal);
        let Some(claim) = scene.snapshot.claims.get(name.as_str()) else { continue };
        if claim.meta.is_terminating() {
            continue;
        }
        match owners(scene, claim, pod, keeper) {
            Owners::AsWanted => {}
            Owners::Foreign => problems.push(Problem {
                reason: "ConflictingController",
                message: format!(
                    "PersistentVolumeClaim {name} is controlled by somebody else: the retention policy does not \
                     apply to it. Remove that owner reference, or set the policy to Retain"
                ),
            }),
            Owners::Changed(owners) => actions.push(patch(scene, pod, claim, &owners)),
        }
    }
    actions
}

enum Owners {
    AsWanted,
    Foreign,
    Changed(Vec<Value>),
}

fn owners(scene: &Scene<'_>, claim: &PersistentVolumeClaim, pod: &Pod, keeper: Keeper) -> Owners {
    let of_set = scene.planner.owner(scene.set());
    let of_pod = OwnerReference { resource: PODS, key: pod.meta.key.clone(), uid: pod.meta.uid.clone() };
    let (set_uid, pod_uid) = (of_set.uid.to_string(), of_pod.uid.to_string());
    let is_ours = |owner: &&Value| owner["uid"] == *set_uid || owner["uid"] == *pod_uid;
    let (ours, others): (Vec<&Value>, Vec<&Value>) = claim.owners.iter().partition(is_ours);
    let is_foreign = keeper != Keeper::Nobody && others.iter().any(|owner| owner["controller"] == true);
    let wanted = match keeper {
        _ if is_foreign => None,
        Keeper::Nobody => None,
        Keeper::Set => Some(of_set),
        Keeper::Pod => Some(of_pod),
    };
    let is_right = match (&wanted, ours.as_slice()) {
        (None, []) => true,
        (Some(wanted), [held]) => held["uid"] == *wanted.uid.to_string() && held["controller"] == true,
        _ => false,
    };
    if is_right {
        return if is_foreign { Owners::Foreign } else { Owners::AsWanted };
    }
    let wanted = wanted.map(|wanted| wanted.to_value());
    Owners::Changed(others.into_iter().cloned().chain(wanted).collect())
}

fn patch(scene: &Scene<'_>, pod: &Pod, claim: &PersistentVolumeClaim, owners: &[Value]) -> Action {
    let (set, name) = (&scene.set().meta.key.name, &claim.meta.key.name);
    let pod = &pod.meta.key.name;
    let failure = format!("Update Claim {name} for Pod {pod} in StatefulSet {set} failed error");
    Action {
        target: Target {
            resource: PERSISTENT_VOLUME_CLAIMS,
            key: claim.meta.key.clone(),
            uid: Some(claim.meta.uid.clone()),
            resource_version: claim.meta.resource_version,
        },
        verb: Verb::Patch { subresource: None, body: json!({"metadata": {"ownerReferences": owners}}) },
        reason: "UpdateClaim",
        because: "the retention policy".to_owned(),
        on_success: None,
        on_failure: Some(EventNote::warning("FailedUpdate", failure)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        use Keeper::{Nobody, Pod, Set};
        for (deleted, scaled, in_range, condemned) in [
            (false, false, Nobody, Nobody),
            (true, false, Set, Set),
            (false, true, Nobody, Pod),
            (true, true, Set, Pod),
        ] {
            assert_eq!(
                (keeper(deleted, scaled, false), keeper(deleted, scaled, true)),
                (in_range, condemned)
            );
        }
    }
}
