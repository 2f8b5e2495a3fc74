//! Did both subjects arrive at the same place? What is left of the cluster's state without times, names and messages
//! that may differ.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Api;

const REVISION: &str = "deployment.kubernetes.io/revision";
/// Differences are printed up to here; the count is exact.
const SHOWN: usize = 10;

/// Owners that make their pods themselves.
const OTHERS: [(&str, &str); 3] = [
    ("statefulset", "/apis/apps/v1/statefulsets"),
    ("daemonset", "/apis/apps/v1/daemonsets"),
    ("job", "/apis/batch/v1/jobs"),
];

/// Everything that must be equal, by `deployment NAMESPACE/NAME` or `replicaset NAMESPACE/DEPLOYMENT@REVISION`.
pub(crate) type EndState = BTreeMap<String, Value>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Pod {
    metadata: PodMeta,
    spec: PodSpec,
    status: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodMeta {
    owner_references: Vec<Owner>,
    deletion_timestamp: Option<Value>,
    finalizers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    uid: String,
    controller: bool,
}

/// Reads the state that is there now.
pub(crate) fn read(api: &Api) -> Result<EndState> {
    let (mut deployments, mut sets) = (Vec::new(), Vec::new());
    api.list("/apis/apps/v1/deployments", |object: Value| deployments.push(object))?;
    api.list("/apis/apps/v1/replicasets", |object: Value| sets.push(object))?;
    let mut pods: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    api.list("/api/v1/pods", |pod: Pod| {
        let owner = pod.metadata.owner_references.iter().find(|owner| owner.controller);
        let owner = owner.map(|owner| owner.uid.clone()).unwrap_or_default();
        *pods.entry(owner).or_default().entry(pod.shape()).or_default() += 1;
    })?;
    let mut state = EndState::new();
    for (kind, path) in OTHERS {
        api.list(path, |object: Value| {
            let (key, value) = other(kind, &object, &mut pods);
            state.insert(key, value);
        })?;
    }
    state.extend(normalise(&deployments, &sets, &mut pods));
    Ok(state)
}

/// An owner that makes its pods itself: its status and its pods.
fn other(kind: &str, object: &Value, pods: &mut BTreeMap<String, BTreeMap<String, u64>>) -> (String, Value) {
    let meta = &object["metadata"];
    let mut status = status(object, &[]);
    if let Some(fields) = status.as_object_mut() {
        // Names of revisions have a hash in them; what counts is whether the update is over.
        let (current, update) = (fields.remove("currentRevision"), fields.remove("updateRevision"));
        fields.insert("updated".to_owned(), json!(current == update));
        fields.retain(|name, value| !name.ends_with("Time") && *value != json!({}));
    }
    let value = json!({"status": status, "pods": pods.remove(text(&meta["uid"])).unwrap_or_default()});
    (format!("{kind} {}/{}", text(&meta["namespace"]), text(&meta["name"])), value)
}

impl Pod {
    /// What kind of pod it is, in words that are equal for equal pods.
    fn shape(&self) -> String {
        let ready = self.status["conditions"].as_array().into_iter().flatten();
        let ready = ready.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        let bound = if self.spec.node_name.is_empty() { "unbound" } else { "bound" };
        let ready = if ready { "ready" } else { "unready" };
        let life = if self.metadata.deletion_timestamp.is_some() { "terminating" } else { "active" };
        // A Job's pod must not keep its finalizer.
        let held = if self.metadata.finalizers.is_empty() { "" } else { " held" };
        let phase = match self.status["phase"].as_str() {
            Some(phase @ ("Succeeded" | "Failed")) => format!(" {phase}"),
            _ => String::new(),
        };
        format!("{life} {bound} {ready}{phase}{held}")
    }
}

fn normalise(
    deployments: &[Value],
    sets: &[Value],
    pods: &mut BTreeMap<String, BTreeMap<String, u64>>,
) -> EndState {
    let mut state = EndState::new();
    for set in sets {
        let (meta, owner) = (&set["metadata"], &set["metadata"]["ownerReferences"][0]);
        let revision = text(&meta["annotations"][REVISION]);
        let key = format!("replicaset {}/{}@{revision}", text(&meta["namespace"]), text(&owner["name"]));
        let mut annotations = meta["annotations"].clone();
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.retain(|name, _| name.starts_with("deployment.kubernetes.io/"));
        }
        let value = json!({
            "replicas": set["spec"]["replicas"],
            "annotations": annotations,
            "status": status(set, &[]),
            "pods": pods.remove(text(&meta["uid"])).unwrap_or_default(),
        });
        // Two ReplicaSets of one revision would be a fault that must not hide behind one key.
        let twin = state.insert(key.clone(), value);
        if let Some(twin) = twin {
            state.insert(format!("{key} (again)"), twin);
        }
    }
    for deployment in deployments {
        let meta = &deployment["metadata"];
        let own = |set: &&Value| set["metadata"]["ownerReferences"][0]["uid"] == meta["uid"];
        let names: Vec<&str> = sets.iter().filter(own).map(|set| text(&set["metadata"]["name"])).collect();
        let value = json!({
            "replicas": deployment["spec"]["replicas"],
            "revision": meta["annotations"][REVISION],
            "status": status(deployment, &names),
        });
        state.insert(format!("deployment {}/{}", text(&meta["namespace"]), text(&meta["name"])), value);
    }
    for (owner, shapes) in pods {
        state.insert(format!("pods without a ReplicaSet, owner {owner:?}"), json!(shapes));
    }
    state
}

