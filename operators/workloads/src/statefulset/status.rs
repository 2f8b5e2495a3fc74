//! `status`: what is reported, from the pods seen before this look's own writes.

use trysail_core::{
    Face,
    condition::Conditions,
    plan::{Action, Target, Verb},
};

use super::{
    failure::{self, Problem, REPLICA_FAILURE},
    scene::Scene,
};
use crate::{
    kstatus::{self, Progress},
    status_patch::{Display, StatusPatch},
    views::StatefulSetUpdateStrategy,
};

/// The reason of status writes; a refused one must not keep pods from being created.
pub(super) const UPDATE_STATUS: &str = "UpdateStatus";

/// The counters and revisions of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) replicas: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) current: i32,
    pub(super) updated: i32,
    pub(super) current_revision: String,
}

impl Counts {
    pub(super) fn of(scene: &Scene<'_>) -> Self {
        let mut counts = Self {
            replicas: 0,
            ready: 0,
            available: 0,
            current: 0,
            updated: 0,
            current_revision: scene.revisions.current().to_owned(),
        };
        for pod in scene.fleet.all() {
            counts.replicas += 1;
            counts.ready += i32::from(Scene::is_ready(pod));
            counts.available += i32::from(scene.is_available(pod));
            let stays = !pod.meta.is_terminating();
            counts.current += i32::from(stays && scene.revisions.is_current(pod));
            counts.updated += i32::from(stays && scene.revisions.is_updated(pod));
        }
        let wanted = scene.set().replicas;
        let is_rolling =
            matches!(scene.set().update_strategy, StatefulSetUpdateStrategy::RollingUpdate { .. });
        if is_rolling && counts.updated == wanted && counts.ready == wanted && counts.replicas == wanted {
            counts.current = counts.updated;
            scene.revisions.update().clone_into(&mut counts.current_revision);
        }
        counts
    }
}

/// The write that brings the status up to date; `None` when it is. `is_writing` says that the same plan creates
/// or deletes pods.
pub(super) fn write(
    scene: &Scene<'_>,
    counts: &Counts,
    problems: &[Problem],
    is_writing: bool,
) -> Option<Action> {
    let set = scene.set();
    let old = &set.status;
    let mut patch = StatusPatch::new(scene.planner.face);
    patch.counter("replicas", old.replicas, counts.replicas);
    patch.counter("readyReplicas", old.ready_replicas, counts.ready);
    patch.counter("availableReplicas", old.available_replicas, counts.available);
    patch.counter("currentReplicas", old.current_replicas, counts.current);
    patch.counter("updatedReplicas", old.updated_replicas, counts.updated);
    patch.optional("currentRevision", old.current_revision.as_deref(), Some(&*counts.current_revision));
    patch.optional("updateRevision", old.update_revision.as_deref(), Some(scene.revisions.update()));
    patch.optional("collisionCount", old.collision_count, Some(scene.revisions.collisions()));
    patch.optional("observedGeneration", old.observed_generation, Some(set.meta.generation));
    let mut conditions = old.conditions.clone();
    failure::report(&mut conditions, scene.snapshot, problems, is_writing);
    if scene.planner.face == Face::Crd {
        let progress = progress(scene, counts, &conditions, problems);
        kstatus::apply(&mut conditions, progress, scene.now());
    }
    patch.conditions(&old.conditions, &conditions);
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
            resource: scene.planner.resource,
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

/// How far the set is, as `helm --wait` and `kubectl rollout status` see it: with OnDelete and below the partition
/// old pods are as wanted.
fn progress(scene: &Scene<'_>, counts: &Counts, conditions: &Conditions, problems: &[Problem]) -> Progress {
    let set = scene.set();
    let wanted = set.replicas;
    if let Some(Problem { reason, message }) = problems.first().filter(|_| counts.available < wanted) {
        return Progress::Stuck { reason, message: message.clone() };
    }
    // A refusal is not `Stalled`: a quota or a webhook may let the next attempt through.
    if let Some(failure) = conditions.get(REPLICA_FAILURE).filter(|_| problems.is_empty()) {
        return Progress::Underway { reason: REPLICA_FAILURE, message: failure.message.clone() };
    }
    let to_update = match scene.partition() {
        None => 0,
        Some(partition) => (i64::from(wanted) - partition).max(0),
    };
    let message = format!("{} of {wanted} pods available", counts.available.min(wanted));
    if counts.replicas != wanted {
        Progress::Underway { reason: "Scaling", message }
    } else if i64::from(counts.updated) < to_update {
        let message = format!("{} of {to_update} pods updated", counts.updated);
        Progress::Underway { reason: "RollingOut", message }
    } else if counts.available < wanted {
        Progress::Underway { reason: "PodsUnavailable", message }
    } else {
        Progress::Done { message }
    }
}
