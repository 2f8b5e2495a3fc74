//! The order of the decisions about one StatefulSet.

use trysail_core::{
    Plan,
    plan::{Action, WaitingOn},
};

use super::{
    Memory, Snapshot, StatefulSetPlanner, claim, failing_pods,
    failure::{self, Problem},
    pod_management_policy,
    revisions::Revisions,
    scene::{Scene, Steps},
    status::{self, Counts},
    volume_claim_templates,
};
use crate::StatusPace;

pub(super) fn plan(planner: StatefulSetPlanner, snapshot: &Snapshot) -> Plan<Memory> {
    let set = &snapshot.set;
    let fleet = claim::fleet(planner, snapshot);
    let revisions = Revisions::of(snapshot);
    let scene = Scene { planner, snapshot, fleet: &fleet, revisions: &revisions };
    let counts = Counts::of(&scene);
    let failures = failing_pods::remembered(&scene);
    let memory = Memory { failures, ..snapshot.context.memory.clone() };
    let mut plan = Plan { memory, ..Plan::default() };

    let mut steps = Steps::default();
    if set.meta.is_terminating() {
        plan.waiting_on.push(WaitingOn::Deletion);
    } else {
        plan.wave(fleet.actions.clone());
        plan.wave(revisions.record(planner));
        steps = match mistake(&scene) {
            Some(problem) => hold(problem),
            None => pod_management_policy::steps(&scene),
        };
    }
    let repairs = std::mem::take(&mut steps.repairs);
    let waves = std::iter::once(repairs).chain(std::mem::take(&mut steps.waves)).collect();
    for wave in failure::bar(snapshot, waves, &mut plan) {
        plan.wave(wave);
    }
    let is_writing = !plan.is_idle();
    plan.wave(revisions.truncate(&counts.current_revision, fleet.all()));
    report_status(&scene, &counts, &steps.problems, is_writing, &mut plan);
    let due = fleet.all().filter_map(|pod| pod.available_at(set.min_ready_seconds));
    let soonest = due.filter(|at| *at > snapshot.context.now).chain(steps.look_again).min();
    if let Some(at) = soonest {
        plan.requeue_by(at);
    }
    plan.waiting_on.extend(waits(&scene, &counts));
    plan.waiting_on.append(&mut steps.waiting);
    plan
}

/// What nobody but the user can mend, and acting on would make worse.
fn mistake(scene: &Scene<'_>) -> Option<Problem> {
    let set = scene.set();
    let problem = |reason, message: String| Some(Problem { reason, message });
    if !set.selector.matches(&set.template.labels) {
        // Such pods would be released as soon as they exist.
        let message = "spec.template.metadata.labels must match spec.selector".to_owned();
        return problem("InvalidSelector", message);
    }
    if scene.fleet.range.overflows() {
        let message = format!(
            "spec.ordinals.start ({}) plus spec.replicas ({}) must not exceed 2147483648: lower one of them",
            set.start, set.replicas
        );
        return problem("InvalidOrdinals", message);
    }
    let duplicate = volume_claim_templates::duplicate(set)?;
    let message = format!(
        "spec.volumeClaimTemplates has two entries named {duplicate}: pods could mount only one of them. Entries \
         cannot be changed, so delete the StatefulSet (kubectl delete --cascade=orphan keeps its pods) and apply it \
         with different names"
    );
    problem("DuplicateClaimTemplate", message)
}

fn hold(problem: Problem) -> Steps {
    let waiting = vec![WaitingOn::User { what: problem.message.clone() }];
    Steps { waiting, problems: vec![problem], ..Steps::default() }
}

fn report_status(
    scene: &Scene<'_>,
    counts: &Counts,
    problems: &[Problem],
    is_writing: bool,
    plan: &mut Plan<Memory>,
) {
    let now = scene.now();
    let pace = scene.snapshot.context.memory.status;
    let write: Option<Action> = status::write(scene, counts, problems, is_writing);
    plan.memory.status = match write {
        None => pace.unchanged(),
        Some(write) => {
            let hold = pace.hold_until(now, is_writing);
            match hold.max(failure::status_barred_until(scene.snapshot)) {
                Some(until) => {
                    plan.requeue_by(until);
                    pace.held(now)
                }
                None => {
                    plan.wave(vec![write]);
                    // Told once: when the condition is written that tells of it.
                    plan.events.extend(failure::events(scene.snapshot, problems));
                    StatusPace::written(now)
                }
            }
        }
    };
}

fn waits(scene: &Scene<'_>, counts: &Counts) -> Option<WaitingOn> {
    let want = scene.set().replicas;
    let states = [("created", counts.replicas), ("ready", counts.ready), ("available", counts.available)];
    let lacking = states.into_iter().find(|(_, have)| *have < want);
    lacking.map(|(state, have)| WaitingOn::Pods { state, have, want })
}

#[cfg(test)]
mod tests;
