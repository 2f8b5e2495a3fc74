//! The schema of a status: upstream's counters, our selector and display strings, open conditions.

use serde_json::{Map, Value, json};

/// Counters of a status are int32 and never negative.
fn counter(sentence: &str) -> Value {
    json!({"type": "integer", "format": "int32", "minimum": 0, "description": sentence})
}

/// Display string: what `kubectl get` shows and a native printer computes. Name and sentence.
pub(crate) type Display = (&'static str, &'static str);

const SELECTOR: Display =
    ("selector", "The selector in its string form, read by autoscalers and `kubectl get -o wide`.");
const READY: Display = ("ready", "Ready pods of the desired number, as printed by `kubectl get`.");

/// Names of the template's containers.
pub(crate) const CONTAINERS: Display =
    ("containers", "Names of the template's containers, as printed by `kubectl get -o wide`.");

/// Images of the template's containers.
pub(crate) const IMAGES: Display =
    ("images", "Images of the template's containers, as printed by `kubectl get -o wide`.");

/// What is shown of a kind that keeps a number of replicas.
pub(crate) const REPLICATED: [Display; 4] = [SELECTOR, READY, CONTAINERS, IMAGES];

/// What is shown of a kind that has a selector and counts differently.
pub(crate) const SELECTING: [Display; 3] = [SELECTOR, CONTAINERS, IMAGES];

/// A status with the given counters (name, sentence) and display strings next to what every kind of ours reports.
pub(crate) fn status(counters: &[(&str, &str)], displays: &[Display]) -> Value {
    let mut fields: Map<String, Value> =
        counters.iter().map(|(name, sentence)| ((*name).to_owned(), counter(sentence))).collect();
    fields.insert(
        "observedGeneration".into(),
        json!({"type": "integer", "format": "int64", "minimum": 0,
            "description": "Generation of the spec that this status was computed from."}),
    );
    for (name, sentence) in displays {
        fields.insert((*name).into(), json!({"type": "string", "description": sentence}));
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
