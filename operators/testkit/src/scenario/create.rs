//! Commands that create objects, and what may be said about them.

use serde_json::{Value, json};
use trysail_core::{
    Resource,
    resource::{PERSISTENT_VOLUME_CLAIMS, PODS},
};

use super::{Stage, word};
use crate::{cluster::Writer, fixtures};

/// Keys of every kind: the path in the spec.
const COMMON: [(&str, &str); 5] = [
    ("replicas", "replicas"),
    ("min-ready", "minReadySeconds"),
    ("history", "revisionHistoryLimit"),
    ("paused", "paused"),
    ("suspend", "suspend"),
];

const DEPLOYMENT: [(&str, &str); 4] = [
    ("surge", "strategy.rollingUpdate.maxSurge"),
    ("unavailable", "strategy.rollingUpdate.maxUnavailable"),
    ("strategy", "strategy.type"),
    ("deadline", "progressDeadlineSeconds"),
];

/// StatefulSets and DaemonSets.
const UPDATED: [(&str, &str); 8] = [
    ("surge", "updateStrategy.rollingUpdate.maxSurge"),
    ("unavailable", "updateStrategy.rollingUpdate.maxUnavailable"),
    ("partition", "updateStrategy.rollingUpdate.partition"),
    ("strategy", "updateStrategy.type"),
    ("policy", "podManagementPolicy"),
    ("start", "ordinals.start"),
    ("when-deleted", "persistentVolumeClaimRetentionPolicy.whenDeleted"),
    ("when-scaled", "persistentVolumeClaimRetentionPolicy.whenScaled"),
];

const JOB: [(&str, &str); 12] = [
    ("parallelism", "parallelism"),
    ("completions", "completions"),
    ("mode", "completionMode"),
    ("backoff", "backoffLimit"),
    ("backoff-per-index", "backoffLimitPerIndex"),
    ("max-failed-indexes", "maxFailedIndexes"),
    ("deadline", "activeDeadlineSeconds"),
    ("ttl", "ttlSecondsAfterFinished"),
    ("replacement", "podReplacementPolicy"),
    ("managed-by", "managedBy"),
    ("failure-policy", "podFailurePolicy"),
    ("success-policy", "successPolicy"),
];

const CRON_JOB: [(&str, &str); 5] = [
    ("zone", "timeZone"),
    ("concurrency", "concurrencyPolicy"),
    ("deadline", "startingDeadlineSeconds"),
    ("keep", "successfulJobsHistoryLimit"),
    ("keep-failed", "failedJobsHistoryLimit"),
];

impl Stage {
    pub(super) fn create(&mut self, kind: &str, rest: &[&str]) -> Result<(), String> {
        let name = word(rest, 0)?;
        let face = self.face;
        let mut object = match kind {
            "pod" => return self.store(PODS, fixtures::pod(name, word(rest, 1)?)),
            "claim" => return self.store(PERSISTENT_VOLUME_CLAIMS, fixtures::claim(name)),
            "deployment" => fixtures::deployment(face, name, 1, "v1"),
            "replicaset" => fixtures::replica_set(face, name, 1, "v1"),
            "controller" => fixtures::replication_controller(face, name, 1, "v1"),
            "statefulset" => fixtures::stateful_set(face, name, 1, "v1"),
            "daemonset" => fixtures::daemon_set(face, name, "v1"),
            "job" => fixtures::job(face, name, "v1"),
            _ => fixtures::cron_job(face, name, "*/5 * * * *", "v1"),
        };
        for option in &rest[1..] {
            let (key, value) = option.split_once('=').ok_or_else(|| format!("{option} is not key=value"))?;
            set(kind, &mut object["spec"], key, value)?;
        }
        self.store(self.resource(kind)?, object)
    }

    pub(super) fn store(&mut self, resource: Resource, object: Value) -> Result<(), String> {
        self.cluster.create(resource, object, Writer::Other).map_err(|error| format!("{error:?}"))?;
        Ok(())
    }
}

fn set(kind: &str, spec: &mut Value, key: &str, value: &str) -> Result<(), String> {
    let pods =
        if kind == "cronjob" { &mut spec["jobTemplate"]["spec"]["template"] } else { &mut spec["template"] };
    match key {
        "image" => pods["spec"]["containers"][0]["image"] = value.into(),
        "restart" => pods["spec"]["restartPolicy"] = value.into(),
        "claims" => {
            let templates: Vec<Value> = value.split(',').map(fixtures::claim_template).collect();
            spec["volumeClaimTemplates"] = json!(templates);
        }
        "schedule" => spec["schedule"] = value.replace('_', " ").into(),
        _ => {
            let own: &[(&str, &str)] = match kind {
                "deployment" => &DEPLOYMENT,
                "statefulset" | "daemonset" => &UPDATED,
                "job" => &JOB,
                "cronjob" => &CRON_JOB,
                _ => &[],
            };
            let mut known = own.iter().chain(&COMMON);
            let path = known.find(|(name, _)| *name == key).map(|(_, path)| *path);
            let path = path.or_else(|| key.contains('.').then_some(key));
            let path = path.ok_or_else(|| format!("unknown option {key}"))?;
            let place = path.split('.').fold(spec, |place, part| &mut place[part]);
            *place = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        }
    }
    Ok(())
}
