//! What the API server adds to objects and refuses of them, kind by kind; a CRD's schema and rules do the same,
//! but for what only the native kinds' code can do (a Job's generated selector, defaults that depend on other
//! fields).

mod job;
mod job_status;
mod metadata;
mod replicas;
mod status;
mod workloads;

use serde_json::Value;
use trysail_core::{Resource, resource::PODS};

pub(crate) use job_status::parse_indexes;

use super::{ApiError, Writer};

/// The object belongs to one of our CRDs.
pub(super) fn is_ours(resource: Resource) -> bool {
    resource.group.ends_with(".trysail.dev")
}

/// What a create adds: the object has its uid already.
pub(super) fn complete(resource: Resource, object: &mut Value) {
    match resource.plural {
        "statefulsets" | "daemonsets" | "cronjobs" => workloads::defaults(resource, object),
        "jobs" => job::defaults(resource, object),
        "pods" => object["status"] = serde_json::json!({"phase": "Pending"}),
        "persistentvolumeclaims" => {
            object["status"] = serde_json::json!({"phase": "Pending"});
            // The admission plugin StorageObjectInUseProtection.
            object["metadata"]["finalizers"] = serde_json::json!([super::actors::PVC_PROTECTION]);
        }
        _ => {}
    }
}

/// Refuses a new object.
pub(super) fn created(resource: Resource, object: &Value) -> Result<(), ApiError> {
    metadata::created(object)?;
    spec(resource, object)
}

/// Refuses a change of anything but the status.
pub(super) fn changed(resource: Resource, old: &Value, new: &Value, writer: Writer) -> Result<(), ApiError> {
    metadata::changed(old, new)?;
    spec(resource, new)?;
    match resource.plural {
        "statefulsets" | "daemonsets" | "controllerrevisions" | "persistentvolumeclaims" => {
            workloads::changed(resource, old, new)
        }
        "jobs" => job::changed(old, new),
        _ if resource == PODS && writer == Writer::Controller => workloads::changed(resource, old, new),
        _ => Ok(()),
    }
}

fn spec(resource: Resource, object: &Value) -> Result<(), ApiError> {
    match resource.plural {
        "deployments" | "replicasets" => replicas::spec(object),
        "statefulsets" | "daemonsets" | "cronjobs" => workloads::spec(resource, object),
        "jobs" => job::spec(resource, object),
        _ => Ok(()),
    }
}

/// Refuses what upstream's validation refuses of a status, and drops zeros as the native types do.
pub(super) fn status(resource: Resource, old: &Value, object: &mut Value) -> Result<(), ApiError> {
    match resource.plural {
        "deployments" | "replicasets" | "replicationcontrollers" => replicas::status(old, object)?,
        "statefulsets" => status::stateful_set(old, object)?,
        "daemonsets" => status::daemon_set(old, object)?,
        "jobs" if old["status"] != object["status"] => job_status::changed(old, object)?,
        _ => return Ok(()),
    }
    if !is_ours(resource) {
        status::drop_zeros(resource, object);
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::Invalid(message.into())
}

/// The first message whose fact is true.
fn refuse_first(checks: &[(bool, &str)]) -> Result<(), ApiError> {
    match checks.iter().find(|(is_wrong, _)| *is_wrong) {
        Some((_, message)) => Err(invalid(*message)),
        None => Ok(()),
    }
}
