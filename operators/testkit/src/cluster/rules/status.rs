//! Statuses of StatefulSets and DaemonSets, and how native types are written.

use serde_json::Value;
use trysail_core::Resource;

use super::{ApiError, invalid, refuse_first};

const DAEMON_SET_COUNTS: [&str; 8] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];

pub(super) fn stateful_set(old: &Value, object: &Value) -> Result<(), ApiError> {
    let status = &object["status"];
    let count = |name: &str| status[name].as_i64().unwrap_or(0);
    for name in ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"] {
        if count(name) < 0 || count(name) > count("replicas") {
            return Err(invalid(format!("status.{name}: cannot be greater than status.replicas")));
        }
    }
    refuse_first(&[(
        count("availableReplicas") > count("readyReplicas"),
        "status.availableReplicas: cannot be greater than status.readyReplicas",
    )])?;
    any(old, object)
}

pub(super) fn daemon_set(old: &Value, object: &Value) -> Result<(), ApiError> {
    let status = &object["status"];
    for name in DAEMON_SET_COUNTS {
        if status[name].as_i64().unwrap_or(0) < 0 {
            return Err(invalid(format!("status.{name}: must be greater than or equal to 0")));
        }
    }
    any(old, object)
}

fn any(old: &Value, object: &Value) -> Result<(), ApiError> {
    let collisions = |object: &Value| object["status"]["collisionCount"].as_i64().unwrap_or(0);
    let observed = object["status"]["observedGeneration"].as_i64().unwrap_or(0);
    refuse_first(&[
        (collisions(object) < collisions(old), "status.collisionCount: cannot be decremented"),
        (
            observed > object["metadata"]["generation"].as_i64().unwrap_or(0),
            "status.observedGeneration is from the future",
        ),
    ])
}

/// Fields that Go's types write although they are zero.
fn keeps_zero(resource: Resource, name: &str) -> bool {
    match resource.plural {
        "deployments" => name == "terminatingReplicas",
        "replicasets" | "replicationcontrollers" => matches!(name, "terminatingReplicas" | "replicas"),
        "statefulsets" => matches!(name, "replicas" | "availableReplicas" | "collisionCount"),
        "daemonsets" => matches!(
            name,
            "currentNumberScheduled"
                | "numberMisscheduled"
                | "desiredNumberScheduled"
                | "numberReady"
                | "collisionCount"
        ),
        _ => matches!(name, "ready" | "terminating"),
    }
}

/// A native kind passes through Go's types, which leave out what is empty.
pub(super) fn drop_zeros(resource: Resource, object: &mut Value) {
    if let Some(status) = object["status"].as_object_mut() {
        status.retain(|name, value| keeps_zero(resource, name) || *value != 0);
    }
}
