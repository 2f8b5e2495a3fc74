//! `selector` and `manualSelector`.
//!
//! Natively the server writes a selector with the Job's uid into every new Job, and four labels into its template. A
//! schema cannot, so the selector that the controller uses is derived, and what would contradict it is refused.

use serde_json::{Value, json};

use crate::{crd::CrdError, schema};

/// Labels that hold the Job's uid, which nobody can know before the Job exists.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Labels that hold the Job's name.
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

const MANUAL: &str = "(has(self.manualSelector) && self.manualSelector)";

/// An expression: the selector of `self` says nothing.
fn empty() -> String {
    format!(
        "(!{} || ((!has(self.selector.matchLabels) || size(self.selector.matchLabels) == 0) \
         && (!has(self.selector.matchExpressions) || size(self.selector.matchExpressions) == 0)))",
        schema::given("self", "selector")
    )
}

/// The selector of a Job is its own, or given by hand and matching the template.
pub(super) fn of_a_job(spec: &mut Value) -> Result<(), CrdError> {
    const LABELS: &str = "(has(self.template.metadata) && has(self.template.metadata.labels))";
    schema::label_selector_shape(spec)?;
    let empty = empty();
    let mut rules = vec![
        schema::rule(
            "selector",
            "FieldValueRequired",
            &format!("!{MANUAL} || {}", schema::given("self", "selector")),
            "when manualSelector is true",
        ),
        schema::rule(
            "selector",
            "FieldValueInvalid",
            &format!("{MANUAL} || {empty}"),
            "`selector` not auto-generated: leave it out, or set `manualSelector`",
        ),
        schema::rule(
            "template.metadata.labels",
            "FieldValueInvalid",
            &format!(
                "{MANUAL} || !{LABELS} || [{}].all(l, !(l in self.template.metadata.labels))",
                quoted(&UID_LABELS)
            ),
            "the labels controller-uid and batch.kubernetes.io/controller-uid are set on pods, and cannot be given",
        ),
    ];
    for mut rule in schema::selector_matches_template() {
        let text = format!("!{MANUAL} || {empty} || ({})", rule["rule"].as_str().unwrap_or_default());
        rule["rule"] = json!(text);
        rules.push(rule);
    }
    schema::validate(spec, "", rules)
}

/// The Jobs of a CronJob have selectors of their own.
pub(super) fn of_a_template(spec: &mut Value) -> Result<(), CrdError> {
    // Never allowed, so its schema would be dead weight.
    schema::insert(spec, "selector", json!({"x-kubernetes-preserve-unknown-fields": true}))?;
    let selector = schema::at(spec, "selector")?;
    if let Some(keywords) = selector.as_object_mut() {
        keywords.remove("properties");
    }
    schema::validate(
        spec,
        "",
        vec![
            schema::rule(
                "selector",
                "FieldValueInvalid",
                &format!("!{}", schema::given("self", "selector")),
                "`selector` will be auto-generated",
            ),
            schema::rule(
                "manualSelector",
                "FieldValueInvalid",
                &format!("!{MANUAL}"),
                "may only be absent or false in a jobTemplate",
            ),
        ],
    )
}

/// Rules of a whole Job: labels that shall hold its name do, and the name fits into them.
pub(super) fn names_the_job() -> Vec<Value> {
    const MANUAL: &str = "(has(self.spec.manualSelector) && self.spec.manualSelector)";
    const LABELS: &str = "self.spec.template.metadata.labels";
    vec![
        schema::rule(
            "spec.template.metadata.labels",
            "FieldValueInvalid",
            &format!(
                "{MANUAL} || !has(self.spec.template.metadata) || !has({LABELS}) \
                 || [{}].all(l, !(l in {LABELS}) || {LABELS}[l] == self.metadata.name)",
                quoted(&NAME_LABELS)
            ),
            "the labels job-name and batch.kubernetes.io/job-name hold the Job's name, and nothing else",
        ),
        schema::rule(
            "metadata.name",
            "FieldValueInvalid",
            &format!("{MANUAL} || size(self.metadata.name) <= 63"),
            "must be no more than 63 characters, as it becomes a label of the pods",
        ),
    ]
}

fn quoted(labels: &[&str]) -> String {
    labels.iter().map(|label| format!("'{label}'")).collect::<Vec<_>>().join(", ")
}
