//! The order of the decisions about one Job.

use trysail_core::{
    Plan,
    plan::{Action, EventNote, WaitingOn},
    pod::Pod,
};

use super::{
    BURST, JobPlanner, Memory, Snapshot,
    backoff::{self, Record},
    batch::Batch,
    claim, contradictions,
    going::Going,
    outcome::{self, Outcome},
    parallelism::{self, Missing, Resize},
    refusal::{self, CREATE, DELETE, UPDATE_STATUS},
    replicas,
    status::{self, Forecast},
    tally::{Tally, count},
    tracking::{self, REMOVE_FINALIZER, Tracked, without_finalizer},
    unattended,
};
use crate::{pod_control, views::Job};

/// The names by which `spec.managedBy` gives a Job to us.
const OWN_NAMES: [&str; 2] = ["kubernetes.io/job-controller", "batch.trysail.dev/job-controller"];

pub(super) fn plan(planner: JobPlanner, snapshot: &Snapshot) -> Plan<Memory> {
    let job = &snapshot.job;
    let memory = Memory { high_slot: snapshot.high_slot, ..snapshot.context.memory.clone() };
    let mut plan = Plan { memory, ..Plan::default() };
    if let Some(what) = somebody_elses(job) {
        plan.waiting_on.push(WaitingOn::User { what });
        return plan;
    }
    if job.is_finished() {
        // Usually none is left; but the one who finished it may have died on the way.
        plan.wave(release(planner, snapshot, "its Job is finished"));
        return plan;
    }
    if contradictions::is_unknown_mode(job) {
        let what = "Skipped Job sync because completion mode is unknown";
        tell_once(job, &mut plan, "UnknownCompletionMode", what);
        if job.meta.is_terminating() {
            plan.wave(release(planner, snapshot, "its Job is being deleted"));
        }
        return plan;
    }
    let mut claims = claim::actions(planner, snapshot);
    claims.extend(unattended::take_back(planner, snapshot));
    let is_refused = claims.iter().any(|claim| refusal::bars(snapshot, claim.reason).is_some());
    if !claims.is_empty() && !is_refused {
        // What is adopted or let go changes every number below: first things first.
        plan.wave(claims);
        return plan;
    }
    if let Some(what) = contradictions::find(job) {
        tell_once(job, &mut plan, contradictions::REASON, what);
    }
    let look = look(planner, snapshot);
    plan.memory.backoff = look.record;
    tell_lost(job, &look, &mut plan);
    carry_out(planner, snapshot, &look, &mut plan);
    plan
}

/// The pods that would be created, so that free names can be looked for.
pub(super) fn missing(planner: JobPlanner, snapshot: &Snapshot) -> Option<Missing> {
    let job = &snapshot.job;
    if somebody_elses(job).is_some() || job.is_finished() || contradictions::is_unknown_mode(job) {
        return None;
    }
    match look(planner, snapshot).resize {
        Resize::Create(missing) => Some(missing),
        Resize::Keep | Resize::Delete(_) | Resize::Wait(_) => None,
    }
}

fn somebody_elses(job: &Job) -> Option<String> {
    let name = job.managed_by.as_ref().filter(|name| !OWN_NAMES.contains(&name.as_str()))?;
    Some(format!("spec.managedBy has given this Job to {name}"))
}

/// The decisions, before they are put in order.
pub(super) struct Look<'a> {
    pub(super) tally: Tally<'a>,
    record: Record,
    /// What was decided without regard to what this plan does.
    pub(super) decided: Option<Outcome>,
    pub(super) is_servable: bool,
    is_managing: bool,
    pub(super) resize: Resize<'a>,
}

