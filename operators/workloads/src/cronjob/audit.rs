//! Invariants of every plan for a CronJob, written independently of the decisions.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;
use trysail_core::{
    Action, Plan, Uid,
    plan::{Verb, Violation},
};

use super::{CronJobPlanner, Memory, Snapshot};
use crate::views::{ConcurrencyPolicy, Job};

pub(super) fn audit(
    planner: CronJobPlanner,
    snapshot: &Snapshot,
    plan: &Plan<Memory>,
) -> Result<(), Violation> {
    writes(planner, snapshot, plan)?;
    start(snapshot, plan)?;
    deletes(snapshot, plan)?;
    status(planner, snapshot, plan)
}

fn broken<T>(what: &str, action: &Action) -> Result<T, Violation> {
    Err(Violation(format!("{what}: {action}")))
}

/// Own Jobs and the own status are all that is written, each object once, each write with its preconditions.
fn writes(planner: CronJobPlanner, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let mut touched = BTreeSet::new();
    for action in plan.actions() {
        let target = &action.target;
        if target.key.namespace != snapshot.cron_job.meta.key.namespace {
            return broken("a write in another namespace", action);
        }
        if !touched.insert((target.resource.plural, target.key.clone())) {
            return broken("two writes to one object", action);
        }
        match &action.verb {
            Verb::Create { .. } if target.resource == planner.jobs => {}
            Verb::Delete { .. } if target.resource == planner.jobs && target.uid.is_some() => {}
            Verb::Patch { subresource: Some("status"), body }
                if target.resource == planner.resource
                    && target.uid.as_ref() == Some(&snapshot.cron_job.meta.uid)
                    && target.resource_version != 0
                    && body.as_object().is_some_and(|body| body.len() == 1) => {}
            _ => return broken("a write that a CronJob has no business with", action),
        }
    }
    Ok(())
}

/// The moment that a created Job says it is for, and its name and controller.
fn created(plan: &Plan<Memory>) -> Vec<(&Action, Value, Option<&Uid>)> {
    let creates = plan.actions().filter_map(|action| match &action.verb {
        Verb::Create { controller, body } => Some((action, body.to_value(), controller.as_ref())),
        _ => None,
    });
    creates.collect()
}

/// At most one run starts; for a moment that lies behind, is not past its deadline and has no Job yet; not while
/// suspended or going; and beside another only if the user allows it.
fn start(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let creates = created(plan);
    let Some((action, body, controller)) = creates.first() else { return Ok(()) };
    let cron_job = &snapshot.cron_job;
    if creates.len() > 1 {
        return broken("two runs at once", action);
    }
    if cron_job.suspend || cron_job.meta.deleted.is_some() {
        return broken("a run of a CronJob that is suspended or going", action);
    }
    let annotation = &body["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    let moment = annotation.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let Some(moment) = moment else { return broken("a Job without its moment", action) };
    let owner = &body["metadata"]["ownerReferences"][0];
    let name = format!("{}-{}", cron_job.meta.key.name, moment.as_second() / 60);
    let is_named = *action.target.key.name == *name && body["metadata"]["name"] == name.as_str();
    let is_owned = *controller == Some(&cron_job.meta.uid)
        && owner["uid"] == cron_job.meta.uid.to_string()
        && owner["controller"] == true;
    if !is_named || !is_owned {
        return broken("a Job with another name or owner", action);
    }
    let now = snapshot.context.now;
    let late = cron_job
        .starting_deadline_seconds
        .is_some_and(|seconds| now.as_second() - moment.as_second() > seconds);
    if moment > now || late {
        return broken("a run before its time or after its deadline", action);
    }
    let is_repeated = cron_job.status.last_schedule_time.is_some_and(|last| last >= moment)
        || snapshot.jobs.iter().any(|job| *job.meta.key.name == *name);
    if is_repeated {
        return broken("a run of a moment that has run", action);
    }
    beside_others(snapshot, plan, action)
}

fn beside_others(snapshot: &Snapshot, plan: &Plan<Memory>, create: &Action) -> Result<(), Violation> {
    let mut running = snapshot.jobs.iter().filter(|job| ended(job).is_none() && is_run(snapshot, job));
    match snapshot.cron_job.concurrency_policy {
        ConcurrencyPolicy::Forbid if running.next().is_some() => {
            broken("a second run, which is forbidden", create)
        }
        ConcurrencyPolicy::Allow | ConcurrencyPolicy::Forbid => Ok(()),
        ConcurrencyPolicy::Replace => {
            let before = plan.waves.iter().take_while(|wave| !wave.contains(create)).flatten();
            let deleted: Vec<&Uid> = before.filter_map(|action| action.target.uid.as_ref()).collect();
            let is_left = |job: &Arc<Job>| job.meta.deleted.is_none() && !deleted.contains(&&job.meta.uid);
            if running.any(is_left) { broken("a run beside one that it replaces", create) } else { Ok(()) }
        }
    }
}

/// The condition that says how a Job ended.
fn ended(job: &Job) -> Option<&'static str> {
    ["Complete", "Failed"].into_iter().find(|kind| job.status.conditions.is_true(kind))
}

