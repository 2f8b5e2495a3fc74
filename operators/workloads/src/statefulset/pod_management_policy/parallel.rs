//! `Parallel`: all pods that are missing come, all that are condemned go, at once. Updates still go one by one.

use trysail_core::pod::Phase;

use super::{name_taken, repair, replace_ended};
use crate::statefulset::{
    BURST, claim_retention, pods,
    scene::{Scene, Steps},
    update_strategy,
    volume_claim_templates::{self, Claims},
};

pub(super) fn steps(scene: &Scene<'_>) -> Steps {
    let mut steps = Steps::default();
    let mut going = Vec::new();
    let mut coming = Vec::new();
    for (ordinal, pod) in &scene.fleet.members {
        if pod.is_terminal() {
            going.extend(replace_ended(scene, *ordinal, pod, &mut steps));
        } else if pod.meta.is_terminating() {
            steps.waiting.push(Scene::wait(pod, "be gone"));
        } else {
            if pod.phase == Phase::Pending {
                coming.extend(volume_claim_templates::recreate(scene, *ordinal));
            }
            repair(scene, *ordinal, pod, &mut steps);
        }
    }
    for (ordinal, pod) in scene.fleet.condemned.iter().rev() {
        // Also of one that goes already: its claims go with it.
        steps.repairs.extend(claim_retention::repair(scene, *ordinal, pod, &mut steps.problems));
        if pod.meta.is_terminating() {
            steps.waiting.push(Scene::wait(pod, "be gone"));
            continue;
        }
        going.push(pods::delete(scene, pod, "beyond spec.replicas"));
    }
    going.truncate(BURST);
    // Room first: a quota may count pods that are about to go.
    steps.wave(going);
    create(scene, coming, &mut steps);
    update_strategy::replace(scene, &mut steps);
    steps
}

/// Pods whose claims are there, with the claims of the others; then those others. So a claim that is refused holds up
/// nobody else's pod.
fn create(scene: &Scene<'_>, mut claims: Vec<trysail_core::Action>, steps: &mut Steps) {
    let mut at_once = Vec::new();
    let mut after_claims = Vec::new();
    for ordinal in scene.fleet.missing().take(BURST) {
        if let Some(stranger) = scene.snapshot.strangers.get(&ordinal) {
            name_taken(scene, stranger, steps);
            continue;
        }
        let pod = || pods::create(scene, ordinal, "missing");
        match volume_claim_templates::claims(scene, ordinal) {
            Claims::Ready => at_once.push(pod()),
            Claims::Missing(missing) => {
                claims.extend(missing);
                after_claims.push(pod());
            }
            Claims::Going(waiting) => steps.waiting.push(waiting),
        }
    }
    at_once.extend(claims);
    steps.wave(at_once);
    steps.wave(after_claims);
}
