//! `status`: what is reported. It describes the state after the plan it belongs to, as the plan's waves end at the
//! first failure.

use serde_json::{Value, json};
use trysail_core::{
    Face, Timestamp, Uid,
    condition::{Condition, Conditions, whole_seconds},
    plan::{Action, EventNote, Target, Verb},
};

use super::{
    JobPlanner, Snapshot, contradictions,
    outcome::Outcome,
    refusal::{self, UPDATE_STATUS},
    tracking::Tracked,
};
use crate::{
    kstatus::{self, Progress},
    status_patch::StatusPatch,
    views::{Job, JobStatus, UncountedPods},
};

const SUSPENDED: &str = "Suspended";

/// What the plan comes to.
#[derive(Debug)]
pub(super) struct Forecast<'a, 'b> {
    pub(super) active: i32,
    pub(super) ready: i32,
    pub(super) terminating: i32,
    pub(super) failed_indexes: Option<String>,
    pub(super) tracked: &'b Tracked<'a>,
    pub(super) outcome: Option<&'b Outcome>,
    /// Nothing is left of the Job but its last condition.
    pub(super) is_over: bool,
    /// Pods are created and deleted by what the spec asks for: no outcome, no deletion, no mistake.
    pub(super) is_managing: bool,
    /// More pods are on their way, so that another status follows in any case.
    pub(super) is_creating: bool,
}

/// The next status, and what is to be told once it is written.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) status: JobStatus,
    pub(super) event: Option<EventNote>,
    /// Told beside the event.
    pub(super) remark: Option<EventNote>,
    /// Somebody waits for it.
    pub(super) is_urgent: bool,
}

pub(super) fn next(planner: JobPlanner, snapshot: &Snapshot, forecast: &Forecast<'_, '_>) -> Next {
    let job = &snapshot.job;
    let now = whole_seconds(snapshot.context.now);
    let mut status = counted(job, forecast);
    if status.start_time.is_none() && !job.suspend {
        status.start_time = Some(now);
    }
    let (mut event, mut remark) = (None, None);
    match forecast.outcome {
        Some(outcome) => (event, remark) = conclude(job, &mut status, outcome, forecast.is_over, now),
        None if forecast.is_managing => event = suspend(job, &mut status, now),
        None => {}
    }
    let old = &job.status;
    let is_urgent = status.conditions != old.conditions
        || status.start_time != old.start_time
        || forecast.outcome.is_some()
        || forecast.tracked.is_full
        || job.meta.is_terminating()
        || (forecast.active == 0 && !forecast.is_creating)
        || (planner.face == Face::Crd && old.observed_generation != Some(job.meta.generation));
    if planner.face == Face::Crd {
        show(snapshot, &mut status);
    }
    Next { status, event, remark, is_urgent }
}

fn counted(job: &Job, forecast: &Forecast<'_, '_>) -> JobStatus {
    let tracked = forecast.tracked;
    let mut status = job.status.clone();
    status.active = Some(forecast.active);
    status.ready = Some(forecast.ready);
    status.terminating = Some(forecast.terminating);
    status.succeeded = Some(tracked.succeeded);
    status.failed = Some(tracked.failed);
    status.uncounted_terminated_pods = Some(tracked.uncounted.clone());
    if job.is_indexed() {
        let completed = tracked.completed.to_string();
        status.completed_indexes = Some(completed).filter(|text| !text.is_empty());
        status.failed_indexes.clone_from(&forecast.failed_indexes);
    }
    status
}

