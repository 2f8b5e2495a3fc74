//! Everything a decision about a CronJob may look at. The last read: nothing is looked up later.

use std::sync::Arc;

use jiff::Timestamp;
use trysail_core::{
    Key, Uid, View,
    intern::fnv64,
    plan::{Context, EventNote},
};

use super::{
    job_template::job_name,
    timing::{self, Timing, timing},
};
use crate::views::{CronJob, Job};

/// What is remembered between two looks at the same CronJob. Lost on restart: then standing events are told once
/// more, and a schedule that was edited while the program was down counts as if it had always been there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Events that have been told and still hold.
    pub told: Vec<EventNote>,
    /// Fingerprint of the schedule and its zone, as last seen.
    pub schedule: Option<u64>,
    /// When the schedule was last seen to change: an edit does not make up for moments before it.
    pub not_before: Option<Timestamp>,
    /// Of which generation something was attempted last: a refusal speaks of that one.
    pub attempted: i64,
    /// The moment whose Job was made last. The status says it when that Job is in view; should it be gone by then, this
    /// says that the moment has run.
    pub started: Option<Timestamp>,
    /// Jobs that were deleted to make way for it: that they are missing is no news.
    pub replaced: Vec<Uid>,
}

impl Memory {
    /// The same after a look at this CronJob.
    fn seen(mut self, cron_job: &CronJob, now: Timestamp) -> Self {
        let zone = cron_job.time_zone.as_deref().unwrap_or_default();
        let schedule = fnv64(&[cron_job.schedule.as_bytes(), &[0], zone.as_bytes()]);
        if self.schedule.is_some_and(|seen| seen != schedule) {
            self.not_before = Some(now);
        }
        // A clock that stepped back must not bar what comes now.
        self.not_before = self.not_before.map(|start| start.min(now));
        self.schedule = Some(schedule);
        self
    }
}

/// The state of the world around one CronJob.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The CronJob itself.
    pub cron_job: Arc<CronJob>,
    /// The Jobs that it controls, by name.
    pub jobs: Vec<Arc<Job>>,
    /// What its schedule says now.
    pub timing: Timing,
    /// The name of the Job to start now belongs to a Job that it does not control.
    pub is_name_taken: bool,
    /// Time, memory and the last refusal; the memory has seen this schedule.
    pub context: Context<Memory>,
}

/// How a Job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Condition `Complete`.
    Complete,
    /// Condition `Failed`.
    Failed,
}

/// How that Job ended, if it has.
pub(super) fn outcome(job: &Job) -> Option<Outcome> {
    let is = |kind| job.status.conditions.is_true(kind);
    [("Complete", Outcome::Complete), ("Failed", Outcome::Failed)]
        .into_iter()
        .find_map(|(kind, outcome)| is(kind).then_some(outcome))
}

/// The slot of the run that this Job was started for; `None` when its name is not one of ours. Nobody starts a run
/// hours before its time: such a name was chosen by somebody else.
pub(super) fn slot_of(cron_job: &CronJob, job: &Job, now: Timestamp) -> Option<i64> {
    const MINUTES_AHEAD: i64 = 60;
    let minutes = job.meta.key.name.strip_prefix(&*cron_job.meta.key.name)?.strip_prefix('-')?;
    let slot: i64 = minutes.parse().ok()?;
    let latest = timing::slot(now.max(job.meta.created)) + MINUTES_AHEAD;
    (slot.to_string() == minutes && slot <= latest).then_some(slot)
}

/// Reads the state around `key`; `None` when there is no such object.
pub fn observe<C, J>(key: &Key, context: Context<Memory>, cron_jobs: &C, jobs: &J) -> Option<Snapshot>
where
    C: View<CronJob> + ?Sized,
    J: View<Job> + ?Sized,
{
    let cron_job = cron_jobs.get(key)?;
    let Context { now, memory, refusal } = context;
    let memory = memory.seen(&cron_job, now);
    let mut own = jobs.controlled_by(&cron_job.meta.uid);
    // Views hand out their own order; decisions must not depend on it.
    own.sort_by(|a, b| a.meta.key.cmp(&b.meta.key));
    let timing = timing(&cron_job, memory.not_before, now);
    let namesake = match &timing {
        Timing::Running { due: Some(due), .. } => {
            let name = Key::new(key.namespace.clone(), job_name(&cron_job, due.time).as_str());
            jobs.get(&name)
        }
        _ => None,
    };
    let is_ours = |uid: &Uid| *uid == cron_job.meta.uid;
    let is_name_taken = namesake.is_some_and(|job| !job.meta.controller.as_ref().is_some_and(is_ours));
    let context = Context { now, memory, refusal };
    Some(Snapshot { cron_job, jobs: own, timing, is_name_taken, context })
}
