//! Jobs: defaults, the generated selector, and what of a spec may change.

use serde_json::{Value, json};
use trysail_core::Resource;

use super::{ApiError, invalid, is_ours, refuse_first, workloads::default};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

pub(super) fn defaults(resource: Resource, object: &mut Value) {
    let metadata = object["metadata"].clone();
    let spec = &mut object["spec"];
    default(spec, "completionMode", json!("NonIndexed"));
    default(spec, "suspend", json!(false));
    if is_ours(resource) {
        // A schema's defaults cannot depend on other fields, and a selector that the server wrote would be a
        // write to the user's spec.
        return;
    }
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = json!(1);
    }
    default(spec, "parallelism", json!(1));
    let limit = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i32::MAX };
    default(spec, "backoffLimit", json!(limit));
    let replacement = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    default(spec, "podReplacementPolicy", json!(replacement));
    default(spec, "manualSelector", json!(false));
    if spec["manualSelector"] == true {
        return;
    }
    let labels = &mut spec["template"]["metadata"]["labels"];
    for name in ["job-name", "batch.kubernetes.io/job-name"] {
        default(labels, name, metadata["name"].clone());
    }
    for name in ["controller-uid", CONTROLLER_UID] {
        default(labels, name, metadata["uid"].clone());
    }
    default(&mut spec["selector"]["matchLabels"], CONTROLLER_UID, metadata["uid"].clone());
}

pub(super) fn spec(resource: Resource, object: &Value) -> Result<(), ApiError> {
    let spec = &object["spec"];
    let negative = |name: &str| spec[name].as_i64().is_some_and(|value| value < 0);
    for name in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "maxFailedIndexes"] {
        if negative(name) {
            return Err(invalid(format!("spec.{name}: must be greater than or equal to 0")));
        }
    }
    let restart = spec["template"]["spec"]["restartPolicy"].as_str();
    let is_indexed = spec["completionMode"] == "Indexed";
    refuse_first(&[
        (
            !matches!(restart, Some("Never" | "OnFailure")),
            "spec.template.spec.restartPolicy: supported values: \"OnFailure\", \"Never\"",
        ),
        (
            is_indexed && spec["completions"].is_null(),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            !is_indexed && !spec["backoffLimitPerIndex"].is_null(),
            "spec.backoffLimitPerIndex: requires indexed completion mode",
        ),
        (
            !is_indexed && !spec["successPolicy"].is_null(),
            "spec.successPolicy: requires indexed completion mode",
        ),
        (
            !spec["podFailurePolicy"].is_null() && restart == Some("OnFailure"),
            "spec.template.spec.restartPolicy: only \"Never\" is supported when podFailurePolicy is specified",
        ),
    ])?;
    if is_ours(resource) { Ok(()) } else { super::replicas::selector_matches(spec) }
}

/// For ever as they were created.
const IMMUTABLE: [&str; 6] =
    ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];

pub(super) fn changed(old: &Value, new: &Value) -> Result<(), ApiError> {
    let (before, after) = (&old["spec"], &new["spec"]);
    for name in IMMUTABLE {
        if before[name] != after[name] {
            return Err(invalid(format!("spec.{name}: field is immutable")));
        }
    }
    let is_elastic = after["completionMode"] == "Indexed" && after["completions"] == after["parallelism"];
    let same_template = fixed_part(old, &before["template"]) == fixed_part(old, &after["template"]);
    refuse_first(&[
        (
            before["completions"] != after["completions"] && !is_elastic,
            "spec.completions: field is immutable, or for an Indexed Job changed with parallelism only",
        ),
        (!same_template, "spec.template: field is immutable"),
    ])
}

/// What of a template must stay: all of it, but for where pods run and what they are given while the Job is
/// suspended and none of them is left.
fn fixed_part(old: &Value, template: &Value) -> Value {
    let status = &old["status"];
    let is_parked = status["startTime"].is_null() || has_condition(status, "Suspended");
    let mut fixed = template.clone();
    if old["spec"]["suspend"] == true && is_parked && status["active"].as_i64().unwrap_or(0) == 0 {
        for name in ["labels", "annotations"] {
            fixed["metadata"][name] = Value::Null;
        }
        for name in ["nodeSelector", "tolerations", "schedulingGates"] {
            fixed["spec"][name] = Value::Null;
        }
        fixed["spec"]["affinity"]["nodeAffinity"] = Value::Null;
        for containers in ["containers", "initContainers"] {
            for container in fixed["spec"][containers].as_array_mut().into_iter().flatten() {
                container["resources"] = Value::Null;
            }
        }
    }
    fixed
}

/// A condition of that type is True.
pub(super) fn has_condition(status: &Value, kind: &str) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|held| held["type"] == kind && held["status"] == "True")
}
