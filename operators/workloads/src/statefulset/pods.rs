//! The actions on pods, with the words that upstream's controller has for them.

use serde_json::Value;
use trysail_core::{
    Action,
    plan::{EventNote, Verb},
    pod::Pod,
};

use super::{identity, ordinals::pod_name, scene::Scene};
use crate::pod_control;

/// The pod that is missing.
pub(super) fn create(scene: &Scene<'_>, ordinal: i32, because: &str) -> Action {
    let set = scene.set();
    let name = pod_name(&set.meta.key.name, ordinal);
    let revisions = scene.revisions;
    let (revision, template) =
        if scene.keeps_current(ordinal) { revisions.to_keep() } else { revisions.to_update() };
    let owner = scene.planner.owner(set);
    let spread = scene.snapshot.spread;
    let body = identity::body(set, &owner, ordinal, (revision, template), spread);
    tell(pod_control::create(&body, because.to_owned()), "Create", &name, &set.meta.key.name)
}

/// A pod that has to go.
pub(super) fn delete(scene: &Scene<'_>, pod: &Pod, because: &str) -> Action {
    let action = pod_control::delete(pod, because.to_owned());
    tell(action, "Delete", &pod.meta.key.name, &scene.set().meta.key.name)
}

/// A change of a pod's metadata.
pub(super) fn patch(scene: &Scene<'_>, pod: &Pod, body: Value, because: &str) -> Action {
    let action = Action {
        target: pod_control::target(pod),
        verb: Verb::Patch { subresource: None, body },
        reason: "UpdatePod",
        because: because.to_owned(),
        on_success: None,
        on_failure: None,
    };
    tell(action, "Update", &pod.meta.key.name, &scene.set().meta.key.name)
}

/// The same action with upstream's events.
fn tell(action: Action, verb: &str, pod: &str, set: &str) -> Action {
    let (success, failure) = match verb {
        "Create" => ("SuccessfulCreate", "FailedCreate"),
        "Delete" => ("SuccessfulDelete", "FailedDelete"),
        _ => ("SuccessfulUpdate", "FailedUpdate"),
    };
    let subject = format!("{verb} Pod {pod} in StatefulSet {set}");
    Action {
        on_success: Some(EventNote::normal(success, format!("{subject} successful"))),
        on_failure: Some(EventNote::warning(failure, format!("{subject} failed error"))),
        ..action
    }
}
