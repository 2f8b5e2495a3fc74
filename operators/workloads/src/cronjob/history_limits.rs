//! `spec.successfulJobsHistoryLimit`, `spec.failedJobsHistoryLimit`: the oldest finished Jobs beyond them go.

use std::sync::Arc;

use trysail_core::Action;

use super::{
    CronJobPlanner, Snapshot,
    concurrency_policy::delete,
    snapshot::{Outcome, outcome},
};
use crate::views::Job;

/// The deletes that bring the history within its limits. A Job is the proof that its moment has run: they come after
/// the status write that says so.
pub(super) fn surplus(planner: CronJobPlanner, snapshot: &Snapshot) -> Vec<Action> {
    let cron_job = &snapshot.cron_job;
    let limits = [
        (Outcome::Complete, cron_job.successful_jobs_history_limit, "beyond spec.successfulJobsHistoryLimit"),
        (Outcome::Failed, cron_job.failed_jobs_history_limit, "beyond spec.failedJobsHistoryLimit"),
    ];
    let beyond = |(ended, limit, because): (Outcome, usize, &'static str)| {
        let is_kept = |job: &&Arc<Job>| outcome(job) == Some(ended) && !job.meta.is_terminating();
        let mut kept: Vec<&Arc<Job>> = snapshot.jobs.iter().filter(is_kept).collect();
        // A Job that never started is the youngest, as upstream has it.
        kept.sort_by_key(|job| {
            let start = job.status.start_time;
            (start.is_none(), start, job.meta.key.clone())
        });
        let count = kept.len().saturating_sub(limit);
        let going = kept.into_iter().take(count);
        going.map(|job| delete(planner, job, because)).collect::<Vec<_>>()
    };
    limits.into_iter().flat_map(beyond).collect()
}