fn look(planner: JobPlanner, snapshot: &Snapshot) -> Look<'_> {
    let job = &snapshot.job;
    let tally = Tally::of(job, &snapshot.pods, planner.finalizer());
    let record = backoff::record(snapshot, &tally);
    let is_servable = contradictions::find(job).is_none();
    let decided = if is_servable { outcome::decided(snapshot, &tally) } else { None };
    let is_managing = is_servable && decided.is_none() && !job.meta.is_terminating();
    let resize = if is_managing { parallelism::resize(snapshot, &tally, record) } else { Resize::Keep };
    let bars = |reason| refusal::bars(snapshot, reason).is_some();
    let is_barred = match resize {
        Resize::Create(_) => bars(CREATE),
        Resize::Delete(_) => bars(DELETE) || bars(REMOVE_FINALIZER),
        Resize::Keep | Resize::Wait(_) => false,
    };
    let resize = if is_barred { Resize::Keep } else { resize };
    Look { tally, record, decided, is_servable, is_managing, resize }
}

/// Pods come and go, then the status is written, then finalizers are removed.
fn carry_out(planner: JobPlanner, snapshot: &Snapshot, look: &Look<'_>, plan: &mut Plan<Memory>) {
    let (job, tally) = (&snapshot.job, &look.tally);
    let creates = match look.resize {
        Resize::Create(_) => replicas::creates(planner, snapshot, tally),
        Resize::Keep | Resize::Delete(_) | Resize::Wait(_) => Vec::new(),
    };
    let going = Going::of(snapshot, look, count(creates.len()));
    let tracked = tracking::track(snapshot, tally, &going);
    let forecast = Forecast {
        active: going.remaining,
        ready: tally.ready - count(going.pods().filter(|pod| pod.is_ready()).count()),
        // A pod on no node is gone at once.
        terminating: tally.terminating + count(going.pods().filter(|pod| !pod.node.is_empty()).count()),
        failed_indexes: tally.failed_indexes.as_ref().map(ToString::to_string),
        tracked: &tracked,
        outcome: going.outcome.as_ref(),
        is_over: is_over(tally, &tracked),
        is_managing: look.is_managing && going.outcome.is_none(),
        is_creating: !creates.is_empty(),
    };
    let because = match (&going.outcome, job.suspend) {
        (Some(_), _) => "the Job is decided",
        (None, true) => "suspended",
        (None, false) => "too many",
    };
    plan.wave(restore(planner, snapshot, look));
    plan.wave(creates);
    plan.wave(going.dropped.iter().filter_map(|pod| let_go(planner, pod, because)).collect());
    plan.wave(going.pods().map(|pod| pod_control::delete(pod, because.to_owned())).collect());
    let is_written = report(planner, snapshot, &forecast, plan);
    plan.wave(free(planner, snapshot, &tracked, is_written));
    wait(snapshot, look, going.outcome.as_ref(), plan);
}

/// Every pod has ended, was counted and has been let go.
fn is_over(tally: &Tally<'_>, tracked: &Tracked<'_>) -> bool {
    tally.active.is_empty()
        && tally.terminating == 0
        && tracked.uncounted.is_empty()
        && !tally.pods.iter().any(|pod| tally.is_tracked(pod))
}

/// Active pods that stay and are without our finalizer.
fn restore(planner: JobPlanner, snapshot: &Snapshot, look: &Look<'_>) -> Vec<Action> {
    let may = look.is_managing
        && !snapshot.job.suspend
        && !matches!(look.resize, Resize::Delete(_))
        && refusal::bars(snapshot, claim::ADD_FINALIZER).is_none();
    if may { claim::restore(planner, &look.tally.active) } else { Vec::new() }
}

/// Writes the status unless it is to wait; answers whether it will say what was recorded.
fn report(
    planner: JobPlanner,
    snapshot: &Snapshot,
    forecast: &Forecast<'_, '_>,
    plan: &mut Plan<Memory>,
) -> bool {
    let (job, now) = (&snapshot.job, snapshot.context.now);
    let next = status::next(planner, snapshot, forecast);
    let batch = plan.memory.batch;
    plan.memory.batch = Batch::default();
    let Some(write) = status::write(planner, job, &next) else { return true };
    let held = if next.is_urgent { None } else { batch.hold_until(now) };
    if let Some(until) = held.max(refusal::bars(snapshot, UPDATE_STATUS)) {
        plan.requeue_by(until);
        plan.memory.batch = batch.waiting(now);
        return false;
    }
    plan.events.extend(next.remark);
    plan.wave(vec![write]);
    true
}

