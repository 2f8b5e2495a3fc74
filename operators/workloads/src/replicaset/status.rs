//! `status`: what is reported, from the pods seen before this look's own writes.

use std::sync::Arc;

use trysail_core::{
    Face,
    condition::Conditions,
    plan::{Action, Target, Verb},
    pod::Pod,
};

use super::{
    ReplicaSetPlanner, Snapshot,
    claim::Claims,
    failure::{self, REPLICA_FAILURE, UPDATE_STATUS},
};
use crate::{
    kstatus::{self, Progress},
    status_patch::{Display, StatusPatch},
};

/// The counters of a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) replicas: i32,
    pub(super) fully_labeled: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) terminating: i32,
}

impl Counts {
    pub(super) fn of(snapshot: &Snapshot, claims: &Claims<'_>) -> Self {
        let set = &snapshot.set;
        let count = |predicate: &dyn Fn(&Pod) -> bool| -> i32 {
            claims.active.iter().filter(|pod: &&&Arc<Pod>| predicate(pod)).count() as i32
        };
        Self {
            replicas: claims.active.len() as i32,
            fully_labeled: count(&|pod| pod.meta.labels.includes(&set.template.labels)),
            ready: count(&Pod::is_ready),
            available: count(&|pod| pod.is_available(set.min_ready_seconds, snapshot.context.now)),
            terminating: claims.terminating as i32,
        }
    }
}

/// The write that brings the status up to date; `None` when it is. `is_writing` says that the same plan creates
/// or deletes pods.
pub(super) fn write(
    planner: ReplicaSetPlanner,
    snapshot: &Snapshot,
    counts: Counts,
    is_writing: bool,
) -> Option<Action> {
    let set = &snapshot.set;
    let old = &set.status;
    let mut patch = StatusPatch::new(planner.face);
    patch.counter("replicas", old.replicas, counts.replicas);
    patch.counter("fullyLabeledReplicas", old.fully_labeled_replicas, counts.fully_labeled);
    patch.counter("readyReplicas", old.ready_replicas, counts.ready);
    patch.counter("availableReplicas", old.available_replicas, counts.available);
    if planner.reports_terminating() {
        patch.optional("terminatingReplicas", old.terminating_replicas, Some(counts.terminating));
    }
    patch.optional("observedGeneration", old.observed_generation, Some(set.meta.generation));
    patch.conditions(&old.conditions, &conditions(planner, snapshot, counts, is_writing));
    Display {
        selector: &set.selector,
        template: &set.template,
        ready: counts.ready,
        replicas: set.replicas,
        spec_is_new: !set.is_observed(),
    }
    .write(&mut patch, [&old.selector, &old.ready, &old.containers, &old.images]);
    Some(Action {
        target: Target {
            resource: planner.resource,
            key: set.meta.key.clone(),
            uid: Some(set.meta.uid.clone()),
            resource_version: set.meta.resource_version,
        },
        verb: Verb::Patch { subresource: Some("status"), body: patch.body()? },
        reason: UPDATE_STATUS,
        because: String::new(),
        on_success: None,
        on_failure: None,
    })
}

fn conditions(
    planner: ReplicaSetPlanner,
    snapshot: &Snapshot,
    counts: Counts,
    is_writing: bool,
) -> Conditions {
    let mut conditions = snapshot.set.status.conditions.clone();
    failure::report(&mut conditions, snapshot, counts.replicas as usize, is_writing);
    if planner.face == Face::Crd {
        let progress = progress(&conditions, snapshot.set.replicas, counts);
        kstatus::apply(&mut conditions, progress, snapshot.context.now);
    }
    conditions
}

/// A refusal is not `Stalled`: a quota or a webhook may let the next attempt through.
fn progress(conditions: &Conditions, wanted: i32, counts: Counts) -> Progress {
    let Counts { replicas, available, .. } = counts;
    if let Some(failure) = conditions.get(REPLICA_FAILURE) {
        return Progress::Underway { reason: REPLICA_FAILURE, message: failure.message.clone() };
    }
    if replicas == wanted && available == wanted {
        return Progress::Done { message: format!("{wanted} pods available") };
    }
    let message = format!("{available} of {wanted} pods available");
    Progress::Underway { reason: if replicas == wanted { "PodsUnavailable" } else { "Scaling" }, message }
}
