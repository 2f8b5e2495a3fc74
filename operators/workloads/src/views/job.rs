//! Jobs of both faces.

use serde::{Deserialize, Deserializer};
use trysail_core::{
    Labels, Meta, Selector, Symbol, Template, Timestamp, Uid, condition::Conditions, pod::JOB_CONTROLLER_UID,
    slim_object,
};

use super::selector;

/// The label with the Job's name.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// What decisions read of a Job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Metadata.
    pub meta: Meta,
    /// `spec.parallelism`; 1 when absent.
    pub parallelism: i32,
    /// `spec.completions`; `None` is a work queue, which is done when one pod says so.
    pub completions: Option<i32>,
    /// `spec.completionMode`.
    pub completion_mode: CompletionMode,
    /// `spec.backoffLimit`; 6 when absent, no limit beside `backoffLimitPerIndex`.
    pub backoff_limit: i32,
    /// `spec.backoffLimitPerIndex`.
    pub backoff_limit_per_index: Option<i32>,
    /// `spec.maxFailedIndexes`.
    pub max_failed_indexes: Option<i32>,
    /// `spec.podFailurePolicy`.
    pub pod_failure_policy: Option<Vec<PodFailureRule>>,
    /// `spec.successPolicy`.
    pub success_policy: Option<Vec<SuccessRule>>,
    /// `spec.podReplacementPolicy` is `Failed`, as asked for or because there is a `podFailurePolicy`.
    pub replaces_failed_only: bool,
    /// `spec.activeDeadlineSeconds`.
    pub active_deadline_seconds: Option<i64>,
    /// `spec.ttlSecondsAfterFinished`.
    pub ttl_seconds_after_finished: Option<i32>,
    /// `spec.suspend`.
    pub suspend: bool,
    /// `spec.managedBy`.
    pub managed_by: Option<Symbol>,
    /// `spec.manualSelector`.
    pub manual_selector: bool,
    /// `spec.selector`; derived from the uid when there is none. A native API server writes it into the spec, a CRD's
    /// spec never holds it.
    pub selector: Selector,
    /// `spec.template`.
    pub template: Template,
    /// `spec.template.spec.restartPolicy`; empty when absent.
    pub restart_policy: Symbol,
    /// `status` as it was read.
    pub status: JobStatus,
}

slim_object!(Job);

/// `spec.completionMode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompletionMode {
    /// So many pods have to succeed, whichever.
    NonIndexed,
    /// Every index has to succeed once.
    Indexed,
    /// Of a server that is newer than this program.
    Unknown(Symbol),
}

/// A rule of `spec.podFailurePolicy`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFailureRule {
    /// What a matching failure leads to.
    #[serde(default)]
    pub action: PodFailureAction,
    /// Matches exit codes of containers.
    #[serde(default)]
    pub on_exit_codes: Option<OnExitCodes>,
    /// Matches conditions of the pod; any of them.
    #[serde(default)]
    pub on_pod_conditions: Option<Vec<OnPodCondition>>,
}

/// `spec.podFailurePolicy.rules[].action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PodFailureAction {
    /// The whole Job fails.
    FailJob,
    /// The index fails at once.
    FailIndex,
    /// The failure does not count.
    Ignore,
    /// The failure counts as any.
    Count,
    /// Of a server that is newer than this program: the rule is passed over, as upstream does.
    #[default]
    #[serde(other)]
    Unknown,
}

/// `spec.podFailurePolicy.rules[].onExitCodes`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnExitCodes {
    /// Only this container; any when `None`.
    #[serde(default)]
    pub container_name: Option<Symbol>,
    /// `In` or `NotIn`.
    #[serde(default)]
    pub operator: Symbol,
    /// The exit codes.
    #[serde(default)]
    pub values: Vec<i32>,
}

/// `spec.podFailurePolicy.rules[].onPodConditions[]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OnPodCondition {
    /// The condition's type.
    #[serde(rename = "type", default)]
    pub kind: Symbol,
    /// The condition's status; `True` when absent.
    #[serde(default = "yes")]
    pub status: Symbol,
}

fn yes() -> Symbol {
    Symbol::from("True")
}

/// A rule of `spec.successPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SuccessRule {
    /// These indexes, in the notation of `completedIndexes`.
    pub succeeded_indexes: Option<String>,
    /// So many of them; of any when there are none.
    pub succeeded_count: Option<i32>,
}

