//! Why single pods do not serve: what the scheduler, the kubelet and the containers say.

use anyhow::Result;
use serde_json::Value;
use trysail_core::{Uid, resource::PODS};

use crate::cluster::Cluster;

/// A pod that is not ready, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Troubled {
    pub(super) name: String,
    pub(super) reasons: Vec<String>,
}

/// The pods of those owners that are not ready.
pub(super) async fn troubled(cluster: &Cluster, owners: &[Uid]) -> Result<Vec<Troubled>> {
    let owned = |pod: &Value| {
        let references = pod["metadata"]["ownerReferences"].as_array();
        references.into_iter().flatten().any(|reference| {
            reference["controller"] == true
                && reference["uid"].as_str().is_some_and(|uid| owners.contains(&Uid::from(uid)))
        })
    };
    let pods = cluster.list(PODS, "").await?;
    Ok(pods.iter().filter(|pod| owned(pod)).filter_map(judge).collect())
}

/// `None` for a pod that is ready and stays.
fn judge(pod: &Value) -> Option<Troubled> {
    let name = pod["metadata"]["name"].as_str()?.to_owned();
    let status = &pod["status"];
    let mut reasons = Vec::new();
    if let Some(since) = pod["metadata"]["deletionTimestamp"].as_str() {
        let held = pod["metadata"]["finalizers"].as_array().filter(|finalizers| !finalizers.is_empty());
        let held = held.map_or(String::new(), |finalizers| {
            let names: Vec<_> = finalizers.iter().filter_map(Value::as_str).collect();
            format!(", held by the finalizer {}", names.join(", "))
        });
        reasons.push(format!("terminating, due to end by {since}{held}"));
    } else if is(status, "Ready", "True") {
        return None;
    }
    if let Some(reason) = status["reason"].as_str() {
        reasons.push(sentence(reason, &status["message"]));
    }
    for kind in ["PodScheduled", "PodReadyToStartContainers"] {
        if let Some(condition) = condition(status, kind).filter(|condition| condition["status"] == "False")
            && let Some(reason) = condition["reason"].as_str()
        {
            reasons.push(sentence(reason, &condition["message"]));
        }
    }
    for list in ["initContainerStatuses", "containerStatuses"] {
        reasons.extend(status[list].as_array().into_iter().flatten().filter_map(container));
    }
    if reasons.is_empty() && pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
        reasons.push("not scheduled yet: no scheduler has taken it up".to_owned());
    }
    if reasons.is_empty() {
        let said = condition(status, "Ready").and_then(|condition| condition["message"].as_str());
        let phase = status["phase"].as_str().unwrap_or("Pending");
        reasons.push(
            said.filter(|said| !said.is_empty()).map_or_else(|| format!("{phase}, not ready"), str::to_owned),
        );
    }
    Some(Troubled { name, reasons })
}

/// What keeps one container from running or serving.
fn container(status: &Value) -> Option<String> {
    let name = status["name"].as_str().unwrap_or_default();
    let restarts = status["restartCount"].as_i64().filter(|restarts| *restarts > 0);
    let restarts = restarts.map_or(String::new(), |restarts| format!(" ({restarts} restarts)"));
    let said = |state: &Value| sentence(state["reason"].as_str().unwrap_or("waiting"), &state["message"]);
    let state = &status["state"];
    if state["waiting"].is_object() {
        let last = &status["lastState"]["terminated"];
        let last = if last.is_object() {
            format!("; its last run ended with {}", ended(last))
        } else {
            String::new()
        };
        return Some(format!("container {name}: {}{last}{restarts}", said(&state["waiting"])));
    }
    // An init container that ended well has done its work.
    if state["terminated"].is_object() && state["terminated"]["exitCode"] != 0 {
        return Some(format!("container {name}: ended with {}{restarts}", ended(&state["terminated"])));
    }
    let unready = state["running"].is_object() && status["ready"] == false;
    unready.then(|| format!("container {name}: running, not ready{restarts}"))
}

fn ended(state: &Value) -> String {
    let code = state["exitCode"].as_i64().unwrap_or(0);
    let reason = state["reason"].as_str().filter(|reason| *reason != "Error");
    reason.map_or_else(|| format!("exit code {code}"), |reason| format!("{reason}, exit code {code}"))
}

fn sentence(reason: &str, message: &Value) -> String {
    match message.as_str().map(str::trim).filter(|message| !message.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn is(status: &Value, kind: &str, value: &str) -> bool {
    condition(status, kind).is_some_and(|condition| condition["status"] == value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(status: &Value) -> String {
        judge(&json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": status}))
            .map_or("fine".to_owned(), |pod| pod.reasons.join(" | "))
    }

    #[test]
    fn each_trouble_is_told_by_its_cause() {
        let not_ready = json!([{"type": "Ready", "status": "False"}]);
        let statuses = [
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}]}),
            json!({"phase": "Pending", "conditions": not_ready, "containerStatuses": [{"name": "web",
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\""}}}]}),
            json!({"phase": "Running", "conditions": not_ready, "containerStatuses": [
                {"name": "web", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
                {"name": "side", "ready": false, "state": {"running": {}}}]}),
            json!({"phase": "Pending", "conditions": not_ready,
                "initContainerStatuses": [{"name": "done", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "init", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]}),
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
            json!({}),
        ];
        insta::assert_snapshot!(statuses.iter().map(said).collect::<Vec<_>>().join("\n"), @r#"
        fine
        Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.
        container web: ImagePullBackOff: Back-off pulling image "x"
        container web: CrashLoopBackOff; its last run ended with OOMKilled, exit code 137 (4 restarts) | container side: running, not ready
        container init: ended with exit code 2
        Evicted: The node was low on resource: memory.
        Pending, not ready
        "#);
    }

    #[test]
    fn a_pod_without_a_node_waits_for_a_scheduler() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"phase": "Pending"}});
        assert_eq!(judge(&pod).unwrap().reasons, ["not scheduled yet: no scheduler has taken it up"]);
    }

    #[test]
    fn a_terminating_pod_tells_what_holds_it() {
        let pod = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:30Z",
            "finalizers": ["example.com/hold"]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(
            judge(&pod).unwrap().reasons,
            ["terminating, due to end by 2026-01-01T00:00:30Z, held by the finalizer example.com/hold"]
        );
    }
}