/// The finalizers that may be removed by now.
fn free(planner: JobPlanner, snapshot: &Snapshot, tracked: &Tracked<'_>, is_written: bool) -> Vec<Action> {
    if refusal::bars(snapshot, REMOVE_FINALIZER).is_some() {
        return Vec::new();
    }
    let recorded = if is_written { tracked.recorded.as_slice() } else { &[] };
    let pods = tracked.settled.iter().chain(recorded);
    pods.filter_map(|pod| let_go(planner, pod, "counted")).collect()
}

fn let_go(planner: JobPlanner, pod: &Pod, because: &str) -> Option<Action> {
    without_finalizer(pod, planner.finalizer(), because)
}

/// The finalizers of all pods, whatever they are.
fn release(planner: JobPlanner, snapshot: &Snapshot, because: &str) -> Vec<Action> {
    if refusal::bars(snapshot, REMOVE_FINALIZER).is_some() {
        return Vec::new();
    }
    let pods = snapshot.pods.iter().chain(&snapshot.strays);
    pods.filter_map(|pod| let_go(planner, pod, because)).take(BURST).collect()
}

/// A mistake in the spec is told once per spec.
fn tell_once(job: &Job, plan: &mut Plan<Memory>, reason: &'static str, what: &str) {
    plan.waiting_on.push(WaitingOn::User { what: what.to_owned() });
    if plan.memory.told_generation != Some(job.meta.generation) {
        plan.memory.told_generation = Some(job.meta.generation);
        plan.events.push(EventNote::warning(reason, what));
    }
}

fn tell_lost(job: &Job, look: &Look<'_>, plan: &mut Plan<Memory>) {
    let lost = tracking::lost(job, &look.tally);
    if lost > plan.memory.told_lost {
        let message = format!(
            "{lost} finished pods had lost their finalizer before they were counted and will not be; find out who removed it, and raise completions or run the Job again if that matters"
        );
        plan.events.push(EventNote::warning("PodsNotCounted", message));
    }
    plan.memory.told_lost = lost;
}

fn wait(snapshot: &Snapshot, look: &Look<'_>, outcome: Option<&Outcome>, plan: &mut Plan<Memory>) {
    let (job, tally) = (&snapshot.job, &look.tally);
    if let Some(at) = outcome::deadline(job).filter(|_| outcome.is_none()) {
        plan.requeue_by(at);
    } else if let (Some(seconds), None, false) =
        (job.active_deadline_seconds, job.status.start_time, job.suspend)
    {
        // It starts now.
        let after = jiff::SignedDuration::from_secs(seconds);
        snapshot.context.now.checked_add(after).into_iter().for_each(|at| plan.requeue_by(at));
    }
    if let Resize::Wait(at) = look.resize {
        plan.requeue_by(at);
        plan.waiting_on.push(WaitingOn::Time { at, what: "pods failed, so the next ones come later" });
    }
    if let Some(refusal) = refusal::standing(snapshot) {
        let (message, retry_at) = (refusal.message.clone(), refusal.retry_at);
        plan.waiting_on.push(WaitingOn::Refused { message, retry_at });
        plan.requeue_by(retry_at);
    }
    if tally.terminating > 0 {
        plan.waiting_on.push(WaitingOn::Terminating { pods: tally.terminating });
    }
    if job.meta.is_terminating() {
        plan.waiting_on.push(WaitingOn::Deletion);
    } else if job.suspend {
        plan.waiting_on.push(WaitingOn::User { what: "spec.suspend to be unset".to_owned() });
    } else if let Some(want) = job.completions.filter(|want| tally.succeeded < *want) {
        plan.waiting_on.push(WaitingOn::Pods { state: "succeeded", have: tally.succeeded, want });
    }
}
