//! `spec.jobTemplate`: the Job of a run.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde_json::{Map, Value, json};
use trysail_core::{
    Action, Json, Key,
    plan::{EventNote, OwnerReference, Target, Verb},
};

use super::{CronJobPlanner, time_zone::time_zone, timing::slot};
use crate::views::CronJob;

/// The reason of the action that starts a run.
pub(super) const CREATE: &str = "CreateJob";

/// The moment that a Job was started for, in the CronJob's zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The name of a moment's Job.
pub(super) fn job_name(cron_job: &CronJob, moment: Timestamp) -> String {
    format!("{}-{}", cron_job.meta.key.name, slot(moment))
}

/// Starts the run of `moment`.
pub(super) fn create(planner: CronJobPlanner, cron_job: &CronJob, moment: Timestamp) -> Action {
    let name = job_name(cron_job, moment);
    Action {
        target: Target {
            resource: planner.jobs,
            key: Key::new(cron_job.meta.key.namespace.clone(), name.as_str()),
            uid: None,
            resource_version: 0,
        },
        verb: Verb::Create {
            controller: Some(cron_job.meta.uid.clone()),
            body: body(planner, cron_job, &name, moment),
        },
        reason: CREATE,
        because: format!("scheduled for {}", in_zone(cron_job, moment)),
        on_success: Some(EventNote::normal("SuccessfulCreate", format!("Created job {name}"))),
        on_failure: Some(EventNote::warning("FailedCreate", "Error creating job")),
    }
}

/// Labels and annotations are the template's; its spec is sent byte for byte.
fn body(planner: CronJobPlanner, cron_job: &CronJob, name: &str, moment: Timestamp) -> Json {
    let owner = OwnerReference {
        resource: planner.resource,
        key: cron_job.meta.key.clone(),
        uid: cron_job.meta.uid.clone(),
    };
    let template = &cron_job.job_template;
    let mut metadata = Map::new();
    metadata.insert("name".into(), name.into());
    metadata.insert("namespace".into(), cron_job.meta.key.namespace.as_str().into());
    if !template.labels.is_empty() {
        metadata.insert("labels".into(), json!(template.labels));
    }
    let annotations = template.annotations.with(SCHEDULED, &in_zone(cron_job, moment));
    metadata.insert("annotations".into(), json!(annotations));
    metadata.insert("ownerReferences".into(), json!([owner.to_value()]));
    Json::Object(vec![
        ("apiVersion", Json::Value(planner.jobs.api_version().into())),
        ("kind", Json::Value(planner.jobs.kind.into())),
        ("metadata", Json::Value(Value::Object(metadata))),
        ("spec", template.spec()),
    ])
}

/// RFC 3339 with the offset that holds in `spec.timeZone`; a zone in the schedule itself does not count.
fn in_zone(cron_job: &CronJob, moment: Timestamp) -> String {
    let zone = cron_job.time_zone.as_deref().and_then(time_zone).unwrap_or(TimeZone::UTC);
    let local = Zoned::new(moment, zone);
    let format = if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    local.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_in_the_zone() {
        let moment: Timestamp = "2026-07-01T22:30:00Z".parse().unwrap();
        for (zone, expected) in [
            (json!(null), "2026-07-01T22:30:00Z"),
            (json!("Europe/Berlin"), "2026-07-02T00:30:00+02:00"),
            (json!("America/St_Johns"), "2026-07-01T20:00:00-02:30"),
            (json!("Etc/UTC"), "2026-07-01T22:30:00Z"),
        ] {
            let cron_job: CronJob = serde_json::from_value(json!({
                "metadata": {"name": "a"},
                "spec": {"schedule": "TZ=Asia/Tokyo @daily", "timeZone": zone, "jobTemplate": {}},
            }))
            .unwrap();
            assert_eq!(in_zone(&cron_job, moment), expected);
        }
    }
}
