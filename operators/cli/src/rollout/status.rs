//! How far a rollout is: kubectl's sentences and kubectl's order of asking, from one reading of the object.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{daemon_set, history::running_revision, stateful_set};

/// One judgement of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// kubectl's sentence.
    pub(crate) message: String,
    pub(crate) done: bool,
    /// The controller has seen the newest spec.
    pub(crate) observed: bool,
    pub(crate) paused: bool,
    pub(crate) counts: Counts,
}

/// The numbers behind the sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) desired: i32,
    pub(crate) updated: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) old: i32,
}

#[derive(Deserialize)]
struct Deployment {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    generation: i64,
}

impl Metadata {
    /// The controller has seen the newest spec. An object that no controller has ever looked at has no status: kubectl
    /// takes its zeros for an end.
    pub(super) fn is_observed(&self, observed_generation: i64) -> bool {
        observed_generation > 0 && self.generation <= observed_generation
    }
}

/// `spec.updateStrategy.type`. Where only the user replaces pods, there is no rollout to tell of.
pub(super) fn only_rolling_updates(strategy: Option<&str>) -> Result<()> {
    match strategy {
        None | Some("RollingUpdate") => Ok(()),
        Some(_) => bail!("rollout status is only available for RollingUpdate strategy type"),
    }
}

#[derive(Deserialize, Default)]
struct Spec {
    replicas: Option<i32>,
    paused: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: i64,
    replicas: i32,
    updated_replicas: i32,
    ready_replicas: i32,
    available_replicas: i32,
    conditions: trysail_core::condition::Conditions,
}

/// Judges the rollout; an error when it cannot succeed any more.
pub(crate) fn judge(object: &Value, revision: i64) -> Result<Report> {
    match object["kind"].as_str() {
        Some(kind @ ("StatefulSet" | "DaemonSet")) if revision > 0 => {
            bail!("--revision is for Deployments: the revisions of a {kind} are no state of its rollout")
        }
        Some("StatefulSet") => stateful_set::judge(object),
        Some("DaemonSet") => daemon_set::judge(object),
        _ => deployment(object, revision),
    }
}

fn deployment(object: &Value, revision: i64) -> Result<Report> {
    let deployment = Deployment::deserialize(object).context("the server sent an unreadable Deployment")?;
    let running = running_revision(object);
    if revision > 0 && revision != running {
        bail!("desired revision ({revision}) is different from the running revision ({running})");
    }
    let Deployment { metadata, spec, status } = deployment;
    let name = &metadata.name;
    let counts = Counts {
        desired: spec.replicas.unwrap_or(1),
        updated: status.updated_replicas,
        ready: status.ready_replicas,
        available: status.available_replicas,
        old: status.replicas - status.updated_replicas,
    };
    let observed = metadata.is_observed(status.observed_generation);
    let progressing = status.conditions.get("Progressing");
    if observed && progressing.is_some_and(|condition| condition.reason == "ProgressDeadlineExceeded") {
        bail!("deployment \"{name}\" exceeded its progress deadline");
    }
    let Counts { desired, updated, available, old, .. } = counts;
    let waiting = format!("Waiting for deployment \"{name}\" rollout to finish:");
    let (message, done) = if !observed {
        ("Waiting for deployment spec update to be observed...".to_owned(), false)
    } else if updated < desired {
        (format!("{waiting} {updated} out of {desired} new replicas have been updated..."), false)
    } else if old > 0 {
        (format!("{waiting} {old} old replicas are pending termination..."), false)
    } else if available < updated {
        (format!("{waiting} {available} of {updated} updated replicas are available..."), false)
    } else {
        (format!("deployment \"{name}\" successfully rolled out"), true)
    };
    Ok(Report { message, done, observed, paused: spec.paused == Some(true), counts })
}

impl Report {
    /// For machines.
    pub(crate) fn to_json(&self, object: &Value) -> Value {
        let Counts { desired, updated, ready, available, old } = self.counts;
        let revision = match &object["status"]["updateRevision"] {
            Value::Null => running_revision(object).into(),
            name => name.clone(),
        };
        json!({
            "apiVersion": object["apiVersion"],
            "kind": object["kind"],
            "namespace": object["metadata"]["namespace"],
            "name": object["metadata"]["name"],
            "revision": revision,
            "done": self.done,
            "observed": self.observed,
            "paused": self.paused,
            "message": self.message,
            "replicas": {"desired": desired, "updated": updated, "ready": ready, "available": available, "old": old},
        })
    }

