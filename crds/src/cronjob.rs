//! `CronJob`: fields, defaults and validation.
//!
//! The schema knows the form of a schedule and of a time zone. Whether a range runs backwards, and whether the time
//! zone exists, is found out by the controller, which says so in a condition.

mod schedule;
mod time_zone;

use k8s_openapi::{
    api::{batch::v1::CronJobSpec as UpstreamSpec, core::v1::ObjectReference},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{CustomResource, CustomResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Condition,
    crd::{CrdError, Whole, with_rules},
    job::{JobSpec, Place, job_spec},
    schema,
};

/// Longest name: a Job is called by it, a dash and ten digits, and is a label of its pods.
const MAX_NAME_LENGTH: u32 = 52;

/// What the user wants of a CronJob: upstream's `batch/v1` fields.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "batch.trysail.dev",
    version = "v1",
    kind = "CronJob",
    plural = "cronjobs",
    singular = "cronjob",
    shortname = "tcj",
    category = "trysail",
    namespaced,
    schema = "disabled",
    status = "CronJobStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A CronJob of `batch.trysail.dev/v1`. Its complete CRD comes from [`crd`], not from the derived trait.",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Timezone", type_ = "string", json_path = ".spec.timeZone"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeJobs"),
    printcolumn(name = "Last Schedule", type_ = "date", json_path = ".status.lastScheduleTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Containers", type_ = "string", json_path = ".status.containers", priority = 1),
    printcolumn(name = "Images", type_ = "string", json_path = ".status.images", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct CronJobSpec {
    /// When Jobs are made: five fields, or a macro.
    pub schedule: String,
    /// The time zone of the schedule, by its name in the tz database; the controller's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Seconds for which a missed run may still be made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline_seconds: Option<i64>,
    /// `Allow`, `Forbid` or `Replace`; the server fills in `Allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<String>,
    /// No Jobs are made while true; the server fills in false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// How many completed Jobs are kept; the server fills in 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successful_jobs_history_limit: Option<i32>,
    /// How many failed Jobs are kept; the server fills in 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_jobs_history_limit: Option<i32>,
    /// What Jobs are made from.
    pub job_template: JobTemplate,
}

/// What a CronJob makes Jobs from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplate {
    /// Labels and annotations of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ObjectMeta>,
    /// The spec of the Jobs.
    pub spec: JobSpec,
}

/// What was observed of a CronJob: upstream's fields, and what printers show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobStatus {
    /// Generation of the spec that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Jobs that are running.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<ObjectReference>,
    /// Length of `active`, for printing.
    pub active_jobs: i32,
    /// For when a Job was last made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When a Job last completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// kstatus' conditions, and those of other writers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Names of the containers joined by commas, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<String>,
    /// Images of the containers joined by commas, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<String>,
}

/// The CRD with its complete schema.
pub fn crd() -> Result<CustomResourceDefinition, CrdError> {
    const SENTENCE: &str = "Makes Jobs on a schedule.";
    let name = json!({"type": "string", "maxLength": MAX_NAME_LENGTH});
    let whole = Whole { name: Some(name), rules: Vec::new() };
    with_rules(CronJob::crd(), SENTENCE, &spec()?, &status()?, &whole)
}

fn spec() -> Result<Value, CrdError> {
    let mut spec = schema::structural::<UpstreamSpec>()?;
    let template = schema::at(&mut spec, "jobTemplate")?;
    schema::allow_null(template, "jobTemplate");
    template["required"] = json!(["spec"]);
    *schema::at(template, "spec")? = job_spec(Place::JobTemplate)?;
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        schema::insert(&mut spec, field, json!({"minimum": 0}))?;
    }
    for field in ["startingDeadlineSeconds", "timeZone"] {
        schema::insert(&mut spec, field, json!({"nullable": true}))?;
    }
    schema::insert(
        &mut spec,
        "concurrencyPolicy",
        json!({"default": "Allow", "enum": ["Allow", "Forbid", "Replace"]}),
    )?;
    schema::set_default(&mut spec, "suspend", json!(false))?;
    schema::set_default(&mut spec, "successfulJobsHistoryLimit", json!(3))?;
    schema::set_default(&mut spec, "failedJobsHistoryLimit", json!(1))?;
    schedule::rules(&mut spec)?;
    time_zone::rules(&mut spec)?;
    schema::describe(
        &mut spec,
        &[
            ("schedule", "When Jobs are made: minute, hour, day, month and weekday, or a macro."),
            ("timeZone", "Time zone of the schedule by its name in the tz database."),
            ("startingDeadlineSeconds", "Seconds for which a missed run may still be made up for."),
            ("concurrencyPolicy", "What happens when a run is due and one still goes on."),
            ("suspend", "While true, no Jobs are made."),
            ("successfulJobsHistoryLimit", "How many completed Jobs are kept."),
            ("failedJobsHistoryLimit", "How many failed Jobs are kept."),
            ("jobTemplate", "What Jobs are made from."),
        ],
    )?;
    Ok(spec)
}

fn status() -> Result<Value, CrdError> {
    let mut status = schema::status(
        &[("activeJobs", "Number of running Jobs, as printed by `kubectl get`.")],
        &[schema::CONTAINERS, schema::IMAGES],
    );
    let mut reference = schema::structural::<ObjectReference>()?;
    reference["x-kubernetes-map-type"] = json!("atomic");
    let fields = &mut status["properties"];
    fields["active"] = json!({"type": "array", "items": reference, "x-kubernetes-list-type": "atomic",
        "description": "Jobs that are running."});
    for (name, sentence) in [
        ("lastScheduleTime", "For when a Job was last made."),
        ("lastSuccessfulTime", "When a Job last completed."),
    ] {
        fields[name] = json!({"type": "string", "format": "date-time", "description": sentence});
    }
    Ok(status)
}
