//! Kubelets: pods start, get ready, finish, and end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use trysail_core::{Key, Uid, condition::whole_seconds, resource::PODS};

use super::super::{
    Cluster,
    api::{finalizers, key_of},
};

/// SIGTERM, as a shell tells it.
const TERMINATED: i64 = 143;

/// How containers of an image end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Ticks between running and the end.
    pub after: u32,
    /// 0 is a success.
    pub code: i64,
}

/// How pods behave.
#[derive(Clone, Debug)]
pub struct Kubelet {
    /// Nodes that pods are spread over, while the cluster has had no Node object.
    pub nodes: usize,
    /// Ticks between running and ready; `None` leaves readiness to [`Cluster::make_ready`].
    pub ready_after: Option<u32>,
    /// Ticks that a terminating pod lives on.
    pub terminate_after: u32,
    /// Images whose pods never become ready.
    pub broken_images: BTreeSet<String>,
    /// Images whose containers end by themselves.
    pub exits: BTreeMap<String, Exit>,
    /// Ticks after which pods leave a node that is down.
    pub evict_after: u32,
    /// Nodes whose kubelet is not there.
    pub(super) down: BTreeSet<String>,
    /// How long each pod has been away from home: its node is gone, or does not want it.
    pub(super) stranded: BTreeMap<Uid, u32>,
    ages: BTreeMap<Uid, u32>,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            nodes: 3,
            ready_after: Some(1),
            terminate_after: 1,
            broken_images: BTreeSet::new(),
            exits: BTreeMap::new(),
            evict_after: 5,
            down: BTreeSet::new(),
            stranded: BTreeMap::new(),
            ages: BTreeMap::new(),
        }
    }
}

impl Kubelet {
    pub(super) fn forget_all_but(&mut self, living: &BTreeSet<Uid>) {
        self.ages.retain(|uid, _| living.contains(uid));
        self.stranded.retain(|uid, _| living.contains(uid));
    }
}

impl Cluster {
    pub(super) fn pod_step(&mut self, pod: &Value) {
        let node = pod["spec"]["nodeName"].as_str();
        if node.is_some_and(|node| self.kubelet.down.contains(node)) {
            return;
        }
        let age = self.kubelet.ages.entry(Self::uid_of(pod)).or_insert(0);
        *age += 1;
        let age = *age;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if pod["metadata"]["deletionTimestamp"].is_string() {
            self.terminate(pod, age);
        } else if node.is_none() {
            if let Some(node) = self.schedule(pod) {
                let mut pod = pod.clone();
                pod["spec"]["nodeName"] = node.into();
                self.kubelet.ages.insert(Self::uid_of(&pod), 0);
                self.overwrite(PODS, pod);
            }
        } else if phase == "Pending" {
            let mut pod = pod.clone();
            pod["status"]["phase"] = "Running".into();
            pod["status"]["startTime"] = json!(whole_seconds(self.now));
            self.overwrite(PODS, pod);
        } else if phase == "Running" {
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
            let exit = self.kubelet.exits.get(image).copied();
            // Scheduling and starting took a tick each.
            if let Some(exit) = exit.filter(|exit| age > exit.after) {
                self.exit(&key_of(pod), exit.code);
            } else if !is_ready(pod)
                && self.kubelet.ready_after.is_some_and(|after| age > after)
                && !self.kubelet.broken_images.contains(image)
            {
                self.set_ready(pod, true);
            }
        }
    }

    fn terminate(&mut self, pod: &Value, age: u32) {
        let uid = Self::uid_of(pod);
        let mark = u32::MAX / 2;
        if age < mark {
            // The first step that sees the pod terminating starts its countdown.
            self.kubelet.ages.insert(uid, mark);
        } else if age - mark >= self.kubelet.terminate_after {
            let mut last = pod.clone();
            last["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            let is_finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            if !is_finished && !finalizers(pod).is_empty() {
                last["status"]["phase"] = "Failed".into();
                self.end_containers(&mut last, TERMINATED);
            }
            if last != *pod || finalizers(pod).is_empty() {
                self.overwrite(PODS, last);
            }
        }
    }

    fn set_ready(&mut self, pod: &Value, ready: bool) {
        let mut pod = pod.clone();
        pod["status"]["phase"] = "Running".into();
        self.set_condition(&mut pod, "Ready", ready, "");
        self.overwrite(PODS, pod);
    }

