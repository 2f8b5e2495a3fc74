//! What there is, one line an object.

use std::fmt::Write as _;

use serde_json::Value;
use trysail_core::{
    Resource,
    resource::{CONTROLLER_REVISIONS, NODES, PERSISTENT_VOLUME_CLAIMS, PODS},
};

use super::{Output, Stage};

type Line = fn(&Value) -> String;

impl Stage {
    pub(super) fn show(&self) -> String {
        let face = self.face;
        let mut text = String::new();
        let kinds: [(Resource, Line); 11] = [
            (Resource::deployments(face), replicas),
            (Resource::replica_sets(face), replicas),
            (Resource::replication_controllers(face), replicas),
            (Resource::stateful_sets(face), stateful_set),
            (Resource::daemon_sets(face), daemon_set),
            (Resource::cron_jobs(face), cron_job),
            (Resource::jobs(face), job),
            (CONTROLLER_REVISIONS, revision),
            (PERSISTENT_VOLUME_CLAIMS, claim),
            (NODES, node),
            (PODS, pod),
        ];
        for (resource, line) in kinds {
            for object in self.cluster.list(resource) {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let _ = writeln!(text, "  {resource} {name}{}", line(&object));
            }
        }
        text
    }

    /// The topology spread constraints of every pod.
    pub(super) fn spread(&self) -> String {
        let mut text = String::new();
        for pod in self.cluster.list(PODS) {
            let _ = write!(text, "  Pod {}:", pod["metadata"]["name"].as_str().unwrap_or_default());
            for constraint in pod["spec"]["topologySpreadConstraints"].as_array().into_iter().flatten() {
                let key = constraint["topologyKey"].as_str().unwrap_or_default();
                let _ = write!(text, " {key} {} {}", constraint["maxSkew"], constraint["labelSelector"]);
            }
            text.push('\n');
        }
        text
    }

    pub(super) fn status(&self, target: &str) -> Output {
        let (resource, key) = self.target(target)?;
        let object = self.cluster.get(resource, &key).ok_or_else(|| format!("no {target}"))?;
        let mut text = String::new();
        let status = object["status"].as_object().cloned().unwrap_or_default();
        for (name, value) in status.iter().filter(|(name, _)| *name != "conditions") {
            let _ = writeln!(text, "  {name}: {value}");
        }
        for condition in status.get("conditions").and_then(Value::as_array).into_iter().flatten() {
            let field = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
            let (kind, state, reason) = (field("type"), field("status"), field("reason"));
            let times = [field("lastUpdateTime"), field("lastTransitionTime")];
            let clock: Vec<&str> =
                times.iter().filter(|time| !time.is_empty()).map(|time| &time[11..19]).collect();
            let message = field("message");
            let _ = writeln!(text, "  {kind}={state} {reason}: {message} [{}]", clock.join(" "));
        }
        Ok(text)
    }
}

fn count(object: &Value, name: &str) -> i64 {
    object["status"][name].as_i64().unwrap_or(0)
}

