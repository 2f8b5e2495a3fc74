//! Nodes: they join, are cordoned and tainted, go down and come back, and leave.

use serde_json::{Value, json};
use trysail_core::{
    Key, Uid,
    condition::whole_seconds,
    resource::{NODES, PODS},
};

use super::{
    super::{ApiError, Cluster, Writer},
    kubelet::is_ready,
    scheduler::{taints, tolerates},
};

/// What the node lifecycle controller puts on a node whose kubelet is silent.
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Ticks after which pods of a node that is gone are removed.
const GONE_AFTER: u32 = 2;

fn node_key(name: &str) -> Key {
    Key::new("", name)
}

impl Cluster {
    /// A node joins, ready.
    pub fn add_node(&mut self, name: &str, labels: &Value) -> Result<(), ApiError> {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {},
        });
        self.kubelet.down.remove(name);
        self.create(NODES, node, Writer::Other)?;
        self.edit_node(name, |_, _| {});
        Ok(())
    }

    /// A node leaves: its pods stay until somebody finds that it is gone.
    pub fn remove_node(&mut self, name: &str) {
        self.commit(NODES, &node_key(name), None, Writer::Other);
    }

    /// Its kubelet is silent: the node gets its taints, and the pods on it count as not ready.
    pub fn node_down(&mut self, name: &str) {
        self.kubelet.down.insert(name.to_owned());
        self.edit_node(name, |_, _| {});
        for pod in self.list(PODS) {
            if pod["spec"]["nodeName"] == name && is_ready(&pod) {
                let mut pod = (*pod).clone();
                self.set_condition(&mut pod, "Ready", false, "");
                self.overwrite(PODS, pod);
            }
        }
    }

    /// Its kubelet is back.
    pub fn node_up(&mut self, name: &str) {
        self.kubelet.down.remove(name);
        self.edit_node(name, |_, _| {});
    }

    /// No new pods, or again.
    pub fn cordon(&mut self, name: &str, is_cordoned: bool) {
        self.edit_node(name, |node, taints| {
            node["spec"]["unschedulable"] = if is_cordoned { json!(true) } else { Value::Null };
            taints.retain(|taint| taint["key"] != "node.kubernetes.io/unschedulable");
            if is_cordoned {
                taints.push(json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}));
            }
        });
    }

    /// Puts a taint on a node, or takes those of that key off without an effect.
    pub fn taint(&mut self, name: &str, key: &str, value: &str, effect: Option<&str>) {
        self.edit_node(name, |_, taints| {
            taints.retain(|taint| taint["key"] != key);
            taints.extend(effect.map(|effect| json!({"key": key, "value": value, "effect": effect})));
        });
    }

    /// Sets or, with null, removes a label.
    pub fn label_node(&mut self, name: &str, key: &str, value: &Value) {
        self.edit_node(name, |node, _| {
            if value.is_null() {
                node["metadata"]["labels"].as_object_mut().map(|labels| labels.remove(key));
            } else {
                node["metadata"]["labels"][key] = value.clone();
            }
        });
    }

    /// One write: the change, and what follows from whether its kubelet is there.
    fn edit_node(&mut self, name: &str, change: impl FnOnce(&mut Value, &mut Vec<Value>)) {
        let Some(held) = self.get(NODES, &node_key(name)) else { return };
        let mut node = (*held).clone();
        let is_down = self.kubelet.down.contains(name);
        let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.retain(|taint| taint["key"] != UNREACHABLE);
        change(&mut node, &mut taints);
        if is_down {
            let unreachable = |effect| json!({"key": UNREACHABLE, "effect": effect});
            taints.extend(["NoSchedule", "NoExecute"].map(unreachable));
        }
        node["spec"]["taints"] = taints.into();
        let status = if is_down { "Unknown" } else { "True" };
        if node["status"]["conditions"][0]["status"] != status {
            let since = whole_seconds(self.now);
            node["status"]["conditions"] =
                json!([{"type": "Ready", "status": status, "lastTransitionTime": since}]);
        }
        if node != *held {
            self.overwrite(NODES, node);
        }
    }

    /// Pods leave nodes that do not want them, and those of nodes that are gone are removed.
    pub(super) fn nodes_step(&mut self) {
        if !self.has_nodes() {
            return;
        }
        for pod in self.list(PODS) {
            let Some(name) = pod["spec"]["nodeName"].as_str() else { continue };
            let limit = match self.get(NODES, &node_key(name)) {
                None => Some(GONE_AFTER),
                Some(node) => self.patience(&pod, &node),
            };
            let uid = Self::uid_of(&pod);
            let Some(limit) = limit else {
                self.kubelet.stranded.remove(&uid);
                continue;
            };
            let ticks = self.kubelet.stranded.entry(uid.clone()).or_insert(0);
            *ticks += 1;
            if *ticks > limit {
                self.put_out(&pod, &uid);
            }
        }
    }

    /// After how many ticks the pod has to leave the node; `None` when it may stay.
    fn patience(&self, pod: &Value, node: &Value) -> Option<u32> {
        let taints = taints(node);
        let mut hostile =
            taints.iter().filter(|taint| taint["effect"] == "NoExecute" && !tolerates(pod, taint));
        // Admission gives every pod some minutes for a node that is down, none for other taints.
        let patience = |taint: &Value| if taint["key"] == UNREACHABLE { self.kubelet.evict_after } else { 0 };
        hostile.next().map(|first| hostile.map(patience).fold(patience(first), u32::min))
    }

    fn put_out(&mut self, pod: &Value, uid: &Uid) {
        let key = super::key_of(pod);
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if self.get(NODES, &node_key(node)).is_some() {
            if pod["metadata"]["deletionTimestamp"].is_null() {
                let _ = self.delete(PODS, &key, Some(uid), Writer::Other);
            }
            return;
        }
        let is_finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if !is_finished {
            let mut last = pod.clone();
            last["status"]["phase"] = "Failed".into();
            self.set_condition(&mut last, "Ready", false, "");
            self.set_condition(&mut last, "DisruptionTarget", true, "DeletionByPodGC");
            self.overwrite(PODS, last);
        }
        self.delete_by_force(&key);
    }
}
