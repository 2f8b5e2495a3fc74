//! What holds for the metadata of every kind.

use serde_json::Value;

use super::{ApiError, invalid, refuse_first};

/// Label values and hostnames have at most so many characters.
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 253;

pub(super) fn created(object: &Value) -> Result<(), ApiError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(invalid(format!("metadata.name: {name:?} must have 1 to {MAX_NAME} characters")));
    }
    owners(object)?;
    labels(object)
}

pub(super) fn changed(old: &Value, new: &Value) -> Result<(), ApiError> {
    owners(new)?;
    labels(new)?;
    let finalizers =
        |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let held = finalizers(old);
    let is_going = old["metadata"]["deletionTimestamp"].is_string();
    let has_new = finalizers(new).iter().any(|finalizer| !held.contains(finalizer));
    refuse_first(&[(
        is_going && has_new,
        "metadata.finalizers: no new finalizers can be added if the object is being deleted",
    )])
}

fn owners(object: &Value) -> Result<(), ApiError> {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let controllers = owners.filter(|owner| owner["controller"] == true).count();
    refuse_first(&[(
        controllers > 1,
        "metadata.ownerReferences: only one reference can have controller set to true",
    )])
}

fn labels(object: &Value) -> Result<(), ApiError> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let too_long = labels
        .filter_map(|(key, value)| value.as_str().map(|value| (key, value)))
        .find(|(_, value)| value.len() > MAX_LABEL);
    match too_long {
        Some((key, _)) => {
            Err(invalid(format!("metadata.labels: {key} must be no more than {MAX_LABEL} characters")))
        }
        None => Ok(()),
    }
}