/// The end comes in two steps, so that whoever watches for the first learns early, and whoever watches for the second
/// finds no pod left: first what it will be, then, when every pod is gone and counted, that it is so.
fn conclude(
    job: &Job,
    status: &mut JobStatus,
    outcome: &Outcome,
    is_over: bool,
    now: Timestamp,
) -> (Option<EventNote>, Option<EventNote>) {
    if !status.conditions.is_true(outcome.interim()) {
        set(&mut status.conditions, outcome.interim(), "True", (&outcome.reason, &outcome.message), now);
        return (None, None);
    }
    if !is_over {
        return (None, None);
    }
    set(&mut status.conditions, outcome.terminal(), "True", (&outcome.reason, &outcome.message), now);
    // A Job of no pods that was never resumed has never started.
    if status.start_time.is_none() && !(job.suspend && job.completions == Some(0)) {
        status.start_time = Some(now);
    }
    if !outcome.is_success {
        return (Some(EventNote::warning(reason(&outcome.reason), outcome.message.clone())), None);
    }
    status.completion_time = Some(status.start_time.map_or(now, |start| start.max(now)));
    let is_too_many = job.completions.is_some_and(|wanted| status.succeeded.unwrap_or(0) > wanted);
    let remark = is_too_many.then(|| {
        let message = "Too many succeeded pods running after completion count reached";
        EventNote::warning("TooManySucceededPods", message)
    });
    (Some(EventNote::normal("Completed", "Job completed")), remark)
}

/// Events have static reasons; one that another controller had written is told in general terms.
fn reason(reason: &str) -> &'static str {
    const KNOWN: [&str; 5] = [
        "PodFailurePolicy",
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
    ];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}

/// `spec.suspend` takes effect when no pod is active any more; the time before does not count against the deadline.
/// From there on the API server lets the template be changed.
fn suspend(job: &Job, status: &mut JobStatus, now: Timestamp) -> Option<EventNote> {
    let held = status.conditions.get(SUSPENDED);
    let is = |value: &str| held.is_some_and(|held| held.status == value);
    if job.suspend {
        if is("True") || status.active != Some(0) {
            return None;
        }
        status.start_time = None;
        set(&mut status.conditions, SUSPENDED, "True", ("JobSuspended", "Job suspended"), now);
        return Some(EventNote::normal("Suspended", "Job suspended"));
    }
    if held.is_none() || is("False") {
        return None;
    }
    status.start_time = Some(now);
    set(&mut status.conditions, SUSPENDED, "False", ("JobResumed", "Job resumed"), now);
    Some(EventNote::normal("Resumed", "Job resumed"))
}

fn set(conditions: &mut Conditions, kind: &str, status: &str, why: (&str, &str), now: Timestamp) {
    let mut condition = Condition::new(kind, status, why.0, why.1, now);
    condition.more.insert("lastProbeTime".to_owned(), json!(now));
    conditions.set(condition);
}

/// CRD face: the conditions that tools understand, and the strings that native printers compute.
fn show(snapshot: &Snapshot, status: &mut JobStatus) {
    let job = &snapshot.job;
    let progress = progress(snapshot, status);
    kstatus::apply(&mut status.conditions, progress, snapshot.context.now);
    status.state = Some(state(job, &status.conditions).to_owned());
    let succeeded = status.succeeded.unwrap_or(0);
    status.progress = Some(match job.completions {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if job.parallelism > 1 => format!("{succeeded}/1 of {}", job.parallelism),
        None => format!("{succeeded}/1"),
    });
    status.duration = match (status.start_time, status.completion_time) {
        (Some(start), Some(end)) => Some(human_duration(end.as_second() - start.as_second())),
        _ => None,
    };
    let is_new = status.observed_generation != Some(job.meta.generation);
    if is_new || status.selector.is_none() || status.containers.is_none() || status.images.is_none() {
        let (names, images): (Vec<_>, Vec<_>) = job.template.containers().into_iter().unzip();
        status.selector = Some(job.selector.to_string());
        status.containers = Some(names.join(","));
        status.images = Some(images.join(","));
    }
    status.observed_generation = Some(job.meta.generation);
}

