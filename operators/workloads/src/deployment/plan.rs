//! The order of the decisions about one Deployment.

use trysail_core::{
    Action, Face, Plan,
    plan::{EventNote, WaitingOn},
    template::POD_TEMPLATE_HASH,
};

use super::{
    DeploymentPlanner, Memory, Snapshot,
    claim::claims,
    conditions,
    edits::Edits,
    fleet::Fleet,
    new_replica_set::{self, Name},
    progress_deadline, recreate, revision_history, rollback, rolling_update, scaling,
    status::{self, Counts, Report, UPDATE_STATUS},
};
use crate::{
    StatusPace,
    views::{ReplicaSet, Strategy},
};

/// What is to be done about the ReplicaSets.
#[derive(Default)]
struct Draft<'a> {
    edits: Edits<'a>,
    create: Option<(&'a Name, Action)>,
    deletes: Vec<Action>,
    /// A write to the Deployment's spec or metadata. No status is written beside it: one of the two would carry a
    /// stale resourceVersion.
    own: Option<Action>,
    waiting_on: Vec<WaitingOn>,
    /// A refusal bars all writes but that of the status.
    is_barred: bool,
}

pub(super) fn plan(planner: DeploymentPlanner, snapshot: &Snapshot) -> Plan<Memory> {
    let deployment = &*snapshot.deployment;
    if deployment.selector.is_empty() {
        return selecting_all(planner, snapshot);
    }
    let mut plan = Plan { memory: snapshot.context.memory.clone(), ..Plan::default() };
    let claims = claims(planner, snapshot);
    plan.wave(claims.releases);
    if !claims.adoptions.is_empty() {
        // An adoption moves the set's resourceVersion: whatever else is to be done follows from the next look.
        plan.wave(claims.adoptions);
        return plan;
    }
    let fleet = Fleet::new(deployment, &claims.sets);
    let draft = if barred(snapshot, &mut plan) {
        Draft { is_barred: true, ..Draft::default() }
    } else {
        plan.memory.attempted = deployment.meta.generation;
        decide(planner, snapshot, &fleet)
    };
    carry_out(planner, snapshot, &fleet, draft, &mut plan);
    plan
}

/// A selector that selects everything is a mistake that must not be acted upon.
fn selecting_all(planner: DeploymentPlanner, snapshot: &Snapshot) -> Plan<Memory> {
    let mut plan = Plan { memory: snapshot.context.memory.clone(), ..Plan::default() };
    let deployment = &*snapshot.deployment;
    let what = "spec.selector must not be empty".to_owned();
    plan.waiting_on.push(WaitingOn::User { what });
    if !deployment.is_observed() {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        plan.events.push(EventNote::warning("SelectingAll", message));
        let fleet = Fleet::new(deployment, &[]);
        let report = Report {
            counts: Counts::of(&fleet),
            conditions: deployment.status.conditions.clone(),
            collisions: deployment.status.collision_count,
            revision: None,
        };
        plan.wave(status::write(planner, deployment, &report).into_iter().collect());
    }
    plan
}

/// True while a refusal bars writes to ReplicaSets, and of our own annotations. A spec that was edited since is
/// tried at once: the user may have corrected what was refused, or asked for something else.
fn barred(snapshot: &Snapshot, plan: &mut Plan<Memory>) -> bool {
    let is_tried = snapshot.context.memory.attempted >= snapshot.deployment.meta.generation;
    let refusal = snapshot.context.refusal.as_ref();
    let refusal = refusal.filter(|refusal| is_tried && refusal.action != UPDATE_STATUS);
    let Some(refusal) = refusal.filter(|refusal| snapshot.context.now < refusal.retry_at) else {
        return false;
    };
    let (message, retry_at) = (refusal.message.clone(), refusal.retry_at);
    plan.waiting_on.push(WaitingOn::Refused { message, retry_at });
    plan.requeue_by(retry_at);
    true
}

