//! CronJobs of both faces.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, value::RawValue};
use trysail_core::{Json, Labels, Meta, Symbol, Template, Uid, condition::Conditions, slim_object};

/// What decisions read of a CronJob.
#[derive(Clone, Debug, PartialEq)]
pub struct CronJob {
    /// Metadata.
    pub meta: Meta,
    /// `spec.schedule`, as the user wrote it.
    pub schedule: String,
    /// `spec.timeZone`, known or not.
    pub time_zone: Option<String>,
    /// `spec.startingDeadlineSeconds`.
    pub starting_deadline_seconds: Option<i64>,
    /// `spec.concurrencyPolicy`.
    pub concurrency_policy: ConcurrencyPolicy,
    /// `spec.suspend`.
    pub suspend: bool,
    /// `spec.successfulJobsHistoryLimit`; 3 when absent.
    pub successful_jobs_history_limit: usize,
    /// `spec.failedJobsHistoryLimit`; 1 when absent.
    pub failed_jobs_history_limit: usize,
    /// `spec.jobTemplate`.
    pub job_template: JobTemplate,
    /// `status` as it was read.
    pub status: CronJobStatus,
}

slim_object!(CronJob);

/// `spec.concurrencyPolicy`: what a run does while another is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ConcurrencyPolicy {
    /// Both run.
    #[default]
    Allow,
    /// The new one does not start.
    Forbid,
    /// The old one is deleted.
    Replace,
}

/// `spec.jobTemplate`: its metadata parsed, its spec as the bytes that the server sent.
#[derive(Clone, Debug)]
pub struct JobTemplate {
    /// Labels of the Jobs to come.
    pub labels: Labels,
    /// Annotations of the Jobs to come.
    pub annotations: Labels,
    spec: Arc<RawValue>,
}

impl JobTemplate {
    /// The Job's spec, to be spliced into a body.
    pub fn spec(&self) -> Json {
        Json::Raw(Arc::clone(&self.spec))
    }

    /// Names and images of the containers in order, for the columns that `kubectl get -o wide` shows.
    pub fn containers(&self) -> Vec<(String, String)> {
        #[derive(Deserialize)]
        struct Spec {
            template: Template,
        }
        let spec = serde_json::from_str::<Spec>(self.spec.get());
        spec.map(|spec| spec.template.containers()).unwrap_or_default()
    }
}

impl PartialEq for JobTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.annotations == other.annotations
            && self.spec.get() == other.spec.get()
    }
}

/// `status` of a [`CronJob`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CronJobStatus {
    /// The Jobs under way.
    pub active: Vec<ObjectReference>,
    /// The newest moment that a Job was started for.
    pub last_schedule_time: Option<Timestamp>,
    /// When a Job last succeeded.
    pub last_successful_time: Option<Timestamp>,
    /// CRD face: which generation of the spec the status speaks of.
    pub observed_generation: Option<i64>,
    /// CRD face: conditions, foreign ones included.
    pub conditions: Conditions,
    /// CRD face: how many Jobs are under way.
    pub active_jobs: Option<i32>,
    /// CRD face: container names.
    pub containers: Option<String>,
    /// CRD face: container images.
    pub images: Option<String>,
}

/// An entry of `status.active`, with whatever else is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// The Job's name.
    #[serde(default)]
    pub name: Symbol,
    /// The Job's incarnation.
    #[serde(default = "no_uid")]
    pub uid: Uid,
    /// Kind, version and namespace, kept as they came.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

fn no_uid() -> Uid {
    Uid::from("")
}

