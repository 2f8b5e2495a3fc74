//! `completions`, `parallelism`, `completionMode`, and the limits on failed indexes.
//!
//! The limits of an Indexed Job keep its lists of indexes in the status short enough to be stored.

use serde_json::Value;

use crate::{crd::CrdError, schema};

/// Above this many completions, failures that are limited by index need narrower limits.
const MANY_COMPLETIONS: u32 = 100_000;

/// Most pods at a time, and most failed indexes, of an Indexed Job.
const MOST: u32 = 100_000;

/// The same above [`MANY_COMPLETIONS`], when failures are limited by index.
const MOST_OF_MANY: u32 = 10_000;

/// An expression: the spec `object` is that of an Indexed Job.
pub(super) fn indexed(object: &str) -> String {
    format!("(has({object}.completionMode) && {object}.completionMode == 'Indexed')")
}

fn given(field: &str) -> String {
    schema::given("self", field)
}

/// Rules of a spec.
pub(super) fn rules(spec: &mut Value) -> Result<(), CrdError> {
    let mut rules = vec![
        schema::rule(
            "completions",
            "FieldValueRequired",
            &format!("!{} || {}", indexed("self"), given("completions")),
            "when completion mode is Indexed",
        ),
        at_most("parallelism", MOST, "when completion mode is Indexed", &indexed("self")),
        schema::rule(
            "maxFailedIndexes",
            "FieldValueInvalid",
            &format!(
                "!{} || !{} || self.maxFailedIndexes <= self.completions",
                given("maxFailedIndexes"),
                given("completions")
            ),
            "must be less than or equal to completions",
        ),
        at_most("maxFailedIndexes", MOST, "when completion mode is Indexed", &indexed("self")),
    ];
    rules.extend(limits_of_many());
    for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        rules.push(schema::rule(
            field,
            "FieldValueInvalid",
            &format!("!{} || {}", given(field), indexed("self")),
            "requires indexed completion mode",
        ));
    }
    rules.push(schema::rule(
        "backoffLimitPerIndex",
        "FieldValueRequired",
        &format!("!{} || {}", given("maxFailedIndexes"), given("backoffLimitPerIndex")),
        "when maxFailedIndexes is specified",
    ));
    schema::validate(spec, "", rules)
}

fn at_most(field: &str, limit: u32, when: &str, condition: &str) -> Value {
    schema::rule(
        field,
        "FieldValueInvalid",
        &format!("!{condition} || !{} || self.{field} <= {limit}", given(field)),
        &format!("must be less than or equal to {limit} {when}"),
    )
}

fn limits_of_many() -> Vec<Value> {
    let many = format!(
        "({} && {} && self.completions > {MANY_COMPLETIONS} && {})",
        indexed("self"),
        given("completions"),
        given("backoffLimitPerIndex")
    );
    let when = format!("when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
    vec![
        schema::rule(
            "maxFailedIndexes",
            "FieldValueRequired",
            &format!("!{many} || {}", given("maxFailedIndexes")),
            &format!("must be specified when completions is above {MANY_COMPLETIONS}"),
        ),
        at_most("parallelism", MOST_OF_MANY, &when, &many),
        at_most("maxFailedIndexes", MOST_OF_MANY, &when, &many),
    ]
}

/// An expression: how many pods have to succeed, -1 for "one of them all".
fn effective(object: &str) -> String {
    let [completions, parallelism] = ["completions", "parallelism"].map(|field| schema::given(object, field));
    format!("({completions} ? {object}.completions : ({parallelism} ? -1 : 1))")
}

/// Rules of a Job's spec on its change: an Indexed Job may grow and shrink, others may not.
pub(super) fn transitions(spec: &mut Value) -> Result<(), CrdError> {
    let unchanged = format!("{} == {}", effective("self"), effective("oldSelf"));
    let parallelism = format!("({} ? self.parallelism : 1)", given("parallelism"));
    schema::validate(
        spec,
        "",
        vec![
            schema::rule(
                "completions",
                "FieldValueInvalid",
                &format!("{} || {unchanged}", indexed("self")),
                "field is immutable; it is 1 where neither it nor `parallelism` was given",
            ),
            schema::rule(
                "completions",
                "FieldValueInvalid",
                &format!("!{} || {unchanged} || self.completions == {parallelism}", indexed("self")),
                "can only be modified in tandem with spec.parallelism",
            ),
        ],
    )
}

/// Rule of an Indexed Job: its name and the largest index are the host name of a pod.
pub(super) fn names_pods() -> Vec<Value> {
    vec![schema::rule(
        "metadata.name",
        "FieldValueInvalid",
        &format!(
            "!{} || !{} || self.spec.completions == 0 \
             || (size(self.metadata.name) + 1 + size(string(self.spec.completions - 1)) <= 63 \
             && self.metadata.name.matches('{}'))",
            indexed("self.spec"),
            schema::given("self.spec", "completions"),
            schema::DNS_LABEL
        ),
        "with a dash and the largest index it becomes a pod's host name, which must be a DNS label of at most 63 characters",
    )]
}
