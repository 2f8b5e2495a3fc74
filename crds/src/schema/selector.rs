//! Selectors: bounded, never empty, immutable, and matching the labels of the template.

use serde_json::{Value, json};

use super::{insert, rule, template::LABEL_VALUE, validate};
use crate::crd::CrdError;

/// Bounds that keep the estimated cost of the rules within the API server's budget. Far above what anybody writes.
const MAX_MATCH_LABELS: u32 = 64;
const MAX_EXPRESSIONS: u32 = 32;
const MAX_VALUES: u32 = 64;
/// A qualified name is at most a 253 character prefix, a slash and 63 characters.
const MAX_KEY_LENGTH: u32 = 317;
/// Syntax of a label's key.
const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$";

/// Bounds the field `selector` of `spec`, a `LabelSelector`, and checks its parts.
pub(crate) fn label_selector_shape(spec: &mut Value) -> Result<(), CrdError> {
    let value = json!({"type": "string", "maxLength": 63, "pattern": LABEL_VALUE});
    insert(
        spec,
        "selector.matchLabels",
        json!({"maxProperties": MAX_MATCH_LABELS, "additionalProperties": value}),
    )?;
    insert(
        spec,
        "selector.matchExpressions",
        json!({"maxItems": MAX_EXPRESSIONS, "x-kubernetes-list-type": "atomic", "items": {
            "type": "object",
            "required": ["key", "operator"],
            "properties": {
                "key": {"type": "string", "maxLength": MAX_KEY_LENGTH, "pattern": LABEL_KEY},
                "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                "values": {"type": "array", "items": value, "maxItems": MAX_VALUES, "x-kubernetes-list-type": "atomic"},
            },
            "x-kubernetes-validations": [
                rule(
                    "values",
                    "FieldValueRequired",
                    "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ),
                rule(
                    "values",
                    "FieldValueForbidden",
                    "self.operator in ['In', 'NotIn'] || !has(self.values) || size(self.values) == 0",
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ),
            ],
        }}),
    )
}

/// Completes the field `selector` of `spec`, a `LabelSelector` that cannot be changed.
pub(crate) fn label_selector(spec: &mut Value) -> Result<(), CrdError> {
    label_selector_shape(spec)?;
    validate(
        spec,
        "selector",
        vec![
            rule("", "FieldValueInvalid", "self == oldSelf", "field is immutable"),
            rule(
                "",
                "FieldValueInvalid",
                "(has(self.matchLabels) && size(self.matchLabels) > 0) \
                 || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
                "an empty selector is invalid: it would select every pod of the namespace",
            ),
        ],
    )
}

/// Completes the field `selector` of `spec`, a plain map of labels.
pub(crate) fn selector_map(spec: &mut Value) -> Result<(), CrdError> {
    let value = json!({"type": "string", "maxLength": 63, "pattern": LABEL_VALUE});
    insert(spec, "selector", json!({"maxProperties": MAX_MATCH_LABELS, "additionalProperties": value}))
}

/// Rules of a spec that say that its selector matches the labels of its template.
pub(crate) fn selector_matches_template() -> Vec<Value> {
    const MESSAGE: &str = "`selector` does not match template `labels`";
    const HAS_LABELS: &str = "has(self.template.metadata) && has(self.template.metadata.labels)";
    let match_labels = format!(
        "!has(self.selector.matchLabels) || size(self.selector.matchLabels) == 0 || ({HAS_LABELS} \
         && self.selector.matchLabels.all(k, k in self.template.metadata.labels \
         && self.template.metadata.labels[k] == self.selector.matchLabels[k]))"
    );
    let match_expressions = format!(
        "!has(self.selector.matchExpressions) || self.selector.matchExpressions.all(e, \
         {HAS_LABELS} && e.key in self.template.metadata.labels \
         ? (e.operator == 'Exists' \
         || (e.operator == 'In' && has(e.values) && self.template.metadata.labels[e.key] in e.values) \
         || (e.operator == 'NotIn' && !(has(e.values) && self.template.metadata.labels[e.key] in e.values))) \
         : e.operator in ['NotIn', 'DoesNotExist'])"
    );
    vec![
        rule("template.metadata.labels", "FieldValueInvalid", &match_labels, MESSAGE),
        rule("template.metadata.labels", "FieldValueInvalid", &match_expressions, MESSAGE),
    ]
}
