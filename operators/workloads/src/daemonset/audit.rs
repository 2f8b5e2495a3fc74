//! Invariants of every plan for a DaemonSet, written independently of the decisions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use trysail_core::{
    Plan, Uid,
    plan::{Action, Verb, Violation},
    pod::Pod,
    resource::PODS,
};

use super::{BURST, DaemonSetPlanner, Memory, Snapshot};
use crate::views::UpdateStrategy;

pub(super) fn audit(
    planner: DaemonSetPlanner,
    snapshot: &Snapshot,
    plan: &Plan<Memory>,
) -> Result<(), Violation> {
    if snapshot.set.meta.is_terminating() && !plan.is_idle() {
        return Err(Violation("written by an owner that is being deleted".to_owned()));
    }
    preconditions(snapshot, plan)?;
    creates(snapshot, plan)?;
    deletes(snapshot, plan)?;
    status(planner, plan)
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
        if !touched.insert((target.resource.plural, target.key.clone()))
            && !matches!(action.verb, Verb::Delete { .. })
        {
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
    Ok(())
}

/// A pod is made for one node in view, with a revision, and never beside another one of the same kind.
fn creates(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    let surges = matches!(snapshot.set.update_strategy,
        UpdateStrategy::RollingUpdate { max_surge, .. } if max_surge.of_rounding_up(1) > 0);
    for action in plan.actions().filter(|action| action.target.resource == PODS) {
        let Verb::Create { controller, body } = &action.verb else { continue };
        let broken = |what: &str| Err(Violation(format!("{what}: {action}")));
        let body = body.to_value();
        let node = meant_for(&body);
        let Some(spot) = snapshot.spots.iter().find(|spot| *spot.node.meta.key.name == *node) else {
            return broken("a pod for a node that is not in view");
        };
        if controller.as_ref() != Some(&snapshot.set.meta.uid) {
            return broken("a pod without its owner");
        }
        if body["metadata"]["labels"][super::history::HASH].as_str().is_none_or(str::is_empty) {
            return broken("a pod without a revision");
        }
        let is_living = |pod: &&std::sync::Arc<Pod>| {
            let set = &snapshot.set;
            pod.meta.deleted.is_none()
                && pod.meta.controller.as_ref() == Some(&set.meta.uid)
                && set.selector.matches(&pod.meta.labels)
        };
        let living = spot.pods.iter().filter(is_living).filter(|pod| !is_deleted(plan, pod)).count();
        *made.entry(node.clone()).or_default() += 1;
        if living > usize::from(surges) || made[&node] > 1 {
            return broken("a pod too many on a node");
        }
    }
    if made.len() > BURST {
        return Err(Violation(format!("{} pods in one burst", made.len())));
    }
    Ok(())
}

fn meant_for(body: &Value) -> String {
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0\
                /matchFields/0/values/0";
    body.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn is_deleted(plan: &Plan<Memory>, pod: &Pod) -> bool {
    plan.actions().any(|action| is_delete_of(action, &pod.meta.uid))
}

fn is_delete_of(action: &Action, uid: &Uid) -> bool {
    matches!(action.verb, Verb::Delete { .. }) && action.target.uid.as_ref() == Some(uid)
}

/// Only pods of ours go, those that run on a node that is not in view never; and by an update of available pods no
/// more than `maxUnavailable` nodes' worth.
fn deletes(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let set = &snapshot.set;
    let all: BTreeMap<&Uid, &Pod> = snapshot
        .spots
        .iter()
        .flat_map(|spot| &spot.pods)
        .chain(snapshot.strays.iter().filter(|pod| pod.node.is_empty()))
        .map(|pod| (&pod.meta.uid, &**pod))
        .collect();
    let mut count = 0;
    for action in plan.actions().filter(|action| action.target.resource == PODS) {
        if !matches!(action.verb, Verb::Delete { .. }) {
            continue;
        }
        count += 1;
        let broken = |what: &str| Err(Violation(format!("{what}: {action}")));
        let Some(pod) = action.target.uid.as_ref().and_then(|uid| all.get(uid)) else {
            return broken("a pod deleted that is not judged");
        };
        if pod.meta.deleted.is_some() {
            return broken("a pod deleted twice");
        }
        let is_foreign = pod.meta.controller.as_ref().is_some_and(|uid| *uid != set.meta.uid);
        if is_foreign || !set.selector.matches(&pod.meta.labels) {
            return broken("a pod deleted that is not ours");
        }
    }
    if count > BURST {
        return Err(Violation(format!("{count} deletions in one burst")));
    }
    Ok(())
}

/// What the native API server demands of a DaemonSet's status, and that nobody's condition is lost is up to the
/// patch, which holds the whole list.
fn status(planner: DaemonSetPlanner, plan: &Plan<Memory>) -> Result<(), Violation> {
    for action in plan.actions() {
        let Verb::Patch { subresource: Some("status"), body } = &action.verb else { continue };
        let counters = body["status"].as_object().into_iter().flatten();
        let is_negative = counters.filter_map(|(_, value)| value.as_i64()).any(|count| count < 0);
        let is_ours = action.target.resource == planner.resource;
        if is_negative || !is_ours || body.as_object().is_none_or(|body| body.len() != 1) {
            return Err(Violation(format!("a status the API server would refuse: {action}")));
        }
    }
    Ok(())
}
