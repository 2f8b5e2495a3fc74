//! Specs of StatefulSets, DaemonSets and CronJobs, and what else controllers may not change.

use serde_json::{Value, json};
use trysail_core::Resource;

use super::{ApiError, invalid, refuse_first, replicas};

/// A CronJob's Jobs are named after it: `-` and ten or eleven digits.
const MAX_CRON_JOB_NAME: usize = 52;

/// Sets a field that is absent or null.
pub(super) fn default(spec: &mut Value, name: &str, value: Value) {
    if spec[name].is_null() {
        spec[name] = value;
    }
}

pub(super) fn defaults(resource: Resource, object: &mut Value) {
    let spec = &mut object["spec"];
    match resource.plural {
        "statefulsets" => {
            default(spec, "replicas", json!(1));
            default(spec, "podManagementPolicy", json!("OrderedReady"));
            default(spec, "revisionHistoryLimit", json!(10));
            if spec["updateStrategy"]["type"].is_null() {
                spec["updateStrategy"]["type"] = json!("RollingUpdate");
                default(&mut spec["updateStrategy"], "rollingUpdate", json!({}));
            }
            if spec["updateStrategy"]["rollingUpdate"].is_object() {
                default(&mut spec["updateStrategy"]["rollingUpdate"], "partition", json!(0));
            }
            let retention = &mut spec["persistentVolumeClaimRetentionPolicy"];
            default(retention, "whenDeleted", json!("Retain"));
            default(retention, "whenScaled", json!("Retain"));
        }
        "daemonsets" => {
            default(spec, "revisionHistoryLimit", json!(10));
            default(&mut spec["updateStrategy"], "type", json!("RollingUpdate"));
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                let rolling = &mut spec["updateStrategy"]["rollingUpdate"];
                default(rolling, "maxUnavailable", json!(1));
                default(rolling, "maxSurge", json!(0));
            }
        }
        _ => {
            default(spec, "concurrencyPolicy", json!("Allow"));
            default(spec, "suspend", json!(false));
            default(spec, "successfulJobsHistoryLimit", json!(3));
            default(spec, "failedJobsHistoryLimit", json!(1));
        }
    }
}

pub(super) fn spec(resource: Resource, object: &Value) -> Result<(), ApiError> {
    let spec = &object["spec"];
    match resource.plural {
        "cronjobs" => cron_job(object),
        "daemonsets" => {
            replicas::selector_matches(spec)?;
            let rolling = &spec["updateStrategy"]["rollingUpdate"];
            let is_zero = |name: &str| rolling[name] == 0 || rolling[name] == "0%";
            refuse_first(&[
                (
                    rolling.is_object() && is_zero("maxSurge") && is_zero("maxUnavailable"),
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: cannot be 0 when maxSurge is 0",
                ),
                (
                    rolling.is_object()
                        && !rolling["maxSurge"].is_null()
                        && !is_zero("maxSurge")
                        && !is_zero("maxUnavailable"),
                    "spec.updateStrategy.rollingUpdate.maxSurge: may not be set when maxUnavailable is non-zero",
                ),
            ])
        }
        _ => {
            replicas::selector_matches(spec)?;
            let negative = |value: &Value| value.as_i64().is_some_and(|value| value < 0);
            refuse_first(&[
                (negative(&spec["replicas"]), "spec.replicas: must not be negative"),
                (negative(&spec["ordinals"]["start"]), "spec.ordinals.start: must not be negative"),
                (
                    negative(&spec["updateStrategy"]["rollingUpdate"]["partition"]),
                    "spec.updateStrategy.rollingUpdate.partition: must not be negative",
                ),
            ])
        }
    }
}

fn cron_job(object: &Value) -> Result<(), ApiError> {
    let spec = &object["spec"];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let schedule = spec["schedule"].as_str().unwrap_or_default();
    let template = &spec["jobTemplate"]["spec"];
    refuse_first(&[
        (name.len() > MAX_CRON_JOB_NAME, "metadata.name: must be no more than 52 characters"),
        (schedule.is_empty(), "spec.schedule: Required value"),
        (schedule.contains("TZ="), "spec.schedule: cannot use TZ or CRON_TZ, use timeZone instead"),
        (
            !matches!(spec["concurrencyPolicy"].as_str(), None | Some("Allow" | "Forbid" | "Replace")),
            "spec.concurrencyPolicy: Unsupported value",
        ),
        (!template["selector"].is_null(), "spec.jobTemplate.spec.selector: will be auto-generated"),
    ])
}

/// What a StatefulSet's user may change; everything else of its spec is for ever.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn changed(resource: Resource, old: &Value, new: &Value) -> Result<(), ApiError> {
    let is_different = |path: &str| old.pointer(path) != new.pointer(path);
    match resource.plural {
        "statefulsets" => {
            let rest = |object: &Value| {
                let mut spec = object["spec"].clone();
                if let Some(spec) = spec.as_object_mut() {
                    spec.retain(|name, _| !MUTABLE.contains(&name.as_str()));
                }
                spec
            };
            let message = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden";
            refuse_first(&[(rest(old) != rest(new), message)])
        }
        "daemonsets" => {
            refuse_first(&[(is_different("/spec/selector"), "spec.selector: field is immutable")])
        }
        "controllerrevisions" => refuse_first(&[(is_different("/data"), "data: field is immutable")]),
        "persistentvolumeclaims" => {
            refuse_first(&[(is_different("/spec"), "spec: is immutable after creation")])
        }
        _ => pod(old, new),
    }
}

/// Of a pod's spec controllers may change the images only.
fn pod(old: &Value, new: &Value) -> Result<(), ApiError> {
    let without_images = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for container in spec["containers"].as_array_mut().into_iter().flatten() {
            container["image"] = Value::Null;
        }
        spec
    };
    if old["spec"] != new["spec"] && without_images(old) != without_images(new) {
        return Err(invalid("spec: pod updates may not change fields other than images"));
    }
    Ok(())
}
