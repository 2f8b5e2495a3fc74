//! What the Jobs at hand say about the status: which are under way, which moment was started last, when one last
//! succeeded.
//!
//! The status is made from the Jobs that are there, and not from what was meant to be. So a status that could not be
//! written after its Job was created is made up for by the next look, without a warning about a Job nobody expected.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    CronJobPlanner, Snapshot,
    notes::Notes,
    snapshot::{Outcome, outcome, slot_of},
    timing::{self, Due, Timing, slot},
};
use crate::views::{Job, ObjectReference};

/// The books of one CronJob as they ought to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ledger {
    /// The Jobs under way, those that the status names first.
    pub(super) active: Vec<ObjectReference>,
    /// The newest moment that a Job was started for.
    pub(super) last_schedule: Option<Timestamp>,
    /// When a Job last succeeded.
    pub(super) last_successful: Option<Timestamp>,
}

impl Ledger {
    pub(super) fn of(planner: CronJobPlanner, snapshot: &Snapshot, notes: &mut Notes) -> Self {
        let status = &snapshot.cron_job.status;
        let of_jobs = snapshot.jobs.iter().map(|job| started(snapshot, job));
        let started = of_jobs.chain([snapshot.context.memory.started]).flatten();
        let last_schedule = started.fold(status.last_schedule_time, |last, started| {
            if last.is_none_or(|last| slot(last) < slot(started)) { Some(started) } else { last }
        });
        let successes = snapshot.jobs.iter().filter(|job| outcome(job) == Some(Outcome::Complete));
        let last_successful =
            successes.filter_map(|job| job.status.completion_time).max().max(status.last_successful_time);
        Self { active: active(planner, snapshot, notes), last_schedule, last_successful }
    }

    /// A run of this moment has been started, or one of a later moment.
    pub(super) fn has_run(&self, snapshot: &Snapshot, due: Due) -> bool {
        let is_recorded = self.last_schedule.is_some_and(|last| slot(last) >= slot(due.time));
        is_recorded
            || snapshot
                .jobs
                .iter()
                .any(|job| slot_of(&snapshot.cron_job, job, snapshot.context.now) == Some(slot(due.time)))
    }

    /// The Jobs under way.
    pub(super) fn running<'a>(&self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Arc<Job>> {
        let active = self.active.clone();
        snapshot.jobs.iter().filter(move |job| active.iter().any(|entry| entry.uid == job.meta.uid))
    }
}

/// The moment that a Job was started for. Its name tells the minute; moments of `@every` lie within one.
fn started(snapshot: &Snapshot, job: &Job) -> Option<Timestamp> {
    let of_name = slot_of(&snapshot.cron_job, job, snapshot.context.now)?;
    match &snapshot.timing {
        Timing::Running { due: Some(due), .. } if slot(due.time) == of_name => Some(due.time),
        _ => timing::minute(of_name),
    }
}

fn active(planner: CronJobPlanner, snapshot: &Snapshot, notes: &mut Notes) -> Vec<ObjectReference> {
    let listed = &snapshot.cron_job.status.active;
    let mut active = Vec::new();
    for entry in listed {
        let name = &entry.name;
        match snapshot.jobs.iter().find(|job| job.meta.uid == entry.uid) {
            None if snapshot.context.memory.replaced.contains(&entry.uid) => {}
            None => notes.normal("MissingJob", format!("Active job went missing: {name}")),
            Some(job) => match outcome(job) {
                None => active.push(entry.clone()),
                Some(ended) => {
                    let message = format!("Saw completed job: {name}, condition: {ended:?}");
                    notes.normal("SawCompletedJob", message);
                }
            },
        }
    }
    let is_listed = |job: &Job| listed.iter().any(|entry| entry.uid == job.meta.uid);
    for job in snapshot.jobs.iter().filter(|job| outcome(job).is_none() && !is_listed(job)) {
        if slot_of(&snapshot.cron_job, job, snapshot.context.now).is_some() {
            active.push(reference(planner, job));
        } else {
            let what = "Saw a job that the controller did not create or forgot";
            notes.warning("UnexpectedJob", format!("{what}: {}", job.meta.key.name));
        }
    }
    active
}

fn reference(planner: CronJobPlanner, job: &Job) -> ObjectReference {
    let mut more = Map::new();
    let mut put = |name: &str, value: &str| more.insert(name.to_owned(), Value::from(value));
    put("apiVersion", &planner.jobs.api_version());
    put("kind", planner.jobs.kind);
    put("namespace", &job.meta.key.namespace);
    put("resourceVersion", &job.meta.resource_version.to_string());
    ObjectReference { name: (&*job.meta.key.name).into(), uid: job.meta.uid.clone(), more }
}
