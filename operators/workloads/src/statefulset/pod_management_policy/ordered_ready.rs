//! `OrderedReady`: one pod after the other. A pod comes once all before it are available, and goes once all after
//! it are gone. At most one pod is made or deleted per look, and none while another is on its way.

use std::ops::ControlFlow::{self, Break, Continue};

use trysail_core::pod::{Phase, Pod};

use super::{name_taken, repair, replace_ended};
use crate::statefulset::{
    claim_retention, pods,
    scene::{Scene, Steps},
    update_strategy,
    volume_claim_templates::{self, Claims},
};

pub(super) fn steps(scene: &Scene<'_>) -> Steps {
    let mut steps = Steps::default();
    if in_range(scene, &mut steps).is_continue() && condemned(scene, &mut steps).is_continue() {
        update_strategy::replace(scene, &mut steps);
    }
    steps
}

/// From the first ordinal up, to the first pod that is not there or does not serve.
fn in_range(scene: &Scene<'_>, steps: &mut Steps) -> ControlFlow<()> {
    for ordinal in scene.fleet.range.iter() {
        match scene.fleet.members.get(&ordinal) {
            Some(pod) => member(scene, ordinal, pod, steps)?,
            None => {
                create(scene, ordinal, steps);
                return Break(());
            }
        }
    }
    Continue(())
}

fn create(scene: &Scene<'_>, ordinal: i32, steps: &mut Steps) {
    if let Some(stranger) = scene.snapshot.strangers.get(&ordinal) {
        return name_taken(scene, stranger, steps);
    }
    match volume_claim_templates::claims(scene, ordinal) {
        Claims::Going(waiting) => return steps.waiting.push(waiting),
        Claims::Missing(claims) => steps.wave(claims),
        Claims::Ready => {}
    }
    steps.wave(vec![pods::create(scene, ordinal, "next in order")]);
}

fn member(scene: &Scene<'_>, ordinal: i32, pod: &Pod, steps: &mut Steps) -> ControlFlow<()> {
    if pod.is_terminal() {
        let deletion = replace_ended(scene, ordinal, pod, steps);
        steps.wave(deletion.into_iter().collect());
        return Break(());
    }
    if pod.meta.is_terminating() {
        steps.waiting.push(Scene::wait(pod, "be gone"));
        return Break(());
    }
    if pod.phase == Phase::Pending {
        let claims = volume_claim_templates::recreate(scene, ordinal);
        steps.wave(claims);
    }
    if !Scene::is_ready(pod) {
        steps.waiting.push(Scene::wait(pod, "become ready"));
        update_strategy::escape(scene, steps);
        return Break(());
    }
    if !scene.is_available(pod) {
        steps.waiting.push(Scene::wait(pod, "be ready for spec.minReadySeconds"));
        return Break(());
    }
    repair(scene, ordinal, pod, steps);
    Continue(())
}

/// The highest ordinal goes, alone. One that does not serve goes only if no other is unhealthy: somebody has to look.
/// Not if it is of a revision that was given up and never got ready: somebody has looked.
fn condemned(scene: &Scene<'_>, steps: &mut Steps) -> ControlFlow<()> {
    let condemned = &scene.fleet.condemned;
    for (ordinal, pod) in condemned {
        steps.repairs.extend(claim_retention::repair(scene, *ordinal, pod, &mut steps.problems));
    }
    let Some(pod) = condemned.values().next_back() else { return Continue(()) };
    // Any of them: the first ordinal may have moved up.
    if let Some(going) = condemned.values().find(|pod| pod.meta.is_terminating()) {
        steps.waiting.push(Scene::wait(going, "be gone"));
        return Break(());
    }
    let first_unhealthy = condemned.values().find(|pod| !scene.serves(pod));
    let is_first = first_unhealthy.is_some_and(|first| first.meta.uid == pod.meta.uid);
    // What has ended cannot become healthy any more.
    let is_lost = pod.is_terminal() || update_strategy::is_hopeless(scene, pod);
    if !scene.is_available(pod) && !is_first && !is_lost {
        steps.waiting.push(Scene::wait(
            pod,
            "become ready, or the unhealthy ones before it, before it is scaled down",
        ));
        return Break(());
    }
    let because = if scene.fleet.range.len() == 0 { "no pods are wanted" } else { "beyond spec.replicas" };
    steps.wave(vec![pods::delete(scene, pod, because)]);
    Break(())
}
