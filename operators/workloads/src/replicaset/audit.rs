//! Invariants of every plan for a ReplicaSet, written independently of the decisions.

use std::collections::BTreeSet;

use trysail_core::{
    Plan,
    plan::{Verb, Violation},
    pod::Phase,
    resource::PODS,
};

use super::{BURST, Memory, ReplicaSetPlanner, Snapshot};

pub(super) fn audit(
    planner: ReplicaSetPlanner,
    snapshot: &Snapshot,
    plan: &Plan<Memory>,
) -> Result<(), Violation> {
    preconditions(snapshot, plan)?;
    sizes(snapshot, plan)?;
    status(planner, snapshot, plan)
}

/// Every write names the incarnation and version it was decided for, and stays in its namespace.
fn preconditions(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let mut touched = BTreeSet::new();
    for action in plan.actions() {
        let target = &action.target;
        let broken = |what: &str| Err(Violation(format!("{what}: {action}")));
        if target.key.namespace != snapshot.set.meta.key.namespace {
            return broken("a write in another namespace");
        }
        if !touched.insert((target.resource.plural, target.key.clone(), target.uid.clone()))
            && !matches!(action.verb, Verb::Delete { .. })
        {
            return broken("two writes to one object");
        }
        match action.verb {
            Verb::Create { .. } if target.key.name.len() > 253 => return broken("a name that is too long"),
            Verb::Create { .. } => {}
            _ if target.uid.is_none() => return broken("a write without a uid"),
            Verb::Patch { .. } if target.resource_version == 0 => {
                return broken("a patch without a resourceVersion");
            }
            _ => {}
        }
    }
    Ok(())
}

/// A plan creates or deletes, never both; never beyond `spec.replicas`, never more than a burst.
fn sizes(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let set = &snapshot.set;
    let wanted = i64::from(set.replicas.max(0));
    let count = |wanted: fn(&Verb) -> bool| plan.actions().filter(|a| wanted(&a.verb)).count() as i64;
    let creates = count(|verb| matches!(verb, Verb::Create { .. }));
    let deletes = count(|verb| matches!(verb, Verb::Delete { .. }));
    let adopts = count(|verb| matches!(verb, Verb::Adopt { .. }));
    let releases = count(|verb| matches!(verb, Verb::Release { .. }));
    let owned = snapshot
        .pods
        .iter()
        .filter(|pod| !matches!(pod.phase, Phase::Succeeded | Phase::Failed) && pod.meta.deleted.is_none())
        .count();
    let active = owned as i64 + adopts - releases;
    let broken = |what: &str| {
        let figures = format!("{active} active, {creates} created, {deletes} deleted, {wanted} wanted");
        Err(Violation(format!("{what}: {figures}")))
    };
    if creates.max(deletes) > BURST as i64 {
        return broken("more than one burst");
    }
    if creates > 0 && (deletes > 0 || active + creates > wanted) {
        return broken("more pods than wanted");
    }
    if deletes > 0 && active - deletes < wanted {
        return broken("fewer pods than wanted");
    }
    if (creates > 0 || deletes > 0) && set.meta.deleted.is_some() {
        return broken("pods touched by an owner that is being deleted");
    }
    let foreign = plan.actions().any(|action| {
        action.target.resource == PODS
            && matches!(action.verb, Verb::Delete { .. })
            && !snapshot.pods.iter().chain(&snapshot.orphans).any(|pod| {
                Some(&pod.meta.uid) == action.target.uid.as_ref() && set.selector.matches(&pod.meta.labels)
            })
    });
    if foreign { broken("a pod deleted that is not ours") } else { Ok(()) }
}

/// What the native API server demands of a ReplicaSet's status.
fn status(planner: ReplicaSetPlanner, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    for action in plan.actions() {
        let Verb::Patch { subresource: Some("status"), body } = &action.verb else { continue };
        let fields = &body["status"];
        let old = &snapshot.set.status;
        let value = |name: &str, old: Option<i32>| {
            fields.get(name).map_or_else(|| i64::from(old.unwrap_or(0)), |new| new.as_i64().unwrap_or(0))
        };
        let replicas = value("replicas", old.replicas);
        let ready = value("readyReplicas", old.ready_replicas);
        let available = value("availableReplicas", old.available_replicas);
        let labeled = value("fullyLabeledReplicas", old.fully_labeled_replicas);
        let terminating = value("terminatingReplicas", old.terminating_replicas);
        let least = replicas.min(ready).min(available).min(labeled).min(terminating);
        let is_legal = least >= 0 && ready <= replicas && labeled <= replicas && available <= ready;
        let is_ours = action.target.resource == planner.resource;
        if !is_legal || !is_ours || body.as_object().is_none_or(|body| body.len() != 1) {
            return Err(Violation(format!("a status the API server would refuse: {action}")));
        }
        let lost = snapshot.set.status.conditions.iter().find(|held| {
            let is_foreign =
                !["ReplicaFailure", "Ready", "Reconciling", "Stalled"].contains(&held.kind.as_str());
            let kept = fields
                .get("conditions")
                .and_then(|list| list.as_array())
                .is_none_or(|list| list.iter().any(|new| new["type"] == held.kind.as_str()));
            is_foreign && !kept
        });
        if let Some(lost) = lost {
            return Err(Violation(format!("the foreign condition {} would be lost", lost.kind)));
        }
    }
    Ok(())
}