fn image(template: &Value) -> &str {
    template["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object["status"][name].as_str().unwrap_or_default()
}

fn replicas(object: &Value) -> String {
    let count = |name| count(object, name);
    let wanted = &object["spec"]["replicas"];
    let revision = object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
    let revision = revision.map(|revision| format!(" revision {revision}")).unwrap_or_default();
    let updated = if object["kind"] == "Deployment" {
        format!(" updated {}", count("updatedReplicas"))
    } else {
        String::new()
    };
    format!(
        " {}{revision}: wants {wanted}, has {}{updated} ready {} available {} terminating {}",
        image(&object["spec"]["template"]),
        count("replicas"),
        count("readyReplicas"),
        count("availableReplicas"),
        count("terminatingReplicas"),
    )
}

fn stateful_set(object: &Value) -> String {
    let count = |name| count(object, name);
    format!(
        " {}: wants {}, has {} current {} updated {} ready {} available {} ({} -> {})",
        image(&object["spec"]["template"]),
        object["spec"]["replicas"],
        count("replicas"),
        count("currentReplicas"),
        count("updatedReplicas"),
        count("readyReplicas"),
        count("availableReplicas"),
        text(object, "currentRevision"),
        text(object, "updateRevision"),
    )
}

fn daemon_set(object: &Value) -> String {
    let count = |name| count(object, name);
    format!(
        " {}: wants {}, has {} misscheduled {} updated {} ready {} available {} unavailable {}",
        image(&object["spec"]["template"]),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberMisscheduled"),
        count("updatedNumberScheduled"),
        count("numberReady"),
        count("numberAvailable"),
        count("numberUnavailable"),
    )
}

fn cron_job(object: &Value) -> String {
    let active = object["status"]["active"].as_array().into_iter().flatten();
    let active: Vec<&str> = active.filter_map(|job| job["name"].as_str()).collect();
    let suspended = if object["spec"]["suspend"] == true { ", suspended" } else { "" };
    let moment = |name| if text(object, name).is_empty() { "never" } else { text(object, name) };
    format!(
        " {:?}: active [{}] last {} success {}{suspended}",
        object["spec"]["schedule"].as_str().unwrap_or_default(),
        active.join(" "),
        moment("lastScheduleTime"),
        moment("lastSuccessfulTime"),
    )
}

fn job(object: &Value) -> String {
    let count = |name| count(object, name);
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let held = conditions.filter(|held| held["status"] == "True").filter_map(|held| held["type"].as_str());
    let held: Vec<&str> = held.filter(|kind| !["Ready", "Reconciling", "Stalled"].contains(kind)).collect();
    let uncounted = &object["status"]["uncountedTerminatedPods"];
    let uncounted = ["succeeded", "failed"].map(|list| uncounted[list].as_array().map_or(0, Vec::len));
    let mut line = format!(
        " {}: active {} ready {} terminating {} succeeded {} failed {}",
        image(&object["spec"]["template"]),
        count("active"),
        count("ready"),
        count("terminating"),
        count("succeeded"),
        count("failed"),
    );
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(line, " {name} {value}");
        }
    };
    add("completed", text(object, "completedIndexes"));
    add("failed-indexes", text(object, "failedIndexes"));
    add("uncounted", &if uncounted == [0, 0] { String::new() } else { format!("{uncounted:?}") });
    add("is", &held.join(" "));
    line
}

fn owner(object: &Value) -> &str {
    object["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or("nobody")
}

fn terminating(object: &Value) -> &str {
    if object["metadata"]["deletionTimestamp"].is_string() { ", terminating" } else { "" }
}

fn revision(object: &Value) -> String {
    format!(" of {}: revision {}{}", owner(object), object["revision"], terminating(object))
}

fn claim(object: &Value) -> String {
    format!(" of {}: {}{}", owner(object), text(object, "phase"), terminating(object))
}

fn node(object: &Value) -> String {
    let is_ready = object["status"]["conditions"][0]["status"] == "True";
    let taints = object["spec"]["taints"].as_array().into_iter().flatten();
    let taints = taints.fold(String::new(), |mut text, taint| {
        let _ = write!(text, " {}", format!("{}:{}", taint["key"], taint["effect"]).replace('"', ""));
        text
    });
    format!(": {}{taints}", if is_ready { "Ready" } else { "silent" })
}

fn pod(pod: &Value) -> String {
    let metadata = &pod["metadata"];
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().any(|held| held["type"] == "Ready" && held["status"] == "True");
    let state = match (metadata["deletionTimestamp"].is_string(), pod["status"]["phase"].as_str(), ready) {
        (true, Some(phase @ ("Succeeded" | "Failed")), _) => format!("Terminating {phase}"),
        (true, _, _) => "Terminating".to_owned(),
        (false, Some("Running"), true) => "Ready".to_owned(),
        (false, phase, _) => phase.unwrap_or_default().to_owned(),
    };
    let held = metadata["finalizers"].as_array().into_iter().flatten();
    let held = held.filter_map(Value::as_str).fold(String::new(), |text, name| text + ", held by " + name);
    let node = pod["spec"]["nodeName"].as_str().unwrap_or("-");
    format!(" {} of {} on {node}: {state}{held}", image(pod), owner(pod))
}
