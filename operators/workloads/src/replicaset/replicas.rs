//! `spec.replicas`: how many pods to create or delete now.

use std::sync::Arc;

use trysail_core::{Action, Json, names::child_name, plan::OwnerReference, pod::Pod};

use super::{ReplicaSetPlanner, Snapshot, deletion_order};
use crate::{
    pod_body::PodBody,
    pod_control::{self, delete},
};

/// Creates or deletes per look, upstream's number: one huge owner leaves room for the others.
pub const BURST: usize = 500;

/// How many pods to create now.
pub(super) fn missing(replicas: i32, active: usize) -> usize {
    usize::try_from(replicas).unwrap_or(0).saturating_sub(active).min(BURST)
}

/// How many pods to delete now.
pub(super) fn surplus(replicas: i32, active: usize) -> usize {
    active.saturating_sub(usize::try_from(replicas).unwrap_or(0)).min(BURST)
}

/// The creates or deletes that bring `active` to `spec.replicas`, or as far as the burst allows.
pub(super) fn resize(planner: ReplicaSetPlanner, snapshot: &Snapshot, active: &[&Arc<Pod>]) -> Vec<Action> {
    let set = &snapshot.set;
    let because = format!("{} of {} pods", active.len(), set.replicas);
    let going = surplus(set.replicas, active.len());
    if going > 0 {
        let chosen = deletion_order::first(snapshot, active, going);
        return chosen.into_iter().map(|pod| delete(pod, because.clone())).collect();
    }
    let coming = missing(set.replicas, active.len());
    let owner =
        OwnerReference { resource: planner.resource, key: set.meta.key.clone(), uid: set.meta.uid.clone() };
    let spec = if coming == 0 { None } else { spread(snapshot) };
    let slots = snapshot.free_slots.iter().take(coming);
    slots
        .map(|slot| {
            let name = child_name(&set.meta.key.name, &set.meta.uid, *slot);
            let pod = PodBody::new(&owner, &set.template, name);
            let pod = spec.iter().fold(pod, |pod, spec| pod.spec(spec.clone()));
            pod_control::create(&pod, because.clone())
        })
        .collect()
}

/// The spec of pods to come, where they are spread and the template does not say how.
fn spread(snapshot: &Snapshot) -> Option<Json> {
    let set = &snapshot.set;
    snapshot.spread?.spec(&set.template, &set.selector)
}
