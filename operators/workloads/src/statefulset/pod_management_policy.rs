//! `spec.podManagementPolicy`: in which order pods come and go.

mod ordered_ready;
mod parallel;

use trysail_core::{Action, plan::WaitingOn, pod::Pod};

use super::{
    claim_retention, failing_pods,
    failure::Problem,
    identity, pods,
    scene::{Scene, Steps},
};
use crate::views::PodManagementPolicy;

/// What is to be done about pods and claims now.
pub(super) fn steps(scene: &Scene<'_>) -> Steps {
    match scene.set().pod_management_policy {
        PodManagementPolicy::OrderedReady => ordered_ready::steps(scene),
        PodManagementPolicy::Parallel => parallel::steps(scene),
    }
}

/// The deletion of a pod in range that has ended, well or badly: it makes room for the next of its name.
fn replace_ended(scene: &Scene<'_>, ordinal: i32, pod: &Pod, steps: &mut Steps) -> Option<Action> {
    if pod.meta.is_terminating() {
        steps.waiting.push(Scene::wait(pod, "be gone"));
        return None;
    }
    if let Some(at) = failing_pods::hold_until(scene, ordinal) {
        steps.waiting.push(WaitingOn::Time { at, what: "pods fail right after they are created" });
        steps.requeue_by(at);
        return None;
    }
    let reason = pod.details.as_ref().map(|details| details.reason.as_str()).unwrap_or_default();
    let because = match reason {
        "" => "it has ended".to_owned(),
        reason => format!("it has ended: {reason}"),
    };
    Some(pods::delete(scene, pod, &because))
}

/// Labels and owner references of a pod's claims; volumes cannot be repaired.
fn repair(scene: &Scene<'_>, ordinal: i32, pod: &Pod, steps: &mut Steps) {
    steps.repairs.extend(identity::repair(scene, ordinal, pod));
    if identity::has_its_volumes(scene.set(), ordinal, pod) {
        let claims = claim_retention::repair(scene, ordinal, pod, &mut steps.problems);
        steps.repairs.extend(claims);
    } else {
        let name = &pod.meta.key.name;
        steps.problems.push(Problem {
            reason: "FailedUpdate",
            message: format!(
                "pod {name} does not use the claims of spec.volumeClaimTemplates, and volumes of a pod cannot be \
                 changed: delete pod {name} to have it made anew"
            ),
        });
    }
}

/// Somebody else's pod has the name of one that is missing.
fn name_taken(scene: &Scene<'_>, stranger: &Pod, steps: &mut Steps) {
    if stranger.meta.is_terminating() {
        steps.waiting.push(Scene::wait(stranger, "be gone"));
        return;
    }
    let name = &stranger.meta.key.name;
    let is_ours = stranger.meta.controller.as_ref() == Some(&scene.set().meta.uid);
    let (what, remedy) = if stranger.meta.controller.is_some() && !is_ours {
        ("is controlled by somebody else", "delete it or its controller")
    } else {
        ("does not match spec.selector", "delete it, or let its labels match")
    };
    let message = format!("pod {name} {what}, but has the name of a pod of this StatefulSet: {remedy}");
    steps.waiting.push(WaitingOn::User { what: message.clone() });
    steps.problems.push(Problem { reason: "PodNameTaken", message });
}
