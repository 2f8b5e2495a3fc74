//! The status of a Job and its transitions, which the native server validates for every writer: a Job can be run by a
//! foreign controller (`managedBy`), and everybody relies on a finished Job staying finished.
//!
//! Not said here, because taking a list of indexes apart is beyond the budget for rules: that indexes are in range, in
//! order, and not both completed and failed.

use serde_json::{Value, json};

use super::{completions::indexed, success_policy::INDEXES};
use crate::{crd::CrdError, schema};

/// Bounds that keep the estimated cost of the rules within the API server's budget. The controller lists at most 500
/// uncounted pods at a time.
const MAX_CONDITIONS: u32 = 64;
const MAX_UNCOUNTED: u32 = 512;

const DISPLAYS: [schema::Display; 4] = [
    ("selector", "The selector in its string form, as printed by `kubectl get -o wide`."),
    ("state", "Running, Complete, Failed and so on, as printed by `kubectl get`."),
    ("progress", "Succeeded pods of those that have to, as printed by `kubectl get`."),
    ("duration", "How long the Job took, as printed by `kubectl get`."),
];

/// The schema of the status with the rules that read nothing else.
pub(super) fn status() -> Result<Value, CrdError> {
    let mut status = schema::status(
        &[
            ("active", "Pods that are pending or running and not terminating."),
            ("ready", "Active pods that are ready."),
            ("terminating", "Pods that are terminating."),
            ("succeeded", "Pods that succeeded."),
            ("failed", "Pods that failed."),
        ],
        &[DISPLAYS.as_slice(), &[schema::CONTAINERS, schema::IMAGES]].concat(),
    );
    let fields = &mut status["properties"];
    for (name, sentence) in [
        ("completedIndexes", "Indexes that succeeded, as in 1,3-5,7."),
        ("failedIndexes", "Indexes that failed for good, as in 1,3-5,7."),
    ] {
        fields[name] = json!({"type": "string", "pattern": INDEXES, "description": sentence});
    }
    for (name, sentence) in [
        ("startTime", "When the Job was started, or last resumed."),
        ("completionTime", "When the Job completed."),
    ] {
        fields[name] = json!({"type": "string", "format": "date-time", "description": sentence});
    }
    fields["uncountedTerminatedPods"] = uncounted();
    fields["conditions"]["maxItems"] = json!(MAX_CONDITIONS);
    schema::validate(&mut status, "", outcome())?;
    schema::validate(&mut status, "", finished())?;
    schema::validate(&mut status, "", transitions())?;
    Ok(status)
}

fn uncounted() -> Value {
    let pods = json!({
        "type": "array",
        "maxItems": MAX_UNCOUNTED,
        "x-kubernetes-list-type": "set",
        "items": {"type": "string", "minLength": 1, "maxLength": 63},
    });
    json!({
        "type": "object",
        "description": "Uids of finished pods that are in no counter yet.",
        "properties": {"succeeded": pods, "failed": pods},
        "x-kubernetes-validations": [schema::rule(
            "failed",
            "FieldValueInvalid",
            "!has(self.succeeded) || !has(self.failed) || !self.failed.exists(u, u in self.succeeded)",
            "a pod either succeeded or failed",
        )],
    })
}

/// An expression: the condition `kind` of the status `object` is true.
fn is_true(object: &str, kind: &str) -> String {
    condition(object, kind, "True")
}

fn condition(object: &str, kind: &str, status: &str) -> String {
    format!(
        "(has({object}.conditions) && {object}.conditions.exists(c, c.type == '{kind}' && c.status == '{status}'))"
    )
}

fn is_finished(object: &str) -> String {
    format!(
        "(has({object}.conditions) && {object}.conditions.exists(c, c.type in ['Complete', 'Failed'] \
         && c.status == 'True'))"
    )
}

/// Which conditions go together.
fn outcome() -> Vec<Value> {
    let is = |kind: &str| is_true("self", kind);
    let excludes = |one: &str, other: &str| {
        schema::rule(
            "conditions",
            "FieldValueInvalid",
            &format!("!({} && {})", is(one), is(other)),
            &format!("cannot set {one}=True and {other}=true conditions"),
        )
    };
    let needs = |one: &str, other: &str| {
        schema::rule(
            "conditions",
            "FieldValueInvalid",
            &format!("!{} || {}", is(one), is(other)),
            &format!("cannot set {one}=True condition without the {other}=true condition"),
        )
    };
    vec![
        excludes("SuccessCriteriaMet", "FailureTarget"),
        needs("Failed", "FailureTarget"),
        needs("Complete", "SuccessCriteriaMet"),
        schema::rule(
            "completionTime",
            "FieldValueInvalid",
            &format!("!has(self.completionTime) || {}", is("Complete")),
            "cannot set completionTime when there is no Complete=True condition",
        ),
        schema::rule(
            "completionTime",
            "FieldValueRequired",
            &format!("has(self.completionTime) || !{}", is("Complete")),
            "completionTime is required for Complete jobs",
        ),
        schema::rule(
            "completionTime",
            "FieldValueInvalid",
            "!has(self.completionTime) || !has(self.startTime) || self.completionTime >= self.startTime",
            "must be equal to or after `startTime`",
        ),
        schema::rule(
            "ready",
            "FieldValueInvalid",
            "!has(self.ready) || self.ready <= (has(self.active) ? self.active : 0)",
            "cannot set more ready pods than active",
        ),
    ]
}

