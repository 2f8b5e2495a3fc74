//! The order of the decisions about one ReplicaSet.

use trysail_core::{
    Plan,
    plan::{Action, WaitingOn},
};

use super::{
    Memory, ReplicaSetPlanner, Snapshot,
    claim::{self, Claims},
    failure, min_ready_seconds, replicas,
    status::{self, Counts},
};
use crate::StatusPace;

pub(super) fn plan(planner: ReplicaSetPlanner, snapshot: &Snapshot) -> Plan<Memory> {
    let set = &snapshot.set;
    let memory = Memory { high_slot: snapshot.high_slot, ..snapshot.context.memory.clone() };
    let mut plan = Plan { memory, ..Plan::default() };

    let mut claims = claim::claims(planner, snapshot);
    let counts = Counts::of(snapshot, &claims);
    plan.wave(std::mem::take(&mut claims.actions));

    // Before anything is created or deleted, what forbids it: deletion, a user's mistake, a refusal.
    let mut resize = Vec::new();
    if set.meta.is_terminating() {
        plan.waiting_on.push(WaitingOn::Deletion);
    } else if !set.selector.matches(&set.template.labels) {
        // Such pods would be released as soon as they exist, and made again, for ever.
        let what = "spec.template.metadata.labels must match spec.selector".to_owned();
        plan.waiting_on.push(WaitingOn::User { what });
    } else if let Some(refusal) = failure::barring(snapshot) {
        let (message, retry_at) = (refusal.message.clone(), refusal.retry_at);
        plan.waiting_on.push(WaitingOn::Refused { message, retry_at });
        if counts.replicas != set.replicas {
            plan.requeue_by(retry_at);
        }
    } else {
        resize = replicas::resize(planner, snapshot, &claims.active);
    }
    let is_writing = !plan.is_idle() || !resize.is_empty();
    plan.wave(resize);

    report_status(planner, snapshot, counts, is_writing, &mut plan);
    if let Some(at) = min_ready_seconds::next_available(snapshot, &claims.active) {
        plan.requeue_by(at);
    }
    plan.waiting_on.extend(waits(snapshot, counts, &claims));
    plan
}

fn report_status(
    planner: ReplicaSetPlanner,
    snapshot: &Snapshot,
    counts: Counts,
    is_writing: bool,
    plan: &mut Plan<Memory>,
) {
    let now = snapshot.context.now;
    let pace = snapshot.context.memory.status;
    let write: Option<Action> = status::write(planner, snapshot, counts, is_writing);
    plan.memory.status = match write {
        None => pace.unchanged(),
        Some(write) => {
            let hold = pace.hold_until(now, is_writing);
            match hold.max(failure::status_barred_until(snapshot)) {
                Some(until) => {
                    plan.requeue_by(until);
                    pace.held(now)
                }
                None => {
                    plan.wave(vec![write]);
                    StatusPace::written(now)
                }
            }
        }
    };
}

fn waits(snapshot: &Snapshot, counts: Counts, claims: &Claims<'_>) -> Vec<WaitingOn> {
    let want = snapshot.set.replicas;
    let states = [("created", counts.replicas), ("ready", counts.ready), ("available", counts.available)];
    let lacking = states.into_iter().find(|(_, have)| *have < want);
    let pods = lacking.map(|(state, have)| WaitingOn::Pods { state, have, want });
    let terminating =
        (claims.terminating > 0).then_some(WaitingOn::Terminating { pods: claims.terminating as i32 });
    pods.into_iter().chain(terminating).collect()
}
