//! Deployments, ReplicaSets and ReplicationControllers.

use serde_json::Value;
use trysail_core::Selector;

use super::{ApiError, invalid};

/// `spec.selector` must match the template.
pub(super) fn spec(object: &Value) -> Result<(), ApiError> {
    let spec = &object["spec"];
    selector_matches(spec)?;
    if spec["replicas"].as_i64().is_some_and(|replicas| replicas < 0) {
        return Err(invalid("spec.replicas must not be negative"));
    }
    Ok(())
}

pub(super) fn selector_matches(spec: &Value) -> Result<(), ApiError> {
    let selector: Selector = serde_json::from_value(spec["selector"].clone())
        .map_err(|error| invalid(format!("spec.selector: {error}")))?;
    let labels = serde_json::from_value(spec["template"]["metadata"]["labels"].clone()).unwrap_or_default();
    if !selector.matches(&labels) {
        return Err(invalid("spec.selector does not match the template's labels"));
    }
    Ok(())
}

pub(super) fn status(old: &Value, object: &Value) -> Result<(), ApiError> {
    let status = &object["status"];
    let count = |name: &str| status[name].as_i64().unwrap_or(0);
    for name in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"]
    {
        if count(name) < 0 || count(name) > count("replicas") {
            return Err(invalid(format!("status.{name}: cannot be greater than status.replicas")));
        }
    }
    super::refuse_first(&[
        (
            count("availableReplicas") > count("readyReplicas"),
            "status.availableReplicas: cannot be greater than readyReplicas",
        ),
        (
            count("collisionCount") < old["status"]["collisionCount"].as_i64().unwrap_or(0),
            "status.collisionCount: cannot be decremented",
        ),
        (
            count("observedGeneration") > object["metadata"]["generation"].as_i64().unwrap_or(0),
            "status.observedGeneration is from the future",
        ),
    ])
}
