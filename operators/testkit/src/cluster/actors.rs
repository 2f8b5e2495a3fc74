//! Scheduler, kubelets and garbage collector: one step of each per tick.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use trysail_core::{Face, Key, Resource, Uid, condition::whole_seconds, resource::PODS};

use super::{Cluster, Writer};

/// How pods behave.
#[derive(Clone, Debug)]
pub struct Kubelet {
    /// Nodes that pods are spread over.
    pub nodes: usize,
    /// Ticks between running and ready; `None` leaves readiness to [`Cluster::make_ready`].
    pub ready_after: Option<u32>,
    /// Ticks that a terminating pod lives on.
    pub terminate_after: u32,
    /// Images whose pods never become ready.
    pub broken_images: BTreeSet<String>,
    ages: BTreeMap<Uid, u32>,
}

impl Default for Kubelet {
    fn default() -> Self {
        Self {
            nodes: 3,
            ready_after: Some(1),
            terminate_after: 1,
            broken_images: BTreeSet::new(),
            ages: BTreeMap::new(),
        }
    }
}

impl Cluster {
    /// One step of every actor.
    pub fn actors(&mut self) {
        self.collect_garbage();
        for pod in self.list(PODS) {
            self.pod_step(&pod);
        }
        let living: BTreeSet<Uid> = self.list(PODS).iter().map(|pod| Self::uid_of(pod)).collect();
        self.kubelet.ages.retain(|uid, _| living.contains(uid));
    }

    fn pod_step(&mut self, pod: &Value) {
        let age = self.kubelet.ages.entry(Self::uid_of(pod)).or_insert(0);
        *age += 1;
        let age = *age;
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if pod["metadata"]["deletionTimestamp"].is_string() {
            self.terminate(pod, age);
        } else if !pod["spec"]["nodeName"].is_string() {
            let mut pod = pod.clone();
            let node = self.revision() as usize % self.kubelet.nodes.max(1);
            pod["spec"]["nodeName"] = format!("node-{node}").into();
            self.kubelet.ages.insert(Self::uid_of(&pod), 0);
            self.overwrite(PODS, pod);
        } else if phase == "Pending" {
            let mut pod = pod.clone();
            pod["status"]["phase"] = "Running".into();
            self.overwrite(PODS, pod);
        } else if phase == "Running" && !is_ready(pod) && self.gets_ready(pod, age) {
            self.set_ready(pod, true);
        }
    }

    fn gets_ready(&self, pod: &Value, age: u32) -> bool {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        // Scheduling and starting took a tick each.
        self.kubelet.ready_after.is_some_and(|after| age > after)
            && !self.kubelet.broken_images.contains(image)
    }

    fn terminate(&mut self, pod: &Value, age: u32) {
        let uid = Self::uid_of(pod);
        let mark = u32::MAX / 2;
        if age < mark {
            // The first step that sees the pod terminating starts its countdown.
            self.kubelet.ages.insert(uid, mark);
        } else if age - mark >= self.kubelet.terminate_after {
            let mut last = pod.clone();
            let key = key_of(&last);
            let is_held = last["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
            if is_held {
                last["status"]["phase"] = "Failed".into();
                if last != *pod {
                    self.overwrite(PODS, last);
                }
            } else {
                self.commit(PODS, &key, None, Writer::Other);
            }
        }
    }

    fn set_ready(&mut self, pod: &Value, ready: bool) {
        let mut pod = pod.clone();
        let status = if ready { "True" } else { "False" };
        pod["status"]["phase"] = "Running".into();
        pod["status"]["conditions"] =
            json!([{"type": "Ready", "status": status, "lastTransitionTime": whole_seconds(self.now)}]);
        self.overwrite(PODS, pod);
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

    /// Deletes what only gone owners own.
    fn collect_garbage(&mut self) {
        let uids: BTreeSet<Uid> = self.objects.values().map(|object| Self::uid_of(object)).collect();
        let orphaned = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| {
                let gone =
                    |owner: &Value| !uids.contains(&Uid::from(owner["uid"].as_str().unwrap_or_default()));
                !owners.is_empty() && owners.iter().all(gone)
            })
        };
        let found = self.objects.iter().filter(|(_, object)| orphaned(object));
        let garbage: Vec<(Resource, Key)> = found.map(|(id, _)| id.clone()).collect();
        for (resource, key) in garbage {
            // A denial by policy leaves it for the next step.
            let _ = self.delete(resource, &key, None, Writer::Other);
        }
    }

    /// Deletes an object and leaves its dependents without an owner.
    pub fn delete_and_orphan(&mut self, resource: Resource, key: &Key) {
        let Some(owner) = self.get(resource, key) else { return };
        let uid = owner["metadata"]["uid"].clone();
        self.commit(resource, key, None, Writer::Other);
        let dependents: Vec<(Resource, Value)> =
            self.objects.iter().map(|((resource, _), object)| (*resource, (**object).clone())).collect();
        for (resource, mut object) in dependents {
            let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() else { continue };
            let before = owners.len();
            owners.retain(|owner| owner["uid"] != uid);
            if owners.len() != before {
                self.overwrite(resource, object);
            }
        }
    }

    /// The Deployments and ReplicaSets of a face.
    pub fn resources(face: Face) -> [Resource; 3] {
        [Resource::deployments(face), Resource::replica_sets(face), Resource::replication_controllers(face)]
    }
}

fn key_of(object: &Value) -> Key {
    let metadata = &object["metadata"];
    Key::new(
        metadata["namespace"].as_str().unwrap_or_default(),
        metadata["name"].as_str().unwrap_or_default(),
    )
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|held| held["type"] == "Ready" && held["status"] == "True"))
}