/// A status without times; the generation only as "seen or not", and ReplicaSets not by name.
fn status(object: &Value, set_names: &[&str]) -> Value {
    let mut status = object["status"].clone();
    let Some(fields) = status.as_object_mut() else { return status };
    let observed = fields.remove("observedGeneration");
    fields.insert("observed".to_owned(), json!(observed.as_ref() == Some(&object["metadata"]["generation"])));
    // Upstream leaves numbers out where they are nought, and so may anyone.
    fields.retain(|_, value| *value != json!(0));
    if let Some(conditions) = fields.get_mut("conditions").and_then(Value::as_array_mut) {
        for condition in conditions.iter_mut() {
            let mut message = text(&condition["message"]).to_owned();
            for name in set_names {
                message = message.replace(name, "<replicaset>");
            }
            *condition = json!({
                "type": condition["type"], "status": condition["status"], "reason": condition["reason"],
                "message": message,
            });
        }
        conditions.sort_by(|a, b| text(&a["type"]).cmp(text(&b["type"])));
    }
    status
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Where two end states differ: how often, and the first few in words.
pub(crate) fn differences(ours: &EndState, theirs: &EndState) -> (usize, Vec<String>) {
    let mut keys: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    keys.sort();
    keys.dedup();
    let show = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
    let different: Vec<&String> = keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key)).collect();
    let shown = different.iter().take(SHOWN);
    let shown =
        shown.map(|key| format!("{key}: ours {}, kcm {}", show(ours.get(*key)), show(theirs.get(*key))));
    (different.len(), shown.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(set: &str, time: &str, ready: u64) -> EndState {
        let deployment = json!({
            "metadata": {"namespace": "a", "name": "web", "uid": "d", "generation": 2, "annotations": {REVISION: "1"}},
            "spec": {"replicas": 3},
            "status": {"observedGeneration": 2, "replicas": 3, "terminatingReplicas": 0, "conditions": [
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "lastUpdateTime": time,
                 "message": format!("ReplicaSet \"{set}\" has successfully progressed.")},
            ]},
        });
        let owner = json!([{"uid": "d", "name": "web", "controller": true}]);
        let set = json!({
            "metadata": {"namespace": "a", "name": set, "uid": "r", "generation": 1, "ownerReferences": owner,
                         "annotations": {REVISION: "1"}},
            "spec": {"replicas": 3},
            "status": {"observedGeneration": 1, "replicas": 3, "readyReplicas": ready},
        });
        let mut pods =
            BTreeMap::from([("r".to_owned(), BTreeMap::from([("active bound ready".to_owned(), 3)]))]);
        normalise(&[deployment], &[set], &mut pods)
    }

    /// Names of ReplicaSets and times are chance; a number that differs is not.
    #[test]
    fn only_what_matters_differs() {
        let (count, _) = differences(&state("web-7f", "10:00", 3), &state("web-9c", "11:00", 3));
        assert_eq!(count, 0);
        let (count, shown) = differences(&state("web-7f", "10:00", 3), &state("web-7f", "10:00", 2));
        assert_eq!(count, 1);
        assert!(
            shown[0].starts_with("replicaset a/web@1") && shown[0].contains("\"readyReplicas\":2"),
            "{shown:?}"
        );
    }

    /// A revision's name is chance, whether it is the current one is not; nor is a finalizer that was forgotten.
    #[test]
    fn owners_of_their_own_pods_are_compared() {
        let set = |current: &str, update: &str, shape: &str| {
            let status = json!({"replicas": 2, "currentRevision": current, "updateRevision": update});
            let meta = json!({"namespace": "a", "name": "db", "uid": "s", "generation": 1});
            let mut pods = BTreeMap::from([("s".to_owned(), BTreeMap::from([(shape.to_owned(), 2)]))]);
            EndState::from([other("statefulset", &json!({"metadata": meta, "status": status}), &mut pods)])
        };
        let shape = "active bound ready";
        assert_eq!(differences(&set("db-1", "db-1", shape), &set("db-x", "db-x", shape)).0, 0);
        assert_eq!(differences(&set("db-1", "db-1", shape), &set("db-x", "db-y", shape)).0, 1);
        assert_eq!(
            differences(&set("db-1", "db-1", shape), &set("db-1", "db-1", "active bound ready held")).0,
            1
        );
    }

    /// A pod that nobody owns must show.
    #[test]
    fn a_stray_pod_is_a_difference() {
        let mut pods =
            BTreeMap::from([(String::new(), BTreeMap::from([("active bound ready".to_owned(), 1)]))]);
        let with = normalise(&[], &[], &mut pods);
        assert_eq!(differences(&with, &EndState::new()).0, 1);
    }
}
