//! `spec.replicas`: how many pods to create or delete now.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use trysail_core::{
    Action, Json, Key, Labels,
    names::child_name,
    plan::{EventNote, OwnerReference, Target, Verb},
    pod::Pod,
    resource::PODS,
};

use super::{ReplicaSetPlanner, Snapshot, claim::target, deletion_order};
use crate::views::ReplicaSet;

/// Creates or deletes per look, upstream's number: one huge owner leaves room for the others.
pub const BURST: usize = 500;

/// The reasons of the actions that create and delete a pod.
pub(super) const CREATE: &str = "CreatePod";
pub(super) const DELETE: &str = "DeletePod";

/// How many pods to create now.
pub(super) fn missing(replicas: i32, active: usize) -> usize {
    usize::try_from(replicas).unwrap_or(0).saturating_sub(active).min(BURST)
}

/// How many pods to delete now.
pub(super) fn surplus(replicas: i32, active: usize) -> usize {
    active.saturating_sub(usize::try_from(replicas).unwrap_or(0)).min(BURST)
}

/// The creates or deletes that bring `active` to `spec.replicas`, or as far as the burst allows.
pub(super) fn resize(planner: ReplicaSetPlanner, snapshot: &Snapshot, active: &[&Arc<Pod>]) -> Vec<Action> {
    let set = &snapshot.set;
    let because = format!("{} of {} pods", active.len(), set.replicas);
    let going = surplus(set.replicas, active.len());
    if going > 0 {
        let chosen = deletion_order::first(snapshot, active, going);
        return chosen.into_iter().map(|pod| delete(pod, because.clone())).collect();
    }
    let coming = missing(set.replicas, active.len());
    let slots = snapshot.free_slots.iter().take(coming);
    slots.map(|slot| create(planner, set, *slot, because.clone())).collect()
}

fn create(planner: ReplicaSetPlanner, set: &ReplicaSet, slot: u32, because: String) -> Action {
    let name = child_name(&set.meta.key.name, &set.meta.uid, slot);
    let on_success = Some(EventNote::normal("SuccessfulCreate", format!("Created pod: {name}")));
    Action {
        target: Target {
            resource: PODS,
            key: Key::new(set.meta.key.namespace.clone(), name.as_str()),
            uid: None,
            resource_version: 0,
        },
        verb: Verb::Create { controller: Some(set.meta.uid.clone()), body: body(planner, set, &name) },
        reason: CREATE,
        because,
        on_success,
        on_failure: Some(EventNote::warning("FailedCreate", "Error creating")),
    }
}

fn delete(pod: &Pod, because: String) -> Action {
    let name = &pod.meta.key.name;
    Action {
        target: target(pod),
        verb: Verb::Delete { propagation: None },
        reason: DELETE,
        because,
        on_success: Some(EventNote::normal("SuccessfulDelete", format!("Deleted pod: {name}"))),
        on_failure: Some(EventNote::warning("FailedDelete", "Error deleting")),
    }
}

/// The pod to send. Its spec is the template's, byte for byte. There is no `generateName` beside the name: the
/// server would then word `AlreadyExists` as a collision of generated names and ask for a retry.
fn body(planner: ReplicaSetPlanner, set: &ReplicaSet, name: &str) -> Json {
    let owner =
        OwnerReference { resource: planner.resource, key: set.meta.key.clone(), uid: set.meta.uid.clone() };
    let template = &set.template;
    let mut metadata = Map::new();
    metadata.insert("name".into(), name.into());
    metadata.insert("namespace".into(), set.meta.key.namespace.as_str().into());
    metadata.insert("labels".into(), pairs(&template.labels));
    if !template.annotations.is_empty() {
        metadata.insert("annotations".into(), pairs(&template.annotations));
    }
    if !template.finalizers.is_empty() {
        metadata.insert("finalizers".into(), json!(template.finalizers));
    }
    metadata.insert("ownerReferences".into(), json!([owner.to_value()]));
    Json::Object(vec![
        ("apiVersion", Json::Value("v1".into())),
        ("kind", Json::Value("Pod".into())),
        ("metadata", Json::Value(Value::Object(metadata))),
        ("spec", template.spec()),
    ])
}

fn pairs(labels: &Labels) -> Value {
    json!(labels)
}
