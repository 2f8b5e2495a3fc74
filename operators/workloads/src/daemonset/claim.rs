//! `spec.selector`: which pods are ours, finished ones included: they are to be replaced.

use std::sync::Arc;

use trysail_core::{
    Action,
    claim::{Claim, claim},
    pod::Pod,
};

use super::{DaemonSetPlanner, Snapshot, pods};
use crate::{pod_control, views::DaemonSet};

/// True for a pod that counts: ours, or about to be adopted.
pub(super) fn is_ours(set: &DaemonSet, pod: &Pod) -> bool {
    matches!(claim(&set.meta, &set.selector, &pod.meta), Claim::Keep | Claim::Adopt)
}

/// Adoptions and releases.
pub(super) fn writes(planner: DaemonSetPlanner, snapshot: &Snapshot) -> Vec<Action> {
    let set = &snapshot.set;
    let owner = pods::owner(planner, set);
    let all = snapshot.spots.iter().flat_map(|spot| &spot.pods).chain(&snapshot.strays);
    let write = |pod: &Arc<Pod>| match claim(&set.meta, &set.selector, &pod.meta) {
        Claim::Keep | Claim::Ignore => None,
        Claim::Adopt => Some(pod_control::adopt(pod, owner.clone())),
        Claim::Release => Some(pod_control::release(pod, &owner)),
    };
    all.filter_map(write).collect()
}
