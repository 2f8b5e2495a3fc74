//! How far the rollout of a DaemonSet is: kubectl's sentences and kubectl's order of asking.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use super::status::{Counts, Metadata, Report, only_rolling_updates};

#[derive(Deserialize)]
struct DaemonSet {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    update_strategy: Option<UpdateStrategy>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UpdateStrategy {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: i64,
    desired_number_scheduled: i32,
    current_number_scheduled: i32,
    updated_number_scheduled: i32,
    number_ready: i32,
    number_available: i32,
}

/// Judges the rollout; an error when nobody rolls out but the user.
pub(super) fn judge(object: &Value) -> Result<Report> {
    let set = DaemonSet::deserialize(object).context("the server sent an unreadable DaemonSet")?;
    let strategy = set.spec.update_strategy.unwrap_or_default();
    only_rolling_updates(strategy.kind.as_deref())?;
    let name = &set.metadata.name;
    let status = set.status.unwrap_or_default();
    let Status { desired_number_scheduled: desired, updated_number_scheduled: updated, .. } = status;
    let available = status.number_available;
    let observed = set.metadata.is_observed(status.observed_generation);
    let (message, done) = if !observed {
        ("Waiting for daemon set spec update to be observed...".to_owned(), false)
    } else if updated < desired {
        let progress = format!("{updated} out of {desired} new pods have been updated");
        (format!("Waiting for daemon set \"{name}\" rollout to finish: {progress}..."), false)
    } else if available < desired {
        let progress = format!("{available} of {desired} updated pods are available");
        (format!("Waiting for daemon set \"{name}\" rollout to finish: {progress}..."), false)
    } else {
        (format!("daemon set \"{name}\" successfully rolled out"), true)
    };
    let old = status.current_number_scheduled.saturating_sub(updated).max(0);
    let counts = Counts { desired, updated, ready: status.number_ready, available, old };
    Ok(Report { message, done, observed, paused: false, counts })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(desired: i32, updated: i32, available: i32) -> Value {
        json!({"kind": "DaemonSet", "metadata": {"name": "agent", "generation": 2},
            "spec": {"updateStrategy": {"type": "RollingUpdate"}},
            "status": {"observedGeneration": 2, "desiredNumberScheduled": desired, "currentNumberScheduled": desired,
                "updatedNumberScheduled": updated, "numberReady": available, "numberAvailable": available}})
    }

    #[test]
    fn the_sentences_are_kubectls() {
        let mut unseen = set(3, 3, 3);
        unseen["metadata"]["generation"] = 3.into();
        let mut new = set(0, 0, 0);
        new["status"] = Value::Null;
        let rows = [new, unseen, set(3, 1, 2), set(3, 3, 2), set(3, 3, 3), set(0, 0, 0)];
        let said = rows.iter().map(|set| judge(set).unwrap());
        let said = said.map(|report| format!("{} {}", report.done, report.message));
        insta::assert_snapshot!(said.collect::<Vec<_>>().join("\n"), @r#"
        false Waiting for daemon set spec update to be observed...
        false Waiting for daemon set spec update to be observed...
        false Waiting for daemon set "agent" rollout to finish: 1 out of 3 new pods have been updated...
        false Waiting for daemon set "agent" rollout to finish: 2 of 3 updated pods are available...
        true daemon set "agent" successfully rolled out
        true daemon set "agent" successfully rolled out
        "#);
        assert_eq!(judge(&rows[2]).unwrap().counts.old, 2);
    }

    #[test]
    fn pods_that_the_user_replaces_are_no_rollout() {
        let mut by_hand = set(3, 1, 3);
        by_hand["spec"]["updateStrategy"]["type"] = "OnDelete".into();
        let error = judge(&by_hand).unwrap_err().to_string();
        assert_eq!(error, "rollout status is only available for RollingUpdate strategy type");
    }
}
