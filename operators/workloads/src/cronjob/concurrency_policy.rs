//! `spec.concurrencyPolicy: Replace`: what is under way goes before the new run starts. `Forbid` is judged in
//! [`super::run`], `Allow` needs nothing.

use trysail_core::{
    Action,
    plan::{EventNote, Propagation, Target, Verb},
};

use super::{CronJobPlanner, Snapshot, ledger::Ledger};
use crate::views::{ConcurrencyPolicy, Job};

/// The reason of the action that deletes a Job.
pub(super) const DELETE: &str = "DeleteJob";

/// The deletes that make way for a new run. What is on its way out already is not asked again.
pub(super) fn make_way(planner: CronJobPlanner, snapshot: &Snapshot, ledger: &Ledger) -> Vec<Action> {
    if snapshot.cron_job.concurrency_policy != ConcurrencyPolicy::Replace {
        return Vec::new();
    }
    let going = ledger.running(snapshot).filter(|job| !job.meta.is_terminating());
    going.map(|job| delete(planner, job, "replaced by the next run")).collect()
}

/// Deletes a Job; its pods are collected after it.
pub(super) fn delete(planner: CronJobPlanner, job: &Job, because: &str) -> Action {
    Action {
        target: Target {
            resource: planner.jobs,
            key: job.meta.key.clone(),
            uid: Some(job.meta.uid.clone()),
            resource_version: job.meta.resource_version,
        },
        verb: Verb::Delete { propagation: Some(Propagation::Background) },
        reason: DELETE,
        because: because.to_owned(),
        on_success: Some(EventNote::normal("SuccessfulDelete", format!("Deleted job {}", job.meta.key.name))),
        on_failure: Some(EventNote::warning("FailedDelete", "Deleted job")),
    }
}
