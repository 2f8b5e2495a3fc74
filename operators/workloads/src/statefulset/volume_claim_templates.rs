//! `spec.volumeClaimTemplates`: each pod has a claim per template, named after both, made before the pod and found
//! again by its successors.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use trysail_core::{
    Action, Json,
    plan::{EventNote, Target, Verb, WaitingOn},
    resource::PERSISTENT_VOLUME_CLAIMS,
};

use super::{claim_retention, identity::claim_labels, ordinals::pod_name, scene::Scene};
use crate::views::{ClaimTemplate, PersistentVolumeClaim, StatefulSet};

/// The reason of the action that creates a claim.
pub(super) const CREATE: &str = "CreateClaim";

/// The name of the claim of a template for one ordinal.
pub fn claim_name(template: &str, set: &str, ordinal: i32) -> String {
    format!("{template}-{set}-{ordinal}")
}

/// Names of the StatefulSets that a claim of that name may belong to: any part of it between two dashes. Whoever
/// sees a claim change wakes those that there are.
pub fn possible_owners(claim: &str) -> impl Iterator<Item = &str> {
    let stem = claim.rsplit_once('-').filter(|(_, ordinal)| ordinal.parse::<i32>().is_ok());
    let stem = stem.map_or("", |(stem, _)| stem);
    stem.match_indices('-').map(move |(at, _)| &stem[at + 1..]).filter(|name| !name.is_empty())
}

/// Two templates of one name: whose claim would the volume be?
pub(super) fn duplicate(set: &StatefulSet) -> Option<&str> {
    let mut seen = BTreeSet::new();
    set.claim_templates.iter().map(|template| template.name.as_str()).find(|name| !seen.insert(*name))
}

/// Whether the claims of an ordinal let its pod be created.
pub(super) enum Claims {
    /// They are there.
    Ready,
    /// Some have to be created first.
    Missing(Vec<Action>),
    /// Some are about to vanish: a pod that took one would lose its data.
    Going(WaitingOn),
}

/// Judges the claims of a pod that is to be created, or is waiting for them.
pub(super) fn claims(scene: &Scene<'_>, ordinal: i32) -> Claims {
    let set = scene.set();
    let mut missing = Vec::new();
    for template in &set.claim_templates {
        let name = claim_name(&template.name, &set.meta.key.name, ordinal);
        match scene.snapshot.claims.get(name.as_str()) {
            None => missing.push(create(scene, template, ordinal, &name)),
            Some(held) if held.meta.is_terminating() => return Claims::Going(wait(held, "be gone")),
            Some(held) if claim_retention::is_stale(scene, held, ordinal) => {
                return Claims::Going(wait(held, "be collected: it goes with a former pod or set"));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() { Claims::Ready } else { Claims::Missing(missing) }
}

/// The missing claims of a pod that exists and waits for them.
pub(super) fn recreate(scene: &Scene<'_>, ordinal: i32) -> Vec<Action> {
    let set = scene.set();
    let missing = set.claim_templates.iter().filter_map(|template| {
        let name = claim_name(&template.name, &set.meta.key.name, ordinal);
        let is_there = scene.snapshot.claims.contains_key(name.as_str());
        (!is_there).then(|| create(scene, template, ordinal, &name))
    });
    missing.collect()
}

fn wait(claim: &PersistentVolumeClaim, until: &'static str) -> WaitingOn {
    WaitingOn::Object { resource: PERSISTENT_VOLUME_CLAIMS, key: claim.meta.key.clone(), until }
}

fn create(scene: &Scene<'_>, template: &ClaimTemplate, ordinal: i32, name: &str) -> Action {
    let set = scene.set();
    let owner = claim_retention::owner_in_range(scene);
    let mut metadata = Map::new();
    metadata.insert("name".into(), name.into());
    metadata.insert("namespace".into(), set.meta.key.namespace.as_str().into());
    metadata.insert("labels".into(), json!(claim_labels(set, &template.claim.labels)));
    if !template.claim.annotations.is_empty() {
        metadata.insert("annotations".into(), json!(template.claim.annotations));
    }
    if !template.claim.finalizers.is_empty() {
        metadata.insert("finalizers".into(), json!(template.claim.finalizers));
    }
    if let Some(owner) = &owner {
        metadata.insert("ownerReferences".into(), json!([owner]));
    }
    let (set_name, pod) = (&set.meta.key.name, pod_name(&set.meta.key.name, ordinal));
    let success = format!("Create Claim {name} Pod {pod} in StatefulSet {set_name} success");
    let failure = format!("Create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error");
    Action {
        target: Target {
            resource: PERSISTENT_VOLUME_CLAIMS,
            key: scene.key(name),
            uid: None,
            resource_version: 0,
        },
        verb: Verb::Create {
            controller: owner.is_some().then(|| set.meta.uid.clone()),
            body: Json::Object(vec![
                ("apiVersion", Json::Value("v1".into())),
                ("kind", Json::Value("PersistentVolumeClaim".into())),
                ("metadata", Json::Value(Value::Object(metadata))),
                ("spec", template.claim.spec()),
            ]),
        },
        reason: CREATE,
        because: format!("{pod} needs it"),
        on_success: Some(EventNote::normal("SuccessfulCreate", success)),
        on_failure: Some(EventNote::warning("FailedCreate", failure)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_s_name_tells_whose_it_may_be() {
        let owners = |claim| possible_owners(claim).collect::<Vec<_>>();
        let claim = claim_name("data", "db", 10);
        assert_eq!(owners(&claim), ["db"]);
        assert_eq!(owners("my-data-db-0"), ["data-db", "db"]);
        for claim in ["data-db", "data", "data-0", "", "-0", "data-db-x"] {
            assert_eq!(owners(claim), [""; 0], "{claim}");
        }
    }
}
