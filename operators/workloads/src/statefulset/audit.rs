//! Invariants of every plan for a StatefulSet, written independently of the decisions.

use std::collections::{BTreeMap, BTreeSet};

use trysail_core::{
    Action, Plan,
    plan::{Verb, Violation},
    pod::{CONTROLLER_REVISION_HASH, Phase, Pod},
    resource::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS},
};

use super::{BURST, Memory, Snapshot, StatefulSetPlanner};
use crate::views::{PodManagementPolicy, StatefulSetUpdateStrategy};

pub(super) fn audit(
    planner: StatefulSetPlanner,
    snapshot: &Snapshot,
    plan: &Plan<Memory>,
) -> Result<(), Violation> {
    preconditions(planner, snapshot, plan)?;
    creates(snapshot, plan)?;
    deletes(snapshot, plan)?;
    order(snapshot, plan)?;
    partition(snapshot, plan)?;
    claims(snapshot, plan)?;
    status(snapshot, plan)
}

fn broken(what: &str, action: &Action) -> Result<(), Violation> {
    Err(Violation(format!("{what}: {action}")))
}

/// Every write names the incarnation and version it was decided for, each object once, and only our own kinds.
fn preconditions(
    planner: StatefulSetPlanner,
    snapshot: &Snapshot,
    plan: &Plan<Memory>,
) -> Result<(), Violation> {
    let set = &snapshot.set;
    let mut touched = BTreeSet::new();
    for action in plan.actions() {
        let target = &action.target;
        let is_status = matches!(action.verb, Verb::Patch { subresource: Some("status"), .. });
        let is_self =
            is_status && target.resource == planner.resource && target.uid.as_ref() == Some(&set.meta.uid);
        if !is_self && ![PODS, PERSISTENT_VOLUME_CLAIMS, CONTROLLER_REVISIONS].contains(&target.resource) {
            return broken("a write to something that is not ours", action);
        }
        if target.key.namespace != set.meta.key.namespace || target.key.name.len() > 253 {
            return broken("an illegal key", action);
        }
        // What is adopted may have to go in the same breath; two of anything else would contradict each other.
        let is_delete = matches!(action.verb, Verb::Delete { .. });
        let is_repair = matches!(action.verb, Verb::Patch { subresource: None, .. });
        if !touched.insert((target.resource.plural, &target.key)) && !is_delete && !is_repair {
            return broken("two writes to one object", action);
        }
        let is_create = matches!(action.verb, Verb::Create { .. });
        if !is_create && target.uid.is_none() {
            return broken("a write without a uid", action);
        }
        if matches!(action.verb, Verb::Patch { .. }) && target.resource_version == 0 {
            return broken("a patch without a resourceVersion", action);
        }
        if !is_self && set.meta.deleted.is_some() {
            return broken("a set that is being deleted acts", action);
        }
    }
    Ok(())
}

/// The number behind the last dash, when the rest is the set's name.
fn ordinal(snapshot: &Snapshot, pod: &str) -> Option<i64> {
    let (set, digits) = pod.rsplit_once('-')?;
    let ordinal: i64 = digits.parse().ok()?;
    (*set == *snapshot.set.meta.key.name && format!("{ordinal}") == digits).then_some(ordinal)
}

fn is_wanted(snapshot: &Snapshot, ordinal: i64) -> bool {
    let start = i64::from(snapshot.set.start);
    (start..start + i64::from(snapshot.set.replicas)).contains(&ordinal)
}

fn on_pods(plan: &Plan<Memory>, wanted: fn(&Verb) -> bool) -> impl Iterator<Item = &Action> {
    plan.actions().filter(move |action| action.target.resource == PODS && wanted(&action.verb))
}

fn pod_creates(plan: &Plan<Memory>) -> impl Iterator<Item = &Action> {
    on_pods(plan, |verb| matches!(verb, Verb::Create { .. }))
}

fn pod_deletes(plan: &Plan<Memory>) -> impl Iterator<Item = &Action> {
    on_pods(plan, |verb| matches!(verb, Verb::Delete { .. }))
}

/// At most one pod per ordinal: a pod is made only for a wanted ordinal that no pod has, in whatever state.
fn creates(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let known = snapshot.pods.iter().chain(&snapshot.orphans).chain(snapshot.strangers.values());
    let taken: BTreeSet<&str> = known.map(|pod| &*pod.meta.key.name).collect();
    for action in pod_creates(plan) {
        let name = &*action.target.key.name;
        if !ordinal(snapshot, name).is_some_and(|ordinal| is_wanted(snapshot, ordinal)) {
            return broken("a pod that nobody wants", action);
        }
        if taken.contains(name) {
            return broken("two pods of one ordinal", action);
        }
    }
    if pod_creates(plan).count() > BURST || pod_deletes(plan).count() > 2 * BURST {
        return Err(Violation("more than one burst".to_owned()));
    }
    Ok(())
}

/// Only own pods go, none twice.
fn deletes(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let mut gone = BTreeSet::new();
    for action in pod_deletes(plan) {
        let own = snapshot.pods.iter().chain(&snapshot.orphans).find(|pod| {
            Some(&pod.meta.uid) == action.target.uid.as_ref()
                && snapshot.set.selector.matches(&pod.meta.labels)
        });
        let Some(pod) = own else { return broken("a pod deleted that is not ours", action) };
        if pod.meta.deleted.is_some() || !gone.insert(&pod.meta.uid) {
            return broken("a pod deleted twice", action);
        }
    }
    Ok(())
}

