//! Invariants of every plan for a Deployment, written independently of the decisions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use trysail_core::{
    Plan,
    plan::{Action, Verb, Violation},
};

use super::{DeploymentPlanner, Memory, Snapshot, annotations};
use crate::views::{ReplicaSet, Strategy};

pub(super) fn audit(
    planner: DeploymentPlanner,
    snapshot: &Snapshot,
    plan: &Plan<Memory>,
) -> Result<(), Violation> {
    preconditions(planner, snapshot, plan)?;
    sizes(planner, snapshot, plan)?;
    status(planner, snapshot, plan)
}

/// Every write names the incarnation and version it was decided for, each object once, and only our own kinds.
fn preconditions(
    planner: DeploymentPlanner,
    snapshot: &Snapshot,
    plan: &Plan<Memory>,
) -> Result<(), Violation> {
    let mut touched = BTreeSet::new();
    for action in plan.actions() {
        let target = &action.target;
        let broken = |what: &str| Err(Violation(format!("{what}: {action}")));
        let is_self = target.resource == planner.resource
            && target.uid.as_ref() == Some(&snapshot.deployment.meta.uid)
            && matches!(action.verb, Verb::Patch { .. });
        if !is_self && target.resource != planner.sets {
            return broken("a write to something that is not ours");
        }
        if target.key.namespace != snapshot.deployment.meta.key.namespace || target.key.name.len() > 253 {
            return broken("an illegal key");
        }
        if !touched.insert((target.resource.plural, &target.key)) {
            return broken("two writes to one object");
        }
        match action.verb {
            Verb::Create { .. } => {}
            _ if target.uid.is_none() => return broken("a write without a uid"),
            Verb::Patch { .. } if target.resource_version == 0 => {
                return broken("a patch without a resourceVersion");
            }
            _ => {}
        }
    }
    let creates = plan.actions().filter(|action| matches!(action.verb, Verb::Create { .. })).count();
    if creates > 1 { Err(Violation("two ReplicaSets created at once".to_owned())) } else { Ok(()) }
}

/// Never more pods than replicas + maxSurge by our doing, never fewer available than replicas − maxUnavailable,
/// and no ReplicaSet deleted that has pods.
fn sizes(planner: DeploymentPlanner, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let deployment = &snapshot.deployment;
    let mut after: BTreeMap<&str, (i64, &ReplicaSet)> = BTreeMap::new();
    // What is let go takes its pods along.
    let released: BTreeSet<_> = plan
        .actions()
        .filter(|action| matches!(action.verb, Verb::Release { .. }))
        .filter_map(|action| action.target.uid.as_ref())
        .collect();
    let ours = |set: &ReplicaSet| {
        set.meta.controller.as_ref() == Some(&deployment.meta.uid) && !released.contains(&set.meta.uid)
    };
    for set in snapshot.sets.iter().filter(|set| ours(set)) {
        after.insert(&set.meta.key.name, (i64::from(set.replicas), set));
    }
    let before: BTreeMap<_, _> = after.iter().map(|(name, (size, _))| (*name, *size)).collect();
    let mut created = 0;
    for action in plan.actions().filter(|action| action.target.resource == planner.sets) {
        let size = new_size(action);
        let name = &*action.target.key.name;
        match (&action.verb, after.get_mut(name)) {
            (Verb::Create { .. }, _) => created += size.unwrap_or(0),
            (Verb::Delete { .. }, Some((spec, set))) if *spec > 0 || set.status.replicas.unwrap_or(0) > 0 => {
                return Err(Violation(format!("a ReplicaSet with pods deleted: {action}")));
            }
            (_, Some((spec, _))) => *spec = size.unwrap_or(*spec),
            (_, None) => {}
        }
    }
    // A set that has more pods than it should does not make any by growing within what it has.
    let pods = |size: i64, set: &ReplicaSet| size.max(set.status.replicas.unwrap_or(0).into());
    let standing: i64 = after.iter().map(|(name, (_, set))| pods(before[name], set)).sum();
    let footprint = after.values().map(|(size, set)| pods(*size, set)).sum::<i64>() + created;
    let grows = footprint > standing;
    let (surge, unavailable) = budget(snapshot);
    let wanted = i64::from(deployment.replicas);
    if grows && footprint > wanted + surge {
        let figures = format!("{footprint} > {wanted} + {surge}");
        return Err(Violation(format!("more pods than replicas + maxSurge: {figures}")));
    }
    // A change of spec.replicas shrinks all sets in proportion, whatever is available.
    let is_scaling = snapshot.sets.iter().any(|set| {
        let desired = annotations::count(&set.annotations, annotations::DESIRED_REPLICAS);
        desired.is_none_or(|desired| i64::from(desired) != wanted)
    });
    let available = |size: i64, set: &ReplicaSet| size.min(set.status.available_replicas.unwrap_or(0).into());
    let now: i64 = after.iter().map(|(name, (_, set))| available(before[name], set)).sum();
    let then: i64 = after.values().map(|(size, set)| available(*size, set)).sum();
    let is_rolling = deployment.strategy != Strategy::Recreate && !is_scaling;
    if is_rolling && then < now && then < wanted - unavailable {
        let figures = format!("{then} < {wanted} - {unavailable}");
        return Err(Violation(format!("fewer available pods than replicas - maxUnavailable: {figures}")));
    }
    Ok(())
}