/// As kstatus judges a native Job: once it has started, nobody waits for it any more; whoever does asks for `Complete`.
fn progress(snapshot: &Snapshot, status: &JobStatus) -> Progress {
    let job = &snapshot.job;
    let conditions = &status.conditions;
    if let Some(failed) = conditions.get("Failed").filter(|held| held.status == "True") {
        return Progress::Stuck { reason: reason(&failed.reason), message: failed.message.clone() };
    }
    if conditions.is_true("Complete") {
        return Progress::Done { message: "Job completed".to_owned() };
    }
    if let Some(what) = contradictions::find(job) {
        return Progress::Stuck { reason: contradictions::REASON, message: what.to_owned() };
    }
    if let Some((reason, message)) = refusal::told(snapshot) {
        return Progress::Underway { reason, message: message.to_owned() };
    }
    let count = |count: Option<i32>| count.unwrap_or(0);
    let (succeeded, failed) = (count(status.succeeded), count(status.failed));
    match status.start_time {
        None => Progress::Underway { reason: "NotStarted", message: "Job not started".to_owned() },
        Some(_) => {
            let active = count(status.active);
            let message = format!("{active} pods active, {succeeded} succeeded, {failed} failed");
            Progress::Done { message }
        }
    }
}

fn state(job: &Job, conditions: &Conditions) -> &'static str {
    let said = |kind: &&'static str| conditions.is_true(kind);
    if let Some(over) = ["Complete", "Failed"].into_iter().find(said) {
        return over;
    }
    if job.meta.is_terminating() {
        return "Terminating";
    }
    [SUSPENDED, "FailureTarget", "SuccessCriteriaMet"].into_iter().find(said).unwrap_or("Running")
}

/// As `kubectl get` shows the time that something took.
fn human_duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let two = |large: i64, unit: &str, small: i64, part: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{part}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(hours / 24, "d", hours % 24, "h"),
        _ => format!("{}d", hours / 24),
    }
}

/// The write that brings the status from what it is to `new`; `None` when it is.
pub(super) fn write(planner: JobPlanner, job: &Job, next: &Next) -> Option<Action> {
    let (old, new) = (&job.status, &next.status);
    let mut patch = StatusPatch::new(planner.face);
    for (name, old, new) in [
        ("active", old.active, new.active),
        ("succeeded", old.succeeded, new.succeeded),
        ("failed", old.failed, new.failed),
    ] {
        patch.counter(name, old, new.unwrap_or(0));
    }
    patch.optional("ready", old.ready, new.ready);
    patch.optional("terminating", old.terminating, new.terminating);
    patch.optional("observedGeneration", old.observed_generation, new.observed_generation);
    patch.field("startTime", old.start_time.as_ref(), new.start_time.as_ref());
    patch.field("completionTime", old.completion_time.as_ref(), new.completion_time.as_ref());
    for (name, old, new) in [
        ("completedIndexes", &old.completed_indexes, &new.completed_indexes),
        ("failedIndexes", &old.failed_indexes, &new.failed_indexes),
        ("selector", &old.selector, &new.selector),
        ("state", &old.state, &new.state),
        ("progress", &old.progress, &new.progress),
        ("duration", &old.duration, &new.duration),
        ("containers", &old.containers, &new.containers),
        ("images", &old.images, &new.images),
    ] {
        patch.field(name, old.as_ref(), new.as_ref());
    }
    let uncounted = [&old.uncounted_terminated_pods, &new.uncounted_terminated_pods];
    let [before, after] = uncounted.map(|pods| pods.as_ref().map(lists));
    if before != after {
        patch.field("uncountedTerminatedPods", None, after.as_ref());
    }
    patch.conditions(&old.conditions, &new.conditions);
    Some(Action {
        target: Target {
            resource: planner.resource(),
            key: job.meta.key.clone(),
            uid: Some(job.meta.uid.clone()),
            resource_version: job.meta.resource_version,
        },
        verb: Verb::Patch { subresource: Some("status"), body: patch.body()? },
        reason: UPDATE_STATUS,
        because: String::new(),
        on_success: next.event.clone(),
        on_failure: None,
    })
}

/// Empty lists are absent; a merge patch says so with null.
fn lists(pods: &UncountedPods) -> Value {
    let list = |uids: &[Uid]| if uids.is_empty() { Value::Null } else { json!(uids) };
    json!({"succeeded": list(&pods.succeeded), "failed": list(&pods.failed)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (-3, "0s"),
            (119, "119s"),
            (120, "2m"),
            (599, "9m59s"),
            (600, "10m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (700_000, "8d"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
