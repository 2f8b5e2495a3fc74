//! `status`: what is reported, from the ReplicaSets' statuses as they are before this look's own writes.

use serde_json::{Value, json};
use trysail_core::{
    Face,
    condition::Conditions,
    plan::{Action, Target, Verb},
};

use super::{
    DeploymentPlanner, annotations::REVISION, conditions::PROGRESSING, fleet::Fleet,
    progress_deadline::TIMED_OUT,
};
use crate::{
    kstatus::{self, Progress},
    status_patch::{Display, StatusPatch},
    views::{Deployment, DeploymentStatus, ReplicaSet},
};

/// The reason of status writes; a refused one must not keep a rollout from going on.
pub(super) const UPDATE_STATUS: &str = "UpdateStatus";

/// The counters of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) replicas: i32,
    pub(super) updated: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) unavailable: i32,
    pub(super) terminating: Option<i32>,
}

impl Counts {
    pub(super) fn of(fleet: &Fleet<'_>) -> Self {
        let sum = |count: fn(&ReplicaSet) -> Option<i32>| -> i32 {
            fleet.all().fold(0, |sum, set| sum.saturating_add(count(set).unwrap_or(0)))
        };
        let available = sum(|set| set.status.available_replicas);
        Self {
            replicas: sum(|set| set.status.replicas),
            updated: fleet.new.and_then(|new| new.status.replicas).unwrap_or(0),
            ready: sum(|set| set.status.ready_replicas),
            available,
            unavailable: sum(|set| Some(set.replicas)).saturating_sub(available).max(0),
            terminating: terminating(fleet),
        }
    }

    /// Every pod is of the current template and available, and no old one is left.
    pub(super) fn is_complete(&self, fleet: &Fleet<'_>) -> bool {
        let wanted = fleet.deployment.replicas;
        self.updated == wanted && self.replicas == wanted && self.available == wanted
    }

    /// Something moved in the right direction since `old` was written.
    pub(super) fn is_progress(&self, old: &DeploymentStatus) -> bool {
        let was = |count: Option<i32>| count.unwrap_or(0);
        self.updated > was(old.updated_replicas)
            || self.replicas - self.updated < was(old.replicas) - was(old.updated_replicas)
            || self.ready > was(old.ready_replicas)
            || self.available > was(old.available_replicas)
    }
}

/// Unknown as long as a ReplicaSet that has been looked at does not say.
fn terminating(fleet: &Fleet<'_>) -> Option<i32> {
    fleet.all().try_fold(0, |sum: i32, set| match set.status.terminating_replicas {
        Some(count) => Some(sum.saturating_add(count)),
        None if set.status.observed_generation.unwrap_or(0) == 0 => Some(sum),
        None => None,
    })
}

/// What a status write consists of, beside what the Deployment itself says.
pub(super) struct Report<'a> {
    pub(super) counts: Counts,
    pub(super) conditions: Conditions,
    pub(super) collisions: Option<i32>,
    /// The revision annotation: part of a native status write, since the native server lets it pass.
    pub(super) revision: Option<&'a str>,
}

/// The write that brings the status up to date; `None` when it is.
pub(super) fn write(
    planner: DeploymentPlanner,
    deployment: &Deployment,
    report: &Report<'_>,
) -> Option<Action> {
    let Report { counts, conditions, collisions, revision } = report;
    let old = &deployment.status;
    let mut patch = StatusPatch::new(planner.face);
    patch.counter("replicas", old.replicas, counts.replicas);
    patch.counter("updatedReplicas", old.updated_replicas, counts.updated);
    patch.counter("readyReplicas", old.ready_replicas, counts.ready);
    patch.counter("availableReplicas", old.available_replicas, counts.available);
    patch.counter("unavailableReplicas", old.unavailable_replicas, counts.unavailable);
    patch.optional("terminatingReplicas", old.terminating_replicas, counts.terminating);
    patch.optional("collisionCount", old.collision_count, *collisions);
    patch.optional("observedGeneration", old.observed_generation, Some(deployment.meta.generation));
    patch.conditions(&old.conditions, conditions);
    Display {
        selector: &deployment.selector,
        template: &deployment.template,
        ready: counts.ready,
        replicas: deployment.replicas,
        spec_is_new: !deployment.is_observed(),
    }
    .write(&mut patch, [&old.selector, &old.ready, &old.containers, &old.images]);
    let mut body = patch.body();
    if planner.face == Face::Native
        && let Some(annotation) = revision_patch(deployment, *revision)
    {
        let body = body.get_or_insert_with(|| json!({}));
        body["metadata"] = annotation["metadata"].clone();
    }
    Some(own_patch(planner, deployment, Some("status"), body?, UPDATE_STATUS))
}

/// The write of the revision annotation; `None` when it is right.
pub(super) fn write_revision(
    planner: DeploymentPlanner,
    deployment: &Deployment,
    revision: Option<&str>,
) -> Option<Action> {
    if planner.face == Face::Native {
        return None;
    }
    let body = revision_patch(deployment, revision)?;
    Some(own_patch(planner, deployment, None, body, "RecordRevision"))
}

fn revision_patch(deployment: &Deployment, revision: Option<&str>) -> Option<Value> {
    let revision = revision.filter(|revision| deployment.annotations.get(REVISION) != Some(*revision))?;
    Some(json!({"metadata": {"annotations": {REVISION: revision}}}))
}

fn own_patch(
    planner: DeploymentPlanner,
    deployment: &Deployment,
    subresource: Option<&'static str>,
    body: Value,
    reason: &'static str,
) -> Action {
    Action {
        target: Target {
            resource: planner.resource,
            key: deployment.meta.key.clone(),
            uid: Some(deployment.meta.uid.clone()),
            resource_version: deployment.meta.resource_version,
        },
        verb: Verb::Patch { subresource, body },
        reason,
        because: String::new(),
        on_success: None,
        on_failure: None,
    }
}

/// CRD face: what `helm --wait` and `kubectl wait` read.
pub(super) fn kstatus(conditions: &mut Conditions, fleet: &Fleet<'_>, counts: &Counts, now: jiff::Timestamp) {
    let wanted = fleet.deployment.replicas;
    let message = format!("{} of {wanted} updated pods available", counts.available.min(counts.updated));
    let progress = match conditions.get(PROGRESSING) {
        _ if counts.is_complete(fleet) => Progress::Done { message },
        Some(held) if held.reason == TIMED_OUT => {
            Progress::Stuck { reason: TIMED_OUT, message: held.message.clone() }
        }
        _ if fleet.deployment.paused => Progress::Underway { reason: "Paused", message },
        _ => Progress::Underway { reason: "RollingOut", message },
    };
    kstatus::apply(conditions, progress, now);
}