fn decide<'a>(planner: DeploymentPlanner, snapshot: &'a Snapshot, fleet: &Fleet<'a>) -> Draft<'a> {
    let mut draft = Draft::default();
    let deployment = fleet.deployment;
    if deployment.meta.is_terminating() {
        draft.waiting_on.push(WaitingOn::Deletion);
        return draft;
    }
    new_replica_set::sync(fleet, &mut draft.edits);
    let requested = rollback::requested(deployment);
    if deployment.paused {
        draft.waiting_on.extend(scaling::scale(planner, fleet, &mut draft.edits));
        if requested.is_none() {
            draft.deletes = revision_history::clean(planner, fleet, &mut draft.edits);
        }
        draft.waiting_on.push(WaitingOn::Paused);
        return draft;
    }
    if let Some(revision) = requested {
        draft.own = Some(rollback::answer(planner, fleet, revision));
        return draft;
    }
    if scaling::is_due(fleet) {
        let waiting = scaling::scale(planner, fleet, &mut draft.edits);
        let is_waiting = waiting.is_some();
        draft.waiting_on.extend(waiting);
        // Where only an annotation was stale, the rollout goes on at once.
        if is_waiting || draft.edits.resizes() {
            return draft;
        }
    }
    match deployment.strategy {
        Strategy::Recreate => recreate(planner, snapshot, fleet, &mut draft),
        Strategy::RollingUpdate { .. } => roll(planner, snapshot, fleet, &mut draft),
    }
    if Counts::of(fleet).is_complete(fleet) && !draft.edits.resizes() {
        draft.deletes = revision_history::clean(planner, fleet, &mut draft.edits);
    }
    draft
}

fn recreate<'a>(
    planner: DeploymentPlanner,
    snapshot: &'a Snapshot,
    fleet: &Fleet<'a>,
    draft: &mut Draft<'a>,
) {
    if let Some(waiting) = recreate::drain(planner, snapshot, fleet, &mut draft.edits) {
        draft.waiting_on.push(waiting);
        return;
    }
    recreate::fill(fleet, &mut draft.edits);
    create(planner, snapshot, fleet, fleet.bounds.replicas, draft);
}

fn roll<'a>(planner: DeploymentPlanner, snapshot: &'a Snapshot, fleet: &Fleet<'a>, draft: &mut Draft<'a>) {
    draft.waiting_on.extend(rolling_update::roll(planner, fleet, &mut draft.edits));
    create(planner, snapshot, fleet, rolling_update::first_size(fleet), draft);
}

/// Makes the ReplicaSet of the current template, unless it is there.
fn create<'a>(
    planner: DeploymentPlanner,
    snapshot: &'a Snapshot,
    fleet: &Fleet<'a>,
    size: i32,
    draft: &mut Draft<'a>,
) {
    if fleet.new.is_none()
        && let Some(name) = &snapshot.next_name
    {
        if !new_replica_set::would_be_kept(fleet.deployment, name) {
            let what = format!("spec.selector must ask nothing of the label {POD_TEMPLATE_HASH}");
            draft.waiting_on.push(WaitingOn::User { what });
            return;
        }
        draft.create = Some((name, new_replica_set::create(planner, fleet, name, size)));
    }
}

