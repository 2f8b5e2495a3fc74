//! Pause, resume and restart: what becomes of a Deployment's JSON. kubectl's rules, kubectl's refusals.

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::edit::at;

const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Stops new rollouts.
pub(crate) fn pause(object: &Value) -> Result<Value> {
    if is_paused(object) {
        bail!("is already paused");
    }
    let mut changed = object.clone();
    *at(&mut changed, &["spec", "paused"]) = json!(true);
    Ok(changed)
}

/// Lets rollouts happen again.
pub(crate) fn resume(object: &Value) -> Result<Value> {
    if !is_paused(object) {
        bail!("is not paused");
    }
    let mut changed = object.clone();
    *at(&mut changed, &["spec", "paused"]) = Value::Null;
    Ok(changed)
}

/// Replaces every pod by changing an annotation of the template.
pub(crate) fn restart(object: &Value, now: Timestamp) -> Result<Value> {
    if is_paused(object) {
        bail!("can't restart paused deployment (run rollout resume first)");
    }
    let now = trysail_core::condition::whole_seconds(now).to_string();
    let mut changed = object.clone();
    let restarted_at = at(&mut changed, &["spec", "template", "metadata", "annotations", RESTARTED_AT]);
    if *restarted_at == now.as_str() {
        bail!("was restarted within this second already; wait a moment before restarting it again");
    }
    *restarted_at = now.into();
    Ok(changed)
}

/// `spec.paused`.
pub(crate) fn is_paused(object: &Value) -> bool {
    object["spec"]["paused"] == true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::merge_patch;

    fn deployment(paused: bool) -> Value {
        json!({"spec": {"paused": paused, "template": {"metadata": {"labels": {"app": "web"}}}}})
    }

    #[test]
    fn pausing_and_resuming_touch_one_field_and_refuse_what_is_already_so() {
        let running = json!({"spec": {"replicas": 1}});
        let paused = pause(&running).unwrap();
        assert_eq!(merge_patch(&running, &paused), Some(json!({"spec": {"paused": true}})));
        assert_eq!(merge_patch(&paused, &resume(&paused).unwrap()), Some(json!({"spec": {"paused": null}})));
        assert_eq!(pause(&deployment(true)).unwrap_err().to_string(), "is already paused");
        assert_eq!(resume(&deployment(false)).unwrap_err().to_string(), "is not paused");
        assert_eq!(resume(&running).unwrap_err().to_string(), "is not paused");
    }

    #[test]
    fn a_restart_is_an_annotation_of_the_template() {
        let now = "2026-03-04T05:06:07.89Z".parse().unwrap();
        let before = deployment(false);
        let restarted = restart(&before, now).unwrap();
        let patch = merge_patch(&before, &restarted).unwrap();
        assert_eq!(
            patch,
            json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: "2026-03-04T05:06:07Z"}}}}})
        );
        assert!(restart(&restarted, now).is_err(), "a second restart in one second would change nothing");
        assert!(restart(&deployment(true), now).unwrap_err().to_string().contains("resume first"));
    }
}
