//! `spec.selector`: which pods are ours. Finished pods are neither adopted nor released.

use std::sync::Arc;

use trysail_core::{
    Action,
    claim::{Claim, claim},
    plan::{OwnerReference, Target, Verb},
    pod::Pod,
    resource::PODS,
};

use super::{ReplicaSetPlanner, Snapshot};

/// The pods that count, and the writes that make it so.
pub(super) struct Claims<'a> {
    /// Active pods that are ours once `actions` are done.
    pub(super) active: Vec<&'a Arc<Pod>>,
    /// Pods of ours that are going.
    pub(super) terminating: usize,
    /// Adoptions and releases.
    pub(super) actions: Vec<Action>,
}

pub(super) fn claims(planner: ReplicaSetPlanner, snapshot: &Snapshot) -> Claims<'_> {
    let set = &snapshot.set;
    let mut claims = Claims { active: Vec::new(), terminating: 0, actions: Vec::new() };
    for pod in snapshot.pods.iter().chain(&snapshot.orphans) {
        let verdict = claim(&set.meta, &set.selector, &pod.meta);
        if pod.is_terminating() && verdict == Claim::Keep {
            claims.terminating += 1;
        }
        if !pod.is_active() {
            continue;
        }
        match verdict {
            Claim::Keep => claims.active.push(pod),
            Claim::Adopt => {
                let owner = OwnerReference {
                    resource: planner.resource,
                    key: set.meta.key.clone(),
                    uid: set.meta.uid.clone(),
                };
                claims.actions.push(action(pod, Verb::Adopt { owner }, "AdoptPod", "matches the selector"));
                claims.active.push(pod);
            }
            Claim::Release => {
                let verb = Verb::Release { owner: set.meta.uid.clone() };
                claims.actions.push(action(pod, verb, "ReleasePod", "no longer matches the selector"));
            }
            Claim::Ignore => {}
        }
    }
    claims
}

fn action(pod: &Pod, verb: Verb, reason: &'static str, because: &str) -> Action {
    Action {
        target: target(pod),
        verb,
        reason,
        because: because.to_owned(),
        on_success: None,
        on_failure: None,
    }
}

pub(super) fn target(pod: &Pod) -> Target {
    Target {
        resource: PODS,
        key: pod.meta.key.clone(),
        uid: Some(pod.meta.uid.clone()),
        resource_version: pod.meta.resource_version,
    }
}