/// Turns the draft into waves and adds what is reported.
fn carry_out(
    planner: DeploymentPlanner,
    snapshot: &Snapshot,
    fleet: &Fleet<'_>,
    draft: Draft<'_>,
    plan: &mut Plan<Memory>,
) {
    let deployment = fleet.deployment;
    let now = snapshot.context.now;
    let creating = draft.create.as_ref().map(|(name, _)| *name);
    let revision = new_replica_set::current_revision(fleet, creating.is_some());
    plan.wave(draft.edits.into_actions(planner));
    plan.wave(draft.create.into_iter().map(|(_, action)| action).collect());
    plan.wave(draft.deletes);
    let is_busy = !plan.is_idle();
    plan.waiting_on.extend(draft.waiting_on);

    let counts = Counts::of(fleet);
    let mut conditions = deployment.status.conditions.clone();
    conditions::available(&mut conditions, fleet, counts.available, now);
    let deadline = progress_deadline::report(&mut conditions, snapshot, fleet, &counts, creating);
    conditions::replica_failure(&mut conditions, fleet);
    if planner.face == Face::Crd {
        status::kstatus(&mut conditions, fleet, &counts, now);
    }
    if let Some(deadline) = deadline {
        plan.requeue_by(deadline);
    }
    plan.waiting_on.extend(waits(fleet, &counts));

    let is_living = !deployment.meta.is_terminating();
    // A new rollout's status, which starts its deadline, comes before the record of its number.
    let record = || status::write_revision(planner, deployment, revision.as_deref());
    let may_record = !draft.is_barred && creating.is_none();
    let own = draft.own.or_else(|| if may_record { record() } else { None });
    if let Some(own) = own.filter(|_| is_living) {
        plan.wave(vec![own]);
        return;
    }
    let collisions = creating.map(|name| name.collisions).filter(|collisions| *collisions > 0);
    let collisions = collisions.or(deployment.status.collision_count);
    let report =
        Report { counts, conditions, collisions, revision: revision.as_deref().filter(|_| is_living) };
    let write = status::write(planner, deployment, &report);
    // A new rollout is recorded at once: its deadline counts from here.
    let is_busy = is_busy && creating.is_none();
    write_status(snapshot, write, is_busy, creating.is_some(), plan);
}

fn write_status(
    snapshot: &Snapshot,
    write: Option<Action>,
    is_busy: bool,
    is_urgent: bool,
    plan: &mut Plan<Memory>,
) {
    let now = snapshot.context.now;
    let pace = snapshot.context.memory.status;
    let refusal = snapshot.context.refusal.as_ref().filter(|refusal| refusal.action == UPDATE_STATUS);
    let barred_until = refusal.map(|refusal| refusal.retry_at).filter(|retry_at| now < *retry_at);
    plan.memory.status = match write {
        None => pace.unchanged(),
        Some(write) => {
            let hold = if is_urgent { None } else { pace.hold_until(now, is_busy) };
            match hold.max(barred_until) {
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

/// The first state that the rollout has not reached, and what holds up the pods that are there already.
fn waits(fleet: &Fleet<'_>, counts: &Counts) -> Vec<WaitingOn> {
    let want = fleet.deployment.replicas;
    let of_new = |count: fn(&ReplicaSet) -> Option<i32>| fleet.new.and_then(|new| count(new)).unwrap_or(0);
    let ready = of_new(|new| new.status.ready_replicas);
    let available = of_new(|new| new.status.available_replicas);
    let mut waits = Vec::new();
    if counts.updated < want {
        waits.push(WaitingOn::Pods { state: "updated", have: counts.updated, want });
    }
    if ready < counts.updated {
        waits.push(WaitingOn::Pods { state: "ready", have: ready, want: counts.updated });
    } else if available < counts.updated {
        waits.push(WaitingOn::Pods { state: "available", have: available, want: counts.updated });
    }
    let old = counts.replicas - counts.updated;
    if old > 0 && waits.is_empty() {
        waits.push(WaitingOn::Terminating { pods: old });
    }
    waits
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;
    use trysail_core::plan::Refusal;

    use crate::fixture::{deployment_plan, now};

    /// A webhook may keep us from writing the revision down; that must not keep the status from being written.
    #[test]
    fn a_refused_record_does_not_hold_up_the_status() {
        let refusal = Refusal {
            action: "RecordRevision",
            message: "no annotations".to_owned(),
            attempts: 1,
            retry_at: now() + SignedDuration::from_secs(4),
        };
        let plan = deployment_plan(json!({"replicas": 1}), &["v2 1/1/1"], Some(refusal)).to_string();
        assert!(plan.contains("patch Deployment shop/web status"), "{plan}");
        let plan = deployment_plan(json!({"replicas": 1}), &["v2 1/1/1"], None).to_string();
        assert!(plan.contains("patch Deployment shop/web {\"metadata\""), "{plan}");
    }
}
