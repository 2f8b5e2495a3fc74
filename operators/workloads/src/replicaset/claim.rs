//! `spec.selector`: which pods are ours. Finished pods are neither adopted nor released.

use std::sync::Arc;

use trysail_core::{
    Action,
    claim::{Claim, claim},
    plan::OwnerReference,
    pod::Pod,
};

use super::{ReplicaSetPlanner, Snapshot};
use crate::pod_control;

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
    let owner =
        OwnerReference { resource: planner.resource, key: set.meta.key.clone(), uid: set.meta.uid.clone() };
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
                claims.actions.push(pod_control::adopt(pod, owner.clone()));
                claims.active.push(pod);
            }
            Claim::Release => {
                claims.actions.push(pod_control::release(pod, &owner));
            }
            Claim::Ignore => {}
        }
    }
    claims
}