impl CronJob {
    /// True when the status speaks of the spec as it is now.
    pub fn is_observed(&self) -> bool {
        self.status.observed_generation.unwrap_or(0) >= self.meta.generation
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    spec: SpecWire,
    #[serde(default)]
    status: Option<StatusWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecWire {
    schedule: String,
    #[serde(default)]
    time_zone: Option<String>,
    #[serde(default)]
    starting_deadline_seconds: Option<i64>,
    #[serde(default)]
    concurrency_policy: Option<ConcurrencyPolicy>,
    #[serde(default)]
    suspend: Option<bool>,
    #[serde(default)]
    successful_jobs_history_limit: Option<i32>,
    #[serde(default)]
    failed_jobs_history_limit: Option<i32>,
    job_template: TemplateWire,
}

#[derive(Deserialize)]
struct TemplateWire {
    #[serde(default)]
    metadata: Option<TemplateMeta>,
    #[serde(default)]
    spec: Option<Box<RawValue>>,
}

#[derive(Deserialize, Default)]
struct TemplateMeta {
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    annotations: Labels,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct StatusWire {
    active: Option<Vec<ObjectReference>>,
    last_schedule_time: Option<Timestamp>,
    last_successful_time: Option<Timestamp>,
    observed_generation: Option<i64>,
    conditions: Conditions,
    active_jobs: Option<i32>,
    containers: Option<String>,
    images: Option<String>,
}

impl<'de> Deserialize<'de> for CronJob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let status = status.unwrap_or_default();
        let template = spec.job_template.metadata.unwrap_or_default();
        let job = match spec.job_template.spec {
            Some(spec) => spec,
            None => RawValue::from_string("{}".to_owned()).map_err(serde::de::Error::custom)?,
        };
        let limit = |limit: Option<i32>, default| limit.map_or(default, |limit| limit.max(0) as usize);
        Ok(Self {
            meta: metadata,
            schedule: spec.schedule,
            time_zone: spec.time_zone,
            starting_deadline_seconds: spec.starting_deadline_seconds,
            concurrency_policy: spec.concurrency_policy.unwrap_or_default(),
            suspend: spec.suspend.unwrap_or(false),
            successful_jobs_history_limit: limit(spec.successful_jobs_history_limit, 3),
            failed_jobs_history_limit: limit(spec.failed_jobs_history_limit, 1),
            job_template: JobTemplate {
                labels: template.labels,
                annotations: template.annotations,
                spec: Arc::from(job),
            },
            status: CronJobStatus {
                active: status.active.unwrap_or_default(),
                last_schedule_time: status.last_schedule_time,
                last_successful_time: status.last_successful_time,
                observed_generation: status.observed_generation,
                conditions: status.conditions,
                active_jobs: status.active_jobs,
                containers: status.containers,
                images: status.images,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_upstreams_default() {
        let text = r#"{"metadata":{"name":"nightly"},"spec":{"schedule":"0 0 * * *","suspend":null,
            "jobTemplate":{"metadata":{"creationTimestamp":null},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i"}]}}}}},
            "status":{}}"#;
        let cron_job: CronJob = serde_json::from_str(text).unwrap();
        assert_eq!(cron_job.concurrency_policy, ConcurrencyPolicy::Allow);
        assert_eq!((cron_job.successful_jobs_history_limit, cron_job.failed_jobs_history_limit), (3, 1));
        assert_eq!((cron_job.suspend, cron_job.starting_deadline_seconds), (false, None));
        assert_eq!(cron_job.job_template.containers(), [("c".to_owned(), "i".to_owned())]);
        assert_eq!(cron_job.status, CronJobStatus::default());
    }

    /// Entries that kube-controller-manager wrote are written back as they came.
    #[test]
    fn references_are_kept_whole() {
        let text = r#"{"apiVersion":"batch/v1","kind":"Job","name":"a-1","namespace":"n","resourceVersion":"7","uid":"u"}"#;
        let reference: ObjectReference = serde_json::from_str(text).unwrap();
        assert_eq!((reference.name.as_str(), &reference.uid), ("a-1", &Uid::from("u")));
        assert_eq!(serde_json::to_value(&reference).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn an_unknown_policy_is_an_error() {
        let text = r#"{"metadata":{"name":"a"},"spec":{"schedule":"@daily","concurrencyPolicy":"Queue","jobTemplate":{}}}"#;
        assert!(serde_json::from_str::<CronJob>(text).is_err());
    }
}