/// A Job that the CronJob started, and not one that a user made in its name: the status lists it, or its name ends
/// in the minutes of about its creation.
fn is_run(snapshot: &Snapshot, job: &Job) -> bool {
    let cron_job = &snapshot.cron_job;
    let is_listed = cron_job.status.active.iter().any(|entry| entry.uid == job.meta.uid);
    let minutes = job.meta.key.name.strip_prefix(&format!("{}-", cron_job.meta.key.name));
    let minutes = minutes.filter(|text| !text.starts_with('0')).and_then(|text| text.parse::<i64>().ok());
    is_listed || minutes.is_some_and(|minutes| minutes * 60 <= job.meta.created.as_second())
}

/// Finished Jobs are deleted beyond the limits only, running ones only to be replaced in the same plan.
fn deletes(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let cron_job = &snapshot.cron_job;
    let mut left = [
        ("Complete", cron_job.successful_jobs_history_limit),
        ("Failed", cron_job.failed_jobs_history_limit),
    ]
    .map(|(how, limit)| {
        let is_kept = |job: &Job| ended(job) == Some(how) && job.meta.deleted.is_none();
        (how, snapshot.jobs.iter().filter(|job| is_kept(job)).count().saturating_sub(limit))
    });
    for action in plan.actions().filter(|action| matches!(action.verb, Verb::Delete { .. })) {
        let job = snapshot.jobs.iter().find(|job| Some(&job.meta.uid) == action.target.uid.as_ref());
        let Some(job) = job else { return broken("a Job deleted that is not ours", action) };
        match ended(job) {
            None if cron_job.concurrency_policy == ConcurrencyPolicy::Replace
                && !created(plan).is_empty() => {}
            None => return broken("a running Job deleted", action),
            Some(how) => {
                let surplus = left.iter_mut().find(|(of, left)| *of == how && *left > 0);
                let Some((_, left)) = surplus else {
                    return broken("a Job deleted within the limits", action);
                };
                *left -= 1;
            }
        }
    }
    Ok(())
}

/// `active` names own unfinished Jobs, times do not go back, foreign conditions stay.
fn status(planner: CronJobPlanner, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    for action in plan.actions().filter(|action| action.target.resource == planner.resource) {
        let Verb::Patch { body, .. } = &action.verb else { continue };
        let fields = &body["status"];
        let old = &snapshot.cron_job.status;
        let running: BTreeSet<String> = snapshot
            .jobs
            .iter()
            .filter(|job| ended(job).is_none())
            .map(|job| job.meta.uid.to_string())
            .collect();
        let mut seen = BTreeSet::new();
        for entry in fields["active"].as_array().into_iter().flatten() {
            let uid = entry["uid"].as_str().unwrap_or_default();
            if !running.contains(uid) || !seen.insert(uid) {
                return broken("an active Job that is not, or is named twice", action);
            }
        }
        for (name, old) in
            [("lastScheduleTime", old.last_schedule_time), ("lastSuccessfulTime", old.last_successful_time)]
        {
            let Some(new) = fields.get(name) else { continue };
            let new = new.as_str().and_then(|text| text.parse::<Timestamp>().ok());
            if new < old {
                return broken("a time that goes back", action);
            }
        }
        let Some(conditions) = fields.get("conditions").and_then(Value::as_array) else { continue };
        let is_ours = |kind: &str| ["Ready", "Reconciling", "Stalled"].contains(&kind);
        let is_lost = |kind: &str| !is_ours(kind) && !conditions.iter().any(|new| new["type"] == kind);
        if old.conditions.iter().any(|held| is_lost(&held.kind)) {
            return broken("a foreign condition would be lost", action);
        }
    }
    Ok(())
}