/// The `spec.replicas` that an action sets.
fn new_size(action: &Action) -> Option<i64> {
    match &action.verb {
        Verb::Create { body, .. } => body.to_value()["spec"]["replicas"].as_i64(),
        Verb::Patch { subresource: None, body } => body["spec"]["replicas"].as_i64(),
        _ => None,
    }
}

/// Surge and unavailability in pods, spelled out once more.
fn budget(snapshot: &Snapshot) -> (i64, i64) {
    let replicas = snapshot.deployment.replicas;
    match snapshot.deployment.strategy {
        Strategy::Recreate => (0, replicas.into()),
        Strategy::RollingUpdate { max_surge, max_unavailable } => {
            let surge = i64::from(max_surge.of_rounding_up(replicas));
            let unavailable = i64::from(max_unavailable.of_rounding_down(replicas));
            (surge, if surge == 0 { unavailable.max(1) } else { unavailable })
        }
    }
}

/// What the native API server demands of a Deployment's status, and that foreign conditions are kept.
fn status(planner: DeploymentPlanner, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    const OURS: [&str; 6] = ["Available", "Progressing", "ReplicaFailure", "Ready", "Reconciling", "Stalled"];
    let old = &snapshot.deployment.status;
    for action in plan.actions().filter(|action| action.target.resource == planner.resource) {
        let Verb::Patch { subresource, body } = &action.verb else { continue };
        if subresource.is_none() {
            if body.get("status").is_some() {
                return Err(Violation(format!("a status outside /status: {action}")));
            }
            continue;
        }
        let fields = &body["status"];
        let value = |name: &str, old: Option<i32>| {
            let new = fields.get(name).map(|new| new.as_i64().unwrap_or(0));
            new.unwrap_or_else(|| i64::from(old.unwrap_or(0)))
        };
        let replicas = value("replicas", old.replicas);
        let updated = value("updatedReplicas", old.updated_replicas);
        let ready = value("readyReplicas", old.ready_replicas);
        let available = value("availableReplicas", old.available_replicas);
        let unavailable = value("unavailableReplicas", old.unavailable_replicas);
        let collisions = value("collisionCount", old.collision_count);
        let least = replicas.min(updated).min(ready).min(available).min(unavailable);
        let is_legal = least >= 0
            && updated <= replicas
            && ready <= replicas
            && available <= ready
            && collisions >= i64::from(old.collision_count.unwrap_or(0));
        if !is_legal || body.get("spec").is_some() {
            return Err(Violation(format!("a status the API server would refuse: {action}")));
        }
        let kept = |kind: &str| match fields.get("conditions").and_then(Value::as_array) {
            Some(list) => list.iter().any(|condition| condition["type"] == kind),
            None => true,
        };
        if let Some(lost) =
            old.conditions.iter().find(|held| !OURS.contains(&&*held.kind) && !kept(&held.kind))
        {
            return Err(Violation(format!("the foreign condition {} would be lost", lost.kind)));
        }
    }
    Ok(())
}
