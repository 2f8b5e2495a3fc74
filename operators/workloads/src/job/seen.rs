//! What is read of a single pod of a Job: its finalizer, its index, its failures, when it ended.

use trysail_core::{
    Timestamp,
    pod::{
        JOB_COMPLETION_INDEX, JOB_INDEX_FAILURE_COUNT, JOB_INDEX_IGNORED_FAILURE_COUNT, Phase, Pod,
        PodDetails,
    },
};

use crate::views::Job;

/// Finalizers, annotations, conditions and containers; pods of Jobs have them decoded.
fn details(pod: &Pod) -> Option<&PodDetails> {
    pod.details.as_deref()
}

pub(super) fn has_finalizer(pod: &Pod, finalizer: &str) -> bool {
    details(pod).is_some_and(|details| details.finalizers.iter().any(|held| held == finalizer))
}

/// The completion index, if it is one.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    details(pod)?.annotations.get(JOB_COMPLETION_INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// The index, when the pod is of any use to this Job: NonIndexed Jobs have no wrong index.
pub(super) fn is_countable(pod: &Pod, job: &Job) -> bool {
    !job.is_indexed() || valid_index(pod, job).is_some()
}

/// The completion index, if the Job has it.
pub(super) fn valid_index(pod: &Pod, job: &Job) -> Option<i32> {
    index(pod).filter(|index| *index < job.completions.unwrap_or(0))
}

/// What the annotation says; 0 for what is no number, as somebody may have edited it.
pub(super) fn failures(pod: &Pod, annotation: &str) -> i32 {
    let count = details(pod).and_then(|details| details.annotations.get(annotation)?.parse().ok());
    count.filter(|count| *count >= 0).unwrap_or(0)
}

/// All failures of the index before this pod.
pub(super) fn all_failures(pod: &Pod) -> i32 {
    failures(pod, JOB_INDEX_FAILURE_COUNT).saturating_add(failures(pod, JOB_INDEX_IGNORED_FAILURE_COUNT))
}

/// The pod has failed, or never will succeed: a pod that is being deleted may vanish without ever having ended.
/// `podReplacementPolicy: Failed` waits until it has.
pub(super) fn is_failed(pod: &Pod, job: &Job) -> bool {
    match pod.phase {
        Phase::Failed => true,
        Phase::Succeeded => false,
        _ => !job.replaces_failed_only && pod.meta.is_terminating(),
    }
}

/// The sum over all containers; for `restartPolicy: OnFailure`.
pub(super) fn restarts(pod: &Pod) -> i64 {
    details(pod).map_or(0, |details| i64::from(details.total_restarts))
}

/// When the pod ended, as well as that can be known: its containers' last end; else when it ceased to be ready; else
/// when it was deleted; else when it was created.
pub(super) fn finish_time(pod: &Pod) -> Timestamp {
    containers_end(pod).or_else(|| unready_since(pod)).or_else(|| deleted_at(pod)).unwrap_or(pod.meta.created)
}

fn containers_end(pod: &Pod) -> Option<Timestamp> {
    // Of init containers only sidecars matter: they end after the others.
    let containers = &details(pod)?.containers;
    let ends = containers.iter().filter(|container| !container.init || container.sidecar);
    let ends: Option<Vec<Timestamp>> =
        ends.map(|container| container.terminated.as_ref().and_then(|end| end.finished_at)).collect();
    ends?.into_iter().max()
}

fn unready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = &details(pod)?.conditions;
    let ready = conditions.iter().find(|condition| condition.kind == "Ready")?;
    ready.last_transition.filter(|_| ready.status == "False")
}

/// The API server stamps the end of the grace period.
fn deleted_at(pod: &Pod) -> Option<Timestamp> {
    let grace = details(pod).map_or(0, |details| details.grace_seconds);
    pod.meta.deleted?.checked_sub(jiff::SignedDuration::from_secs(grace)).ok()
}
