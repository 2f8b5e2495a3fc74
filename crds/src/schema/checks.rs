//! Checks of upstream's validation that plain keywords can say inside a template, and required fields that the native
//! API does not require after all.

use serde_json::{Value, json};

/// Fields that upstream's OpenAPI calls required, while Go cannot tell an absent one from its zero value, which is
/// valid there: type, field.
const NOT_REQUIRED: [(&str, &str); 8] = [
    ("io.k8s.api.batch.v1.PodFailurePolicy", "rules"),
    ("io.k8s.api.core.v1.ClusterTrustBundleProjection", "path"),
    ("io.k8s.api.core.v1.HTTPHeader", "value"),
    ("io.k8s.api.core.v1.ISCSIVolumeSource", "lun"),
    ("io.k8s.api.core.v1.LocalObjectReference", "name"),
    ("io.k8s.api.core.v1.PreferredSchedulingTerm", "preference"),
    ("io.k8s.api.core.v1.SleepAction", "seconds"),
    ("io.k8s.api.core.v1.Sysctl", "value"),
];

/// Fields that upstream's OpenAPI calls optional and its validation demands: type, field.
const REQUIRED: [(&str, &str); 1] = [("io.k8s.api.core.v1.Container", "image")];

/// Syntax of the names of containers and volumes, and of whatever else becomes a part of a host name.
pub(crate) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// The names in `required` of `type_name`, corrected.
pub(super) fn required(type_name: &str, required: Option<&Value>) -> Vec<String> {
    let stated = required.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let added = REQUIRED.iter().filter(|(owner, _)| *owner == type_name).map(|(_, field)| *field);
    let mut names: Vec<String> = stated
        .chain(added)
        .filter(|field| !NOT_REQUIRED.contains(&(type_name, field)))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names
}

/// Keywords of the field `field` of `type_name` that state what upstream's validation demands of its value.
pub(super) fn keywords(type_name: &str, field: &str) -> Value {
    match (type_name.trim_start_matches("io.k8s.api.core.v1."), field) {
        ("Container" | "Volume", "name") => json!({"pattern": DNS_LABEL, "maxLength": 63}),
        ("Container", "image") | ("EnvVar" | "VolumeMount" | "VolumeDevice", "name") => {
            json!({"minLength": 1})
        }
        ("VolumeMount", "mountPath") | ("VolumeDevice", "devicePath") => json!({"minLength": 1}),
        ("ContainerPort", "containerPort") => json!({"minimum": 1, "maximum": 65_535}),
        ("ContainerPort", "hostPort") => json!({"minimum": 0, "maximum": 65_535}),
        ("WeightedPodAffinityTerm" | "PreferredSchedulingTerm", "weight") => {
            json!({"minimum": 1, "maximum": 100})
        }
        _ => json!({}),
    }
}

/// Every (type, field) that the tables name, for the test that none of them has gone from upstream.
#[cfg(test)]
pub(super) fn named_fields() -> impl Iterator<Item = (&'static str, &'static str)> {
    NOT_REQUIRED.into_iter().chain(REQUIRED)
}
