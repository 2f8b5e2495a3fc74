//! The schema of a status: upstream's counters, our selector and display strings, open conditions.

use serde_json::{Map, Value, json};

/// Counters of a status are int32 and never negative.
fn counter(sentence: &str) -> Value {
    json!({"type": "integer", "format": "int32", "minimum": 0, "description": sentence})
}

/// A status with the given counters (name, sentence) next to what every kind of ours reports.
pub(crate) fn status(counters: &[(&str, &str)]) -> Value {
    let mut fields: Map<String, Value> =
        counters.iter().map(|(name, sentence)| ((*name).to_owned(), counter(sentence))).collect();
    fields.insert(
        "observedGeneration".into(),
        json!({"type": "integer", "format": "int64", "minimum": 0,
            "description": "Generation of the spec that this status was computed from."}),
    );
    for (name, sentence) in [
        ("selector", "The selector in its string form, read by autoscalers and `kubectl get -o wide`."),
        ("ready", "Ready pods of the desired number, as printed by `kubectl get`."),
        ("containers", "Names of the template's containers, as printed by `kubectl get -o wide`."),
        ("images", "Images of the template's containers, as printed by `kubectl get -o wide`."),
    ] {
        fields.insert(name.into(), json!({"type": "string", "description": sentence}));
    }
    fields.insert("conditions".into(), conditions());
    json!({"type": "object", "description": "What was last observed; written by the controller.", "properties": fields})
}

/// Conditions by type. Other controllers keep theirs in the same list with fields that we do not know, so items are
/// open and only what every reader relies on is required.
fn conditions() -> Value {
    json!({
        "type": "array",
        "description": "Upstream's conditions, Ready, Reconciling and Stalled, and those of other writers.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["type", "status"],
            "properties": {
                "type": {"type": "string"},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {"type": "string"},
                "message": {"type": "string"},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "lastUpdateTime": {"type": "string", "format": "date-time"},
            },
        },
    })
}
