//! How far the rollout of a StatefulSet is: kubectl's sentences and kubectl's order of asking.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use trysail_core::condition::Conditions;

use super::status::{Counts, Metadata, Report, only_rolling_updates};

#[derive(Deserialize)]
struct StatefulSet {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    replicas: Option<i32>,
    update_strategy: Option<UpdateStrategy>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct UpdateStrategy {
    #[serde(rename = "type")]
    kind: Option<String>,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RollingUpdate {
    partition: Option<i32>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: i64,
    replicas: i32,
    ready_replicas: i32,
    available_replicas: i32,
    current_replicas: i32,
    updated_replicas: i32,
    current_revision: String,
    update_revision: String,
    conditions: Conditions,
}

/// Judges the rollout; an error when it cannot succeed, or nobody rolls out but the user.
pub(super) fn judge(object: &Value) -> Result<Report> {
    let set = StatefulSet::deserialize(object).context("the server sent an unreadable StatefulSet")?;
    let strategy = set.spec.update_strategy.unwrap_or_default();
    only_rolling_updates(strategy.kind.as_deref())?;
    let status = set.status.unwrap_or_default();
    let observed = set.metadata.is_observed(status.observed_generation);
    // kubectl does not know these; ours says so when nothing but the user can help.
    if let Some(stalled) = status.conditions.get("Stalled").filter(|held| observed && held.status == "True") {
        bail!("statefulset \"{}\" cannot go on: {}", set.metadata.name, stalled.message);
    }
    let desired = set.spec.replicas.unwrap_or(1);
    let partition = strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or(0);
    let to_update = desired.saturating_sub(partition).max(0);
    let Status { ready_replicas: ready, updated_replicas: updated, current_replicas, .. } = status;
    let (message, done) = if !observed {
        ("Waiting for statefulset spec update to be observed...".to_owned(), false)
    } else if ready < desired {
        (format!("Waiting for {} pods to be ready...", desired - ready), false)
    } else if partition > 0 && updated < to_update {
        let message = format!(
            "Waiting for partitioned roll out to finish: {updated} out of {to_update} new pods have been updated..."
        );
        (message, false)
    } else if partition > 0 {
        (format!("partitioned roll out complete: {updated} new pods have been updated..."), true)
    } else if status.update_revision != status.current_revision {
        let revision = &status.update_revision;
        let message = format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {revision}..."
        );
        (message, false)
    } else {
        let revision = &status.current_revision;
        let message =
            format!("statefulset rolling update complete {current_replicas} pods at revision {revision}...");
        (message, true)
    };
    let counts = Counts {
        desired,
        updated,
        ready,
        available: status.available_replicas,
        old: (status.replicas - updated).max(0),
    };
    Ok(Report { message, done, observed, paused: false, counts })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(replicas: i32, partition: i32, status: &Value) -> Value {
        json!({"kind": "StatefulSet", "metadata": {"name": "db", "generation": 2}, "spec": {"replicas": replicas,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}}, "status": status})
    }

    fn status(ready: i32, updated: i32, revisions: (&str, &str)) -> Value {
        json!({"observedGeneration": 2, "replicas": ready, "readyReplicas": ready, "updatedReplicas": updated,
            "currentReplicas": ready, "currentRevision": revisions.0, "updateRevision": revisions.1})
    }

    #[test]
    fn the_sentences_are_kubectls() {
        let moving = ("db-1", "db-2");
        let rows = [
            set(3, 0, &Value::Null),
            set(3, 0, &json!({"observedGeneration": 1})),
            set(3, 0, &status(2, 1, moving)),
            set(3, 0, &status(3, 3, moving)),
            set(3, 0, &status(3, 3, ("db-2", "db-2"))),
            set(3, 2, &status(3, 0, moving)),
            set(3, 2, &status(3, 1, moving)),
            set(3, 9, &status(3, 0, moving)),
            set(0, 0, &status(0, 0, ("db-2", "db-2"))),
        ];
        let said = rows
            .iter()
            .map(|set| judge(set).unwrap())
            .map(|report| format!("{} {}", report.done, report.message));
        insta::assert_snapshot!(said.collect::<Vec<_>>().join("\n"), @r#"
        false Waiting for statefulset spec update to be observed...
        false Waiting for statefulset spec update to be observed...
        false Waiting for 1 pods to be ready...
        false waiting for statefulset rolling update to complete 3 pods at revision db-2...
        true statefulset rolling update complete 3 pods at revision db-2...
        false Waiting for partitioned roll out to finish: 0 out of 1 new pods have been updated...
        true partitioned roll out complete: 1 new pods have been updated...
        true partitioned roll out complete: 0 new pods have been updated...
        true statefulset rolling update complete 0 pods at revision db-2...
        "#);
    }

    #[test]
    fn what_cannot_end_is_an_error() {
        let on_delete = json!({"kind": "StatefulSet", "metadata": {"name": "db"},
            "spec": {"updateStrategy": {"type": "OnDelete"}}});
        let error = judge(&on_delete).unwrap_err().to_string();
        assert_eq!(error, "rollout status is only available for RollingUpdate strategy type");
        let mut stalled = status(1, 1, ("db-2", "db-2"));
        stalled["conditions"] =
            json!([{"type": "Stalled", "status": "True", "message": "pod db-0 is not ours"}]);
        let error = judge(&set(3, 0, &stalled)).unwrap_err().to_string();
        assert_eq!(error, "statefulset \"db\" cannot go on: pod db-0 is not ours");
    }
}