    pub(super) fn set_condition(&self, pod: &mut Value, kind: &str, is_true: bool, reason: &str) {
        let status = if is_true { "True" } else { "False" };
        let mut condition =
            json!({"type": kind, "status": status, "lastTransitionTime": whole_seconds(self.now)});
        if !reason.is_empty() {
            condition["reason"] = reason.into();
        }
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|held| held["type"] != kind);
        conditions.insert(0, condition);
        pod["status"]["conditions"] = conditions.into();
    }

    /// Makes a pod ready, or unready again; scheduled it has to be.
    pub fn make_ready(&mut self, key: &Key, ready: bool) {
        let Some(pod) = self.get(PODS, key) else { return };
        let mut pod = (*pod).clone();
        if !pod["spec"]["nodeName"].is_string() {
            pod["spec"]["nodeName"] = "node-0".into();
        }
        if is_ready(&pod) != ready {
            self.set_ready(&pod, ready);
        }
    }

    /// Ends a pod: `Failed` or `Succeeded`.
    pub fn finish(&mut self, key: &Key, phase: &str) {
        let Some(pod) = self.get(PODS, key) else { return };
        let mut pod = (*pod).clone();
        pod["status"] = json!({"phase": phase});
        self.overwrite(PODS, pod);
    }

    /// The containers of a pod end with this code: the pod finishes, or starts them again, as its restart policy
    /// has it.
    pub fn exit(&mut self, key: &Key, code: i64) {
        let Some(pod) = self.get(PODS, key) else { return };
        if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
            return;
        }
        let mut pod = (*pod).clone();
        let restarts = match pod["spec"]["restartPolicy"].as_str() {
            Some("Never") => false,
            Some("OnFailure") => code != 0,
            _ => true,
        };
        if restarts {
            let count = pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0) + 1;
            let names = container_names(&pod);
            let statuses: Vec<Value> = names
                .map(|name| json!({"name": name, "restartCount": count, "state": {"running": {}}}))
                .collect();
            pod["status"]["containerStatuses"] = statuses.into();
            self.kubelet.ages.insert(Self::uid_of(&pod), 0);
        } else {
            pod["status"]["phase"] = if code == 0 { "Succeeded" } else { "Failed" }.into();
            self.end_containers(&mut pod, code);
        }
        self.overwrite(PODS, pod);
    }

    fn end_containers(&self, pod: &mut Value, code: i64) {
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0);
        let reason = if code == 0 { "Completed" } else { "Error" };
        let ended = json!({"exitCode": code, "reason": reason, "finishedAt": whole_seconds(self.now)});
        let statuses: Vec<Value> = container_names(pod)
            .map(|name| json!({"name": name, "restartCount": restarts, "state": {"terminated": ended}}))
            .collect();
        pod["status"]["containerStatuses"] = statuses.into();
        self.set_condition(pod, "Ready", false, if code == 0 { "PodCompleted" } else { "PodFailed" });
    }

    /// The node is short of something and puts the pod out: it fails, as a disruption.
    pub fn evict(&mut self, key: &Key) {
        let Some(pod) = self.get(PODS, key) else { return };
        if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
            return;
        }
        let mut pod = (*pod).clone();
        pod["status"]["phase"] = "Failed".into();
        pod["status"]["reason"] = "Evicted".into();
        self.end_containers(&mut pod, TERMINATED);
        self.set_condition(&mut pod, "DisruptionTarget", true, "TerminationByKubelet");
        self.overwrite(PODS, pod);
    }

    /// Removes a pod without waiting for anybody but its finalizers: `kubectl delete --force`.
    pub fn delete_by_force(&mut self, key: &Key) {
        let Some(held) = self.get(PODS, key) else { return };
        let mut pod = (*held).clone();
        if pod["metadata"]["deletionTimestamp"].is_null() {
            pod["metadata"]["deletionTimestamp"] = json!(whole_seconds(self.now));
        }
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        if pod != *held || finalizers(&pod).is_empty() {
            self.overwrite(PODS, pod);
        }
    }
}

fn container_names(pod: &Value) -> impl Iterator<Item = Value> + use<> {
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    containers.into_iter().map(|container| container["name"].clone())
}

pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|held| held["type"] == "Ready" && held["status"] == "True"))
}
