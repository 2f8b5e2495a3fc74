//! The actions on pods that the kinds share, with the wording that people know from upstream's controllers.

use trysail_core::{
    Action, Key,
    plan::{EventNote, OwnerReference, Target, Verb},
    pod::Pod,
    resource::PODS,
};

use crate::pod_body::PodBody;

/// The reason of actions that create a pod.
pub const CREATE_POD: &str = "CreatePod";
/// The reason of actions that delete a pod.
pub const DELETE_POD: &str = "DeletePod";

/// Creates a pod. StatefulSets word the events in another way and replace them.
pub fn create(pod: &PodBody<'_>, because: String) -> Action {
    let name = &pod.name;
    let on_success = Some(EventNote::normal("SuccessfulCreate", format!("Created pod: {name}")));
    Action {
        target: Target {
            resource: PODS,
            key: Key::new(pod.owner.key.namespace.clone(), name.as_str()),
            uid: None,
            resource_version: 0,
        },
        verb: Verb::Create { controller: Some(pod.owner.uid.clone()), body: pod.to_json() },
        reason: CREATE_POD,
        because,
        on_success,
        on_failure: Some(EventNote::warning("FailedCreate", "Error creating")),
    }
}

/// Deletes a pod, gracefully.
pub fn delete(pod: &Pod, because: String) -> Action {
    let name = &pod.meta.key.name;
    Action {
        target: target(pod),
        verb: Verb::Delete { propagation: None },
        reason: DELETE_POD,
        because,
        on_success: Some(EventNote::normal("SuccessfulDelete", format!("Deleted pod: {name}"))),
        on_failure: Some(EventNote::warning("FailedDelete", "Error deleting")),
    }
}

/// Makes `owner` the pod's controller.
pub fn adopt(pod: &Pod, owner: OwnerReference) -> Action {
    quiet(pod, Verb::Adopt { owner }, "AdoptPod", "matches the selector")
}

/// Lets the pod go.
pub fn release(pod: &Pod, owner: &OwnerReference) -> Action {
    quiet(pod, Verb::Release { owner: owner.uid.clone() }, "ReleasePod", "no longer matches the selector")
}

fn quiet(pod: &Pod, verb: Verb, reason: &'static str, because: &str) -> Action {
    Action {
        target: target(pod),
        verb,
        reason,
        because: because.to_owned(),
        on_success: None,
        on_failure: None,
    }
}

/// The pod as it was judged.
pub fn target(pod: &Pod) -> Target {
    Target {
        resource: PODS,
        key: pod.meta.key.clone(),
        uid: Some(pod.meta.uid.clone()),
        resource_version: pod.meta.resource_version,
    }
}
