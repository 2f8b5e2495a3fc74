//! What the native API server checks and normalises about specs and statuses; a CRD of ours checks the same.

use serde_json::Value;
use trysail_core::{Resource, Selector};

use super::ApiError;

/// `spec.selector` must match the template.
pub(super) fn spec(resource: Resource, object: &Value) -> Result<(), ApiError> {
    if !matches!(resource.plural, "deployments" | "replicasets") {
        return Ok(());
    }
    let spec = &object["spec"];
    let selector: Selector = serde_json::from_value(spec["selector"].clone())
        .map_err(|error| ApiError::Invalid(format!("spec.selector: {error}")))?;
    let labels = serde_json::from_value(spec["template"]["metadata"]["labels"].clone()).unwrap_or_default();
    if !selector.matches(&labels) {
        return Err(ApiError::Invalid("spec.selector does not match the template's labels".to_owned()));
    }
    if spec["replicas"].as_i64().is_some_and(|replicas| replicas < 0) {
        return Err(ApiError::Invalid("spec.replicas must not be negative".to_owned()));
    }
    Ok(())
}

/// Refuses what upstream's validation refuses of a status, and drops zeros as the native types do.
pub(super) fn status(resource: Resource, old: &Value, object: &mut Value) -> Result<(), ApiError> {
    if !matches!(resource.plural, "deployments" | "replicasets" | "replicationcontrollers") {
        return Ok(());
    }
    let status = &object["status"];
    let count = |name: &str| status[name].as_i64().unwrap_or(0);
    for name in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"]
    {
        if count(name) < 0 || count(name) > count("replicas") {
            return Err(ApiError::Invalid(format!("status.{name}: cannot be greater than status.replicas")));
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        return Err(ApiError::Invalid(
            "status.availableReplicas: cannot be greater than readyReplicas".into(),
        ));
    }
    if count("collisionCount") < old["status"]["collisionCount"].as_i64().unwrap_or(0) {
        return Err(ApiError::Invalid("status.collisionCount: cannot be decremented".to_owned()));
    }
    if count("observedGeneration") > object["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(ApiError::Invalid("status.observedGeneration is from the future".to_owned()));
    }
    if resource.group != "apps.trysail.dev"
        && let Some(status) = object["status"].as_object_mut()
    {
        let keeps_zero = |name: &str| {
            name == "terminatingReplicas" || (name == "replicas" && resource.plural != "deployments")
        };
        status.retain(|name, value| keeps_zero(name) || *value != 0);
    }
    Ok(())
}