    /// One line that is drawn over itself while a person watches.
    pub(crate) fn live(&self, name: &str, elapsed: Duration) -> String {
        const WIDTH: i32 = 20;
        let Counts { desired, updated, available, old, .. } = self.counts;
        let share = |count: i32| count.clamp(0, desired) * WIDTH / desired.max(1);
        // A pod counts in full once it is of the new template and available.
        let (full, begun) = (share(available.min(updated)), share(updated));
        let bar: String = (0..WIDTH)
            .map(|at| match at {
                at if at < full => '█',
                at if at < begun => '▒',
                _ => '·',
            })
            .collect();
        let old = if old > 0 { format!(", {old} old") } else { String::new() };
        let seconds = elapsed.as_secs();
        format!("{name} {bar} {updated}/{desired} updated, {available} available{old}  {seconds}s")
    }
}

/// What a person should know when nothing has moved for a while.
pub(crate) fn hint(report: &Report, printed: &str, native: bool) -> Option<String> {
    if !report.observed {
        let who = if native {
            "kube-controller-manager (or trysail-manager --api native)"
        } else {
            "trysail-manager"
        };
        return Some(format!(
            "note: no controller has acted on the last change of {printed}; is {who} running?"
        ));
    }
    report.paused.then(|| format!("note: {printed} is paused; 'rollout resume' lets the rollout go on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(generation: i64, status: &Value) -> Value {
        json!({"metadata": {"name": "web", "generation": generation,
                "annotations": {"deployment.kubernetes.io/revision": "4"}},
            "spec": {"replicas": 5}, "status": status})
    }

    fn status(updated: i32, replicas: i32, available: i32) -> Value {
        json!({"observedGeneration": 2, "updatedReplicas": updated, "replicas": replicas,
            "readyReplicas": available, "availableReplicas": available, "conditions": null})
    }

    #[test]
    fn the_sentences_are_kubectls() {
        let rows = [
            object(1, &Value::Null)
                .as_object()
                .map(|_| json!({"metadata": {"name": "web", "generation": 1}})),
            Some(object(3, &status(5, 5, 5))),
            Some(object(2, &status(2, 6, 5))),
            Some(object(2, &status(5, 7, 5))),
            Some(object(2, &status(5, 5, 4))),
            Some(object(2, &status(5, 5, 5))),
        ];
        let said: Vec<String> = rows
            .into_iter()
            .flatten()
            .map(|object| judge(&object, 0).unwrap())
            .map(|report| format!("{} {}", report.done, report.message))
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        false Waiting for deployment spec update to be observed...
        false Waiting for deployment spec update to be observed...
        false Waiting for deployment "web" rollout to finish: 2 out of 5 new replicas have been updated...
        false Waiting for deployment "web" rollout to finish: 2 old replicas are pending termination...
        false Waiting for deployment "web" rollout to finish: 4 of 5 updated replicas are available...
        true deployment "web" successfully rolled out
        "#);
    }

    #[test]
    fn a_missed_deadline_is_an_error_once_it_concerns_the_newest_spec() {
        let mut late = status(1, 5, 4);
        late["conditions"] =
            json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        let error = judge(&object(2, &late), 0).unwrap_err();
        assert_eq!(error.to_string(), "deployment \"web\" exceeded its progress deadline");
        assert!(judge(&object(3, &late), 0).is_ok(), "the deadline was that of an older spec");
    }

    #[test]
    fn a_pinned_revision_must_be_the_running_one() {
        assert!(judge(&object(2, &status(5, 5, 5)), 4).is_ok());
        let error = judge(&object(2, &status(5, 5, 5)), 3).unwrap_err();
        assert_eq!(error.to_string(), "desired revision (3) is different from the running revision (4)");
    }

    #[test]
    fn the_live_line_shows_what_is_begun_and_what_is_done() {
        let report = judge(&object(2, &status(4, 6, 2)), 0).unwrap();
        insta::assert_snapshot!(report.live("deployment.apps/web", Duration::from_millis(12_345)),
            @"deployment.apps/web ████████▒▒▒▒▒▒▒▒···· 4/5 updated, 2 available, 2 old  12s");
        let mut huge = object(2, &status(i32::MAX, i32::MAX, 0));
        huge["spec"]["replicas"] = 0.into();
        assert!(judge(&huge, 0).unwrap().live("x", Duration::ZERO).contains("····"));
    }

    #[test]
    fn hints_tell_who_has_to_act() {
        let unseen = judge(&object(3, &status(5, 5, 5)), 0).unwrap();
        assert!(hint(&unseen, "d/web", false).unwrap().contains("is trysail-manager running?"));
        let mut paused = object(2, &status(2, 5, 5));
        paused["spec"]["paused"] = true.into();
        assert!(hint(&judge(&paused, 0).unwrap(), "d/web", false).unwrap().contains("resume"));
        assert_eq!(hint(&judge(&object(2, &status(2, 5, 5)), 0).unwrap(), "d/web", false), None);
    }
}
