//! `Job`: fields and defaults. Validation stands in the files below, by the field that the user wrote.
//!
//! Natively some defaults depend on other fields, which a schema cannot say. These fields stay absent here, and absent
//! means what the native server would have filled in: see [`JobSpec::effective_completions`] and its neighbours. For
//! the same reason `selector` stays absent unless `manualSelector` is true; the selector that is used, derived from the
//! Job's uid, is shown in the status.

mod completions;
mod pod_failure_policy;
mod selector;
mod spec;
mod status;
mod success_policy;
mod template;

use k8s_openapi::{
    api::batch::v1::{PodFailurePolicy, SuccessPolicy, UncountedTerminatedPods},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
};
use kube::{CustomResource, CustomResourceExt};
use serde::{Deserialize, Serialize};

pub(crate) use self::spec::{Place, job_spec};
use crate::{
    Condition, PodTemplate,
    crd::{CrdError, Whole, with_rules},
};

/// How often pods of a Job may fail when neither limit is given.
const DEFAULT_BACKOFF_LIMIT: i32 = 6;

/// What the user wants of a Job: upstream's `batch/v1` fields.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "batch.trysail.dev",
    version = "v1",
    kind = "Job",
    plural = "jobs",
    singular = "job",
    shortname = "tjob",
    category = "trysail",
    namespaced,
    schema = "disabled",
    status = "JobStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Job of `batch.trysail.dev/v1`. Its complete CRD comes from [`crd`], not from the derived trait.",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Completions", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Duration", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Containers", type_ = "string", json_path = ".status.containers", priority = 1),
    printcolumn(name = "Images", type_ = "string", json_path = ".status.images", priority = 1),
    printcolumn(name = "Selector", type_ = "string", json_path = ".status.selector", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// What pods are made from.
    pub template: PodTemplate,
    /// How many pods run at a time; see [`Self::effective_parallelism`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<i32>,
    /// How many pods have to succeed; see [`Self::effective_completions`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions: Option<i32>,
    /// `NonIndexed` or `Indexed`; immutable; the server fills in `NonIndexed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_mode: Option<String>,
    /// How many pods may fail; see [`Self::effective_backoff_limit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<i32>,
    /// How often pods of one index may fail; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_limit_per_index: Option<i32>,
    /// How many indexes may fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_indexes: Option<i32>,
    /// What a failed pod means; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_failure_policy: Option<PodFailurePolicy>,
    /// When the Job counts as complete before every index is; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_policy: Option<SuccessPolicy>,
    /// When a pod is replaced; see [`Self::effective_pod_replacement_policy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_replacement_policy: Option<String>,
    /// Seconds after the start at which the Job fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds after the end at which the Job is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i32>,
    /// No pods run while true; the server fills in false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Who runs the Job, when it is not this project; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// Whether `selector` is the user's; immutable; the server fills in false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual_selector: Option<bool>,
    /// Which pods are ours, when `manualSelector` is true; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

impl JobSpec {
    /// `parallelism`, which is 1 when absent.
    pub fn effective_parallelism(&self) -> i32 {
        self.parallelism.unwrap_or(1)
    }

    /// `completions`. When both it and `parallelism` are absent it is 1; when only it is absent there is none, and one
    /// success ends the Job.
    pub fn effective_completions(&self) -> Option<i32> {
        self.completions.or_else(|| self.parallelism.is_none().then_some(1))
    }

    /// `backoffLimit`. When absent it is 6, or as good as none if failures are limited by index.
    pub fn effective_backoff_limit(&self) -> i32 {
        let default = if self.backoff_limit_per_index.is_some() { i32::MAX } else { DEFAULT_BACKOFF_LIMIT };
        self.backoff_limit.unwrap_or(default)
    }

    /// `podReplacementPolicy`. When absent it is `Failed` with a `podFailurePolicy`, which must know how a pod ended,
    /// and otherwise `TerminatingOrFailed`.
    pub fn effective_pod_replacement_policy(&self) -> &str {
        let default = if self.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        self.pod_replacement_policy.as_deref().unwrap_or(default)
    }
}

/// What was observed of a Job: upstream's counters and conditions, the selector, and what printers show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// Generation of the spec that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that are pending or running and not terminating.
    pub active: i32,
    /// Active pods that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<i32>,
    /// Pods that are terminating.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<i32>,
    /// Pods that succeeded.
    pub succeeded: i32,
    /// Pods that failed.
    pub failed: i32,
    /// Indexes that succeeded, as in `1,3-5,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_indexes: Option<String>,
    /// Indexes that failed for good, in the same form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_indexes: Option<String>,
    /// Finished pods that are in no counter yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncounted_terminated_pods: Option<UncountedTerminatedPods>,
    /// When the Job was started, or last resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the Job completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Upstream's conditions, kstatus' conditions, and those of other writers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The selector in use in its string form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// `Running`, `Complete`, `Failed`, … as the native printer has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// `succeeded/completions`, or `succeeded/1 of parallelism`, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// How long the Job took, for printing; absent before it completed, as nothing is written merely because time passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Names of the containers joined by commas, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<String>,
    /// Images of the containers joined by commas, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<String>,
}

/// The CRD with its complete schema.
pub fn crd() -> Result<CustomResourceDefinition, CrdError> {
    const SENTENCE: &str = "Runs pods until enough of them have succeeded.";
    let spec = job_spec(Place::Job)?;
    let mut rules = template::mutable_while_suspended(&spec)?;
    rules.extend(completions::names_pods());
    rules.extend(selector::names_the_job());
    rules.extend(status::rules_with_spec());
    // Bounded for the cost of the rules that read it, by what every name is bounded.
    let name = serde_json::json!({"type": "string", "maxLength": 253});
    with_rules(Job::crd(), SENTENCE, &spec, &status::status()?, &Whole { name: Some(name), rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the native server fills in, read from a spec where it is absent.
    #[test]
    fn absent_fields_mean_what_the_native_server_fills_in() {
        let nothing = JobSpec::default();
        assert_eq!(nothing.effective_parallelism(), 1);
        assert_eq!(nothing.effective_completions(), Some(1));
        assert_eq!(nothing.effective_backoff_limit(), 6);
        assert_eq!(nothing.effective_pod_replacement_policy(), "TerminatingOrFailed");
        let queue = JobSpec { parallelism: Some(3), ..JobSpec::default() };
        assert_eq!(queue.effective_completions(), None);
        let indexed = JobSpec {
            completions: Some(4),
            backoff_limit_per_index: Some(1),
            pod_failure_policy: Some(PodFailurePolicy::default()),
            ..JobSpec::default()
        };
        assert_eq!(indexed.effective_completions(), Some(4));
        assert_eq!(indexed.effective_parallelism(), 1);
        assert_eq!(indexed.effective_backoff_limit(), i32::MAX);
        assert_eq!(indexed.effective_pod_replacement_policy(), "Failed");
    }
}
