//! What a pod template may hold in our kinds, beyond the structure of upstream's types.
//!
//! No CEL stands inside the template: its lists are unbounded, and the cost estimate of a rule is multiplied by every
//! list above it. The checks that concern the template are plain keywords, or rules of the spec that holds it. What is
//! left unchecked is checked by the API server when a pod is created, and shown as a condition.

use serde_json::{Value, json};

use super::{at, insert, rule};
use crate::crd::CrdError;

/// Bound on the labels of a template, which the selector's rules read.
const MAX_LABELS: u32 = 256;

/// Syntax of a label's value, empty included.
pub(super) const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// Which restart policies the pods of a kind may have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RestartPolicies {
    /// `Always`, which is also meant when none is given.
    Always,
    /// `OnFailure` or `Never`. There is no default: the one of pods is `Always`, which never ends.
    Ending,
}

/// Bounds the template of `spec` and states what its kinds allow in it.
pub(crate) fn pod_template(spec: &mut Value, restart: RestartPolicies) -> Result<(), CrdError> {
    let labels = json!({
        "maxProperties": MAX_LABELS,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
    });
    insert(spec, "template.metadata.labels", labels)?;
    insert(spec, "template.spec.containers", json!({"minItems": 1}))?;
    match restart {
        RestartPolicies::Always => {
            insert(spec, "template.spec.restartPolicy", json!({"enum": ["Always"]}))?;
        }
        RestartPolicies::Ending => {
            insert(spec, "template.spec.restartPolicy", json!({"enum": ["OnFailure", "Never"]}))?;
            insert(spec, "template.spec", json!({"required": ["containers", "restartPolicy"]}))?;
        }
    }
    insert(spec, "template", json!({"required": ["spec"]}))?;
    // Never allowed in a template, so their schema would be dead weight.
    let ephemeral = json!({"items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    insert(spec, "template.spec.ephemeralContainers", ephemeral)?;
    allow_null(at(spec, "template")?, "template");
    Ok(())
}

/// Fields that stay without null: rules read them, and CEL takes a null for a value that is present; or they are
/// enumerated, and null is not among the values.
const NOT_NULLABLE: [&str; 6] = [
    "template.metadata",
    "template.metadata.labels",
    "template.spec.activeDeadlineSeconds",
    "template.spec.ephemeralContainers",
    "template.spec.restartPolicy",
    "volumeClaimTemplates.spec.volumeMode",
];

/// Lets every optional field be null, as in Go, where null means absent. Helm charts and `kubectl create --dry-run`
/// leave nulls behind (`nodeSelector:`, `creationTimestamp: null`), and while the API server drops those of a plain
/// create or update by itself, it refuses them in a server-side apply.
pub(crate) fn allow_null(schema: &mut Value, path: &str) {
    let required = schema.get("required").cloned().unwrap_or_default();
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, field) in fields {
            let path = format!("{path}.{name}");
            let is_required =
                required.as_array().is_some_and(|names| names.iter().any(|other| other == name));
            if !is_required && !NOT_NULLABLE.contains(&path.as_str()) {
                field["nullable"] = json!(true);
            }
            allow_null(field, &path);
        }
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(keyword) {
            allow_null(inner, &format!("{path}.{keyword}"));
        }
    }
}

/// Rules of a spec on fields that a pod may have and the template of a replicated kind may not.
pub(crate) fn forbidden_in_template(kind: &str) -> Vec<Value> {
    let deadline = rule(
        "template.spec.activeDeadlineSeconds",
        "FieldValueForbidden",
        "!has(self.template.spec.activeDeadlineSeconds)",
        &format!("activeDeadlineSeconds is not supported in the template of a {kind}"),
    );
    vec![deadline, no_ephemeral_containers()]
}

/// No template may hold ephemeral containers.
pub(crate) fn no_ephemeral_containers() -> Value {
    rule(
        "template.spec.ephemeralContainers",
        "FieldValueForbidden",
        "!has(self.template.spec.ephemeralContainers) || size(self.template.spec.ephemeralContainers) == 0",
        "ephemeral containers are not allowed in a pod template",
    )
}