/// `status` of a [`Job`]. Absent counters stay absent: native servers leave out zeros, CRDs keep them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// Pods that are neither finished nor terminating.
    pub active: Option<i32>,
    /// Those that are ready.
    pub ready: Option<i32>,
    /// Pods that are going and have not ended.
    pub terminating: Option<i32>,
    /// Pods (indexes, when Indexed) that succeeded and are counted for good.
    pub succeeded: Option<i32>,
    /// Pods that failed and are counted for good.
    pub failed: Option<i32>,
    /// Since when the Job is active.
    pub start_time: Option<Timestamp>,
    /// When it was completed.
    pub completion_time: Option<Timestamp>,
    /// Indexes that succeeded.
    pub completed_indexes: Option<String>,
    /// Indexes that failed.
    pub failed_indexes: Option<String>,
    /// Finished pods that are not in the counters yet.
    pub uncounted_terminated_pods: Option<UncountedPods>,
    /// Conditions, foreign ones included.
    pub conditions: Conditions,
    /// CRD face: which generation of the spec the status speaks of.
    pub observed_generation: Option<i64>,
    /// CRD face: the selector as a string.
    pub selector: Option<String>,
    /// CRD face: what kubectl shows in the column STATUS.
    pub state: Option<String>,
    /// CRD face: succeeded of wanted, as kubectl shows it.
    pub progress: Option<String>,
    /// CRD face: how long it took until it was complete, as kubectl shows it.
    pub duration: Option<String>,
    /// CRD face: container names.
    pub containers: Option<String>,
    /// CRD face: container images.
    pub images: Option<String>,
}

/// `status.uncountedTerminatedPods`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct UncountedPods {
    /// Succeeded ones.
    #[serde(deserialize_with = "null_is_empty")]
    pub succeeded: Vec<Uid>,
    /// Failed ones.
    #[serde(deserialize_with = "null_is_empty")]
    pub failed: Vec<Uid>,
}

impl UncountedPods {
    /// True when nothing waits to be counted.
    pub fn is_empty(&self) -> bool {
        self.succeeded.is_empty() && self.failed.is_empty()
    }
}

impl Job {
    /// Every index has to succeed once.
    pub fn is_indexed(&self) -> bool {
        self.completion_mode == CompletionMode::Indexed
    }