/// With OrderedReady at most one pod moves, except as far as `maxUnavailable` allows; and one is made only when all
/// before it serve.
fn order(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let set = &snapshot.set;
    if set.pod_management_policy != PodManagementPolicy::OrderedReady {
        return Ok(());
    }
    let is_batched = matches!(
        set.update_strategy,
        StatefulSetUpdateStrategy::RollingUpdate { max_unavailable: Some(_), .. }
    );
    let moves = pod_creates(plan).chain(pod_deletes(plan)).count();
    if moves > 1 && (!is_batched || pod_creates(plan).next().is_some()) {
        return Err(Violation(format!("{moves} pods of an ordered set move at once")));
    }
    let Some(action) = pod_creates(plan).next() else { return Ok(()) };
    let new = ordinal(snapshot, &action.target.key.name).unwrap_or(0);
    let by_ordinal: BTreeMap<i64, &Pod> = snapshot
        .pods
        .iter()
        .chain(&snapshot.orphans)
        .filter_map(|pod| Some((ordinal(snapshot, &pod.meta.key.name)?, &**pod)))
        .collect();
    let serves = |pod: &Pod| {
        pod.phase == Phase::Running
            && pod.meta.deleted.is_none()
            && pod.is_available(set.min_ready_seconds, snapshot.context.now)
    };
    for before in i64::from(set.start)..new {
        if !by_ordinal.get(&before).is_some_and(|pod| serves(pod)) {
            return broken(&format!("ordinal {before} does not serve"), action);
        }
    }
    Ok(())
}

/// Below the partition no running pod is taken, and new pods are not of the new revision; nor is any taken under
/// OnDelete.
fn partition(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let set = &snapshot.set;
    let partition = match set.update_strategy {
        StatefulSetUpdateStrategy::OnDelete => i64::MAX,
        StatefulSetUpdateStrategy::RollingUpdate { partition, .. } => {
            i64::from(set.start) + i64::from(partition)
        }
    };
    for action in pod_deletes(plan) {
        let place = ordinal(snapshot, &action.target.key.name).unwrap_or(-1);
        // What is adopted may have to go in the same breath.
        let mut known = snapshot.pods.iter().chain(&snapshot.orphans);
        let pod = known.find(|pod| Some(&pod.meta.uid) == action.target.uid.as_ref());
        let has_ended = pod.is_some_and(|pod| matches!(pod.phase, Phase::Failed | Phase::Succeeded));
        if is_wanted(snapshot, place) && place < partition && !has_ended {
            return broken("a pod below the partition taken", action);
        }
    }
    let current = set.status.current_revision.as_deref();
    let is_stored = current.is_some_and(|name| snapshot.history.named(name).is_some());
    if set.update_strategy == StatefulSetUpdateStrategy::OnDelete || !is_stored {
        return Ok(());
    }
    for action in pod_creates(plan) {
        let place = ordinal(snapshot, &action.target.key.name).unwrap_or(-1);
        let Verb::Create { body, .. } = &action.verb else { continue };
        let body = body.to_value();
        let revision = body["metadata"]["labels"][CONTROLLER_REVISION_HASH].as_str();
        if place < partition && revision != current {
            return broken("a new revision below the partition", action);
        }
    }
    Ok(())
}

/// Claims are made and given owners; nothing else, and never deleted.
fn claims(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let of_claims = |action: &&Action| action.target.resource == PERSISTENT_VOLUME_CLAIMS;
    for action in plan.actions().filter(of_claims) {
        match &action.verb {
            Verb::Create { .. } if snapshot.claims.contains_key(&*action.target.key.name) => {
                return broken("a claim made twice", action);
            }
            Verb::Create { .. } => {}
            Verb::Patch { subresource: None, body } => {
                let metadata = body["metadata"].as_object();
                let is_owners =
                    metadata.is_some_and(|held| held.len() == 1 && held.contains_key("ownerReferences"));
                if !is_owners || body.as_object().is_none_or(|body| body.len() != 1) {
                    return broken("a claim changed", action);
                }
            }
            _ => return broken("a claim taken", action),
        }
    }
    Ok(())
}

/// What the native API server demands of a StatefulSet's status; and nobody else's condition is lost.
fn status(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let old = &snapshot.set.status;
    for action in plan.actions() {
        let Verb::Patch { subresource: Some("status"), body } = &action.verb else { continue };
        let fields = &body["status"];
        let value = |name: &str, old: Option<i32>| {
            fields.get(name).map_or_else(|| i64::from(old.unwrap_or(0)), |new| new.as_i64().unwrap_or(-1))
        };
        let replicas = value("replicas", old.replicas);
        let ready = value("readyReplicas", old.ready_replicas);
        let available = value("availableReplicas", old.available_replicas);
        let current = value("currentReplicas", old.current_replicas);
        let updated = value("updatedReplicas", old.updated_replicas);
        let least = replicas.min(ready).min(available).min(current).min(updated);
        let is_legal = least >= 0
            && ready.max(current).max(updated) <= replicas
            && available <= ready
            && value("collisionCount", old.collision_count) >= i64::from(old.collision_count.unwrap_or(0));
        if !is_legal || body.as_object().is_none_or(|body| body.len() != 1) {
            return broken("a status the API server would refuse", action);
        }
        let ours = ["ReplicaFailure", "Ready", "Reconciling", "Stalled"];
        for held in old.conditions.iter().filter(|held| !ours.contains(&held.kind.as_str())) {
            let list = fields.get("conditions").and_then(|list| list.as_array());
            if list.is_some_and(|list| !list.iter().any(|new| new["type"] == held.kind.as_str())) {
                return broken("a foreign condition lost", action);
            }
        }
    }
    Ok(())
}