/// A Job is finished when nothing of it is left.
fn finished() -> Vec<Value> {
    let running = format!("!{}", is_finished("self"));
    vec![
        schema::rule(
            "active",
            "FieldValueInvalid",
            &format!("{running} || !has(self.active) || self.active == 0"),
            "active>0 is invalid for finished job",
        ),
        schema::rule(
            "terminating",
            "FieldValueInvalid",
            &format!("{running} || !has(self.terminating) || self.terminating == 0"),
            "terminating>0 is invalid for finished job",
        ),
        schema::rule(
            "uncountedTerminatedPods",
            "FieldValueInvalid",
            &format!(
                "{running} || !has(self.uncountedTerminatedPods) || ['succeeded', 'failed'].all(l, \
                 l == 'succeeded' ? !has(self.uncountedTerminatedPods.succeeded) \
                 || size(self.uncountedTerminatedPods.succeeded) == 0 \
                 : !has(self.uncountedTerminatedPods.failed) || size(self.uncountedTerminatedPods.failed) == 0)"
            ),
            "must be empty for finished job",
        ),
    ]
}

fn transitions() -> Vec<Value> {
    let mut rules: Vec<Value> = ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"]
        .map(|kind| {
            schema::rule(
                "conditions",
                "FieldValueInvalid",
                &format!("!{} || {}", is_true("oldSelf", kind), is_true("self", kind)),
                &format!("cannot disable the {kind}=True condition"),
            )
        })
        .into();
    rules.push(schema::never_falls("failed", "cannot decrease the failed counter"));
    rules.push(schema::rule(
        "completionTime",
        "FieldValueInvalid",
        "!has(self.completionTime) || !has(oldSelf.completionTime) || self.completionTime == oldSelf.completionTime",
        "field is immutable",
    ));
    rules
}

/// Rules of a whole Job, for what the spec has a say in. A Job that is being created has no status.
pub(super) fn rules_with_spec() -> Vec<Value> {
    const NEW: &str = "!has(self.status)";
    let given = |field: &str| schema::given("self.spec", field);
    let indexed = indexed("self.spec");
    let resuming = format!(
        "({} && {})",
        condition("oldSelf.status", "Suspended", "True"),
        condition("self.status", "Suspended", "False")
    );
    vec![
        schema::rule(
            "status.startTime",
            "FieldValueRequired",
            &format!(
                "{NEW} || !{} || has(self.status.startTime) || (self.spec.suspend && {} && self.spec.completions == 0)",
                is_finished("self.status"),
                given("completions")
            ),
            "startTime is required for finished job",
        ),
        schema::rule(
            "status.startTime",
            "FieldValueInvalid",
            &format!(
                "{NEW} || !has(oldSelf.status) || !has(oldSelf.status.startTime) || self.spec.suspend || {resuming} \
                 || (has(self.status.startTime) && self.status.startTime == oldSelf.status.startTime)"
            ),
            "field is immutable for unsuspended job once set",
        ),
        schema::rule(
            "status.succeeded",
            "FieldValueInvalid",
            &format!(
                "{NEW} || !has(oldSelf.status) || ({indexed} && {} && self.spec.completions == ({} ? self.spec.parallelism : 1)) \
                 || !has(oldSelf.status.succeeded) \
                 || (has(self.status.succeeded) ? self.status.succeeded : 0) >= oldSelf.status.succeeded",
                given("completions"),
                given("parallelism")
            ),
            "cannot decrease the succeeded counter",
        ),
        schema::rule(
            "status.completedIndexes",
            "FieldValueInvalid",
            &format!(
                "{NEW} || {indexed} || !has(self.status.completedIndexes) || self.status.completedIndexes == ''"
            ),
            "cannot set non-empty completedIndexes when non-indexed completion mode",
        ),
        schema::rule(
            "status.failedIndexes",
            "FieldValueInvalid",
            &format!("{NEW} || {} || !has(self.status.failedIndexes)", given("backoffLimitPerIndex")),
            "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        ),
    ]
}