    /// It is over: `Complete` or `Failed`.
    pub fn is_finished(&self) -> bool {
        self.status.conditions.is_true("Complete") || self.status.conditions.is_true("Failed")
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    spec: SpecWire,
    #[serde(default)]
    status: Option<JobStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecWire {
    #[serde(default)]
    parallelism: Option<i32>,
    #[serde(default)]
    completions: Option<i32>,
    #[serde(default)]
    completion_mode: Option<Symbol>,
    #[serde(default)]
    backoff_limit: Option<i32>,
    #[serde(default)]
    backoff_limit_per_index: Option<i32>,
    #[serde(default)]
    max_failed_indexes: Option<i32>,
    #[serde(default)]
    pod_failure_policy: Option<Rules<PodFailureRule>>,
    #[serde(default)]
    success_policy: Option<Rules<SuccessRule>>,
    #[serde(default)]
    pod_replacement_policy: Option<Symbol>,
    #[serde(default)]
    active_deadline_seconds: Option<i64>,
    #[serde(default)]
    ttl_seconds_after_finished: Option<i32>,
    #[serde(default)]
    suspend: Option<bool>,
    #[serde(default)]
    managed_by: Option<Symbol>,
    #[serde(default)]
    manual_selector: Option<bool>,
    #[serde(default, deserialize_with = "selector::either")]
    selector: Selector,
    template: Template,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct Rules<T> {
    #[serde(default, deserialize_with = "null_is_empty")]
    rules: Vec<T>,
}

/// The only field of the pod spec that a decision reads.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct PodSpecWire {
    #[serde(default)]
    restart_policy: Option<Symbol>,
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl<'de> Deserialize<'de> for Job {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata: meta, spec, status } = Wire::deserialize(deserializer)?;
        // With neither of the two there is one pod to run; with parallelism alone it is a work queue.
        let completions = match spec.parallelism {
            None if spec.completions.is_none() => Some(1),
            _ => spec.completions,
        };
        let unlimited = spec.backoff_limit_per_index.is_some();
        let pod_spec: PodSpecWire = serde_json::from_str(spec.template.spec_json()).unwrap_or_default();
        let selector = if spec.selector.is_empty() {
            let uid = meta.uid.to_string();
            Selector::from_labels([(JOB_CONTROLLER_UID, uid.as_str())].into_iter().collect::<Labels>())
        } else {
            spec.selector
        };
        Ok(Self {
            parallelism: spec.parallelism.unwrap_or(1),
            completions,
            completion_mode: match spec.completion_mode.as_deref() {
                None | Some("" | "NonIndexed") => CompletionMode::NonIndexed,
                Some("Indexed") => CompletionMode::Indexed,
                Some(other) => CompletionMode::Unknown(other.into()),
            },
            backoff_limit: spec.backoff_limit.unwrap_or(if unlimited { i32::MAX } else { 6 }),
            backoff_limit_per_index: spec.backoff_limit_per_index,
            max_failed_indexes: spec.max_failed_indexes,
            replaces_failed_only: spec.pod_failure_policy.is_some()
                || spec.pod_replacement_policy.as_deref() == Some("Failed"),
            pod_failure_policy: spec.pod_failure_policy.map(|policy| policy.rules),
            success_policy: spec.success_policy.map(|policy| policy.rules),
            active_deadline_seconds: spec.active_deadline_seconds,
            ttl_seconds_after_finished: spec.ttl_seconds_after_finished,
            suspend: spec.suspend.unwrap_or(false),
            managed_by: spec.managed_by.filter(|name| !name.is_empty()),
            manual_selector: spec.manual_selector.unwrap_or(false),
            selector,
            template: spec.template,
            restart_policy: pod_spec.restart_policy.unwrap_or_default(),
            status: status.unwrap_or_default(),
            meta,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &str) -> Job {
        let text = format!(
            r#"{{"metadata":{{"name":"pi","namespace":"shop","uid":"u1"}},"spec":{{"template":{{"spec":{{"restartPolicy":"Never"}}}}{spec}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_is_left_out_has_upstreams_default() {
        let job = read("");
        assert_eq!((job.parallelism, job.completions, job.backoff_limit), (1, Some(1), 6));
        assert_eq!((job.completion_mode, job.suspend), (CompletionMode::NonIndexed, false));
        assert_eq!(job.selector.to_string(), "batch.kubernetes.io/controller-uid=u1");
        assert_eq!(job.restart_policy, "Never");
        assert_eq!(read(r#","parallelism":3"#).completions, None, "a work queue");
        assert_eq!(read(r#","parallelism":3,"completions":5"#).completions, Some(5));
        assert_eq!(read(r#","backoffLimitPerIndex":1"#).backoff_limit, i32::MAX);
    }

    #[test]
    fn a_pod_failure_policy_replaces_failed_pods_only() {
        let rules = r#","podFailurePolicy":{"rules":[{"action":"FailJob","onExitCodes":{"operator":"In","values":[42]}},
            {"action":"Ignore","onPodConditions":[{"type":"DisruptionTarget"}]},{"action":"Ponder"}]}"#;
        let job = read(rules);
        assert!(job.replaces_failed_only);
        let rules = job.pod_failure_policy.unwrap();
        assert_eq!(rules[1].on_pod_conditions.as_ref().unwrap()[0].status, "True");
        assert_eq!(rules[2].action, PodFailureAction::Unknown);
        assert!(read(r#","podReplacementPolicy":"Failed""#).replaces_failed_only);
        assert!(!read(r#","podReplacementPolicy":"TerminatingOrFailed""#).replaces_failed_only);
    }

    #[test]
    fn a_status_is_kept_as_it_was_read() {
        let status: JobStatus = serde_json::from_str(
            r#"{"ready":0,"uncountedTerminatedPods":{"failed":["a"],"succeeded":null},"startTime":"2026-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        let uncounted = status.uncounted_terminated_pods.unwrap();
        assert_eq!((uncounted.failed.len(), uncounted.succeeded.len()), (1, 0));
        assert_eq!((status.ready, status.active), (Some(0), None));
    }
}
