//! The schema of a Job's spec, alone and inside a CronJob.

use k8s_openapi::api::batch::v1::JobSpec as UpstreamSpec;
use serde_json::{Value, json};

use super::{completions, pod_failure_policy, selector, success_policy};
use crate::{crd::CrdError, schema};

/// Where a Job's spec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a Job.
    Job,
    /// In the `jobTemplate` of a CronJob: nothing is filled in there, nothing is immutable, and there is no selector.
    JobTemplate,
}

/// Bound on the containers, and on the init containers, which rules compare by their names.
const MAX_CONTAINERS: u32 = 128;

/// Syntax of `managedBy`: a domain, a slash, and a path.
const MANAGED_BY: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$";

/// The schema of a Job's spec with its rules.
pub(crate) fn job_spec(place: Place) -> Result<Value, CrdError> {
    let mut spec = schema::structural::<UpstreamSpec>()?;
    schema::pod_template(&mut spec, schema::RestartPolicies::Ending)?;
    for list in ["template.spec.containers", "template.spec.initContainers"] {
        schema::insert(&mut spec, list, json!({"maxItems": MAX_CONTAINERS}))?;
    }
    bounds(&mut spec)?;
    if place == Place::Job {
        schema::set_default(&mut spec, "completionMode", json!("NonIndexed"))?;
        schema::set_default(&mut spec, "suspend", json!(false))?;
        schema::set_default(&mut spec, "manualSelector", json!(false))?;
    }
    completions::rules(&mut spec)?;
    pod_failure_policy::rules(&mut spec)?;
    success_policy::rules(&mut spec)?;
    match place {
        Place::Job => {
            selector::of_a_job(&mut spec)?;
            completions::transitions(&mut spec)?;
            schema::validate(&mut spec, "", immutable())?;
        }
        Place::JobTemplate => {
            schema::insert(&mut spec, "suspend", json!({"nullable": true}))?;
            selector::of_a_template(&mut spec)?;
        }
    }
    schema::validate(&mut spec, "", vec![schema::no_ephemeral_containers()])?;
    describe(&mut spec)?;
    Ok(spec)
}

fn bounds(spec: &mut Value) -> Result<(), CrdError> {
    const NOT_NEGATIVE: [&str; 7] = [
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "completions",
        "maxFailedIndexes",
        "parallelism",
        "ttlSecondsAfterFinished",
    ];
    for field in NOT_NEGATIVE {
        schema::insert(spec, field, json!({"minimum": 0, "nullable": true}))?;
    }
    for field in ["managedBy", "podFailurePolicy", "selector", "successPolicy"] {
        schema::insert(spec, field, json!({"nullable": true}))?;
    }
    schema::insert(spec, "completionMode", json!({"enum": ["NonIndexed", "Indexed"]}))?;
    schema::insert(spec, "podReplacementPolicy", json!({"enum": ["TerminatingOrFailed", "Failed"]}))?;
    schema::insert(spec, "managedBy", json!({"maxLength": 63, "pattern": MANAGED_BY}))
}

/// What cannot change whatever the Job does.
fn immutable() -> Vec<Value> {
    const FIELDS: [&str; 7] = [
        "backoffLimitPerIndex",
        "completionMode",
        "managedBy",
        "manualSelector",
        "podFailurePolicy",
        "selector",
        "successPolicy",
    ];
    FIELDS.into_iter().map(schema::unchanged).collect()
}

fn describe(spec: &mut Value) -> Result<(), CrdError> {
    schema::describe(
        spec,
        &[
            ("template", "What pods are made from."),
            ("parallelism", "How many pods run at a time; 1 when absent."),
            (
                "completions",
                "How many pods have to succeed; 1 when absent, or one of them all if `parallelism` is given.",
            ),
            ("completionMode", "Whether every completion has an index of its own."),
            ("backoffLimit", "How many pods may fail; 6 when absent and failures are not limited by index."),
            ("backoffLimitPerIndex", "How many pods of one index may fail."),
            ("maxFailedIndexes", "How many indexes may fail before the Job does."),
            ("podFailurePolicy", "What the failure of a pod means."),
            ("successPolicy", "When the Job counts as complete before every index is."),
            (
                "podReplacementPolicy",
                "Whether a pod is replaced when it starts to terminate or when it has failed.",
            ),
            ("activeDeadlineSeconds", "Seconds after the start at which the Job fails."),
            ("ttlSecondsAfterFinished", "Seconds after the end at which the Job is deleted."),
            ("suspend", "While true, no pods run."),
            ("managedBy", "Who runs the Job, when it is not this project."),
            ("manualSelector", "Whether `selector` is given instead of derived."),
            ("selector", "Which pods belong to this Job; only with `manualSelector`."),
        ],
    )
}
