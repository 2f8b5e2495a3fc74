//! What the bench sees of the pods and their owners, kept from its own watches: no subject's word is taken for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::client::Versioned;
use super::minimum::Coalesced;
use super::owners;

/// A pod, as far as it counts.
#[derive(Debug, Deserialize)]
pub(crate) struct Pod {
    metadata: PodMeta,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMeta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    #[serde(default)]
    labels: PodLabels,
    #[serde(default)]
    owner_references: Vec<Owner>,
    deletion_timestamp: Option<IgnoredAny>,
}

/// The labels that `manifests` sets.
#[derive(Debug, Default, Deserialize)]
struct PodLabels {
    app: Option<String>,
    #[serde(rename = "bench-revision")]
    revision: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    kind: String,
    uid: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Debug, Default, Deserialize)]
struct PodStatus {
    #[serde(default)]
    phase: String,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl Versioned for Pod {
    fn version(&self) -> &str {
        &self.metadata.resource_version
    }
}

/// Numbers of pods from which an owner's status follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    active: u64,
    ready: u64,
    terminating: u64,
    finished: u64,
    /// Active ones of the newest template.
    updated: u64,
}

/// A pod as it was last seen.
#[derive(Clone, Debug)]
struct Seen {
    name: String,
    namespace: String,
    /// The Deployment, or whatever else a user created.
    top: Arc<str>,
    /// The ReplicaSet between it and a Deployment, by uid.
    set: Option<Arc<str>>,
    revision: u32,
    ready: bool,
    terminating: bool,
    finished: bool,
}

#[derive(Debug, Default)]
struct Replicas {
    counts: Counts,
    status: Coalesced<Counts>,
}

#[derive(Debug, Default)]
struct Rollout {
    counts: Counts,
    active_by_revision: BTreeMap<u32, u64>,
    status: Coalesced<Counts>,
    most_active: u64,
    /// The newest generation whose status says that all is done.
    done_generation: Option<u64>,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct World {
    pods: HashMap<String, Seen>,
    replica_sets: HashMap<Arc<str>, Replicas>,
    /// Deployments, StatefulSets, DaemonSets and Jobs.
    tops: HashMap<Arc<str>, Rollout>,
    /// A DaemonSet is not done on fewer nodes.
    pub(crate) expected_nodes: u64,
}

impl World {
    /// An event of the pods' watch.
    pub(crate) fn pod(&mut self, pod: Pod, deleted: bool, now: Instant) {
        if let Some(old) = self.pods.remove(&pod.metadata.uid) {
            self.count(&old, false);
            if deleted {
                self.settle(&old, now);
            }
        }
        if deleted {
            return;
        }
        let uid = pod.metadata.uid.clone();
        if let Some(seen) = Seen::of(pod) {
            self.count(&seen, true);
            self.settle(&seen, now);
            self.pods.insert(uid, seen);
        }
    }

    /// An event of an owner's watch.
    pub(crate) fn owner(&mut self, owner: &impl owners::Owner) {
        self.tops.entry(owner.key().into()).or_default().done_generation = owner.done_generation();
    }

    /// An event of the DaemonSets' watch.
    pub(crate) fn daemon_set(&mut self, set: &owners::DaemonSet) {
        use owners::Owner as _;
        let done = set.done_generation().filter(|_| set.nodes() >= self.expected_nodes);
        self.tops.entry(set.key().into()).or_default().done_generation = done;
    }

    fn count(&mut self, pod: &Seen, add: bool) {
        let change = |number: &mut u64, yes: bool| {
            if yes {
                *number = if add { *number + 1 } else { number.saturating_sub(1) };
            }
        };
        let active = !pod.terminating && !pod.finished;
        let numbers = |counts: &mut Counts| {
            change(&mut counts.active, active);
            change(&mut counts.ready, pod.ready && active);
            change(&mut counts.terminating, pod.terminating);
            change(&mut counts.finished, pod.finished);
        };
        if let Some(set) = &pod.set {
            numbers(&mut self.replica_sets.entry(Arc::clone(set)).or_default().counts);
        }
        let rollout = self.tops.entry(Arc::clone(&pod.top)).or_default();
        numbers(&mut rollout.counts);
        change(rollout.active_by_revision.entry(pod.revision).or_default(), active);
        rollout.counts.updated = rollout.active_by_revision.last_key_value().map_or(0, |(_, count)| *count);
        rollout.most_active = rollout.most_active.max(rollout.counts.active);
    }

    fn settle(&mut self, pod: &Seen, now: Instant) {
        if let Some(set) = pod.set.as_ref().and_then(|set| self.replica_sets.get_mut(set)) {
            set.status.set(set.counts, now);
        }
        if let Some(rollout) = self.tops.get_mut(&pod.top) {
            rollout.status.set(rollout.counts, now);
        }
    }

    /// Forgets what was counted so far: a phase begins.
    pub(crate) fn begin_phase(&mut self) {
        self.take_status_writes();
        for rollout in self.tops.values_mut() {
            rollout.most_active = rollout.counts.active;
        }
    }

    /// The least number of status writes since the phase began.
    pub(crate) fn take_status_writes(&mut self) -> u64 {
        let sets = self.replica_sets.values_mut().map(|set| set.status.take()).sum::<u64>();
        sets + self.tops.values_mut().map(|rollout| rollout.status.take()).sum::<u64>()
    }

    /// By how many active pods the worst owner exceeded `limit` since the phase began.
    pub(crate) fn overshoot(&self, limit: u64) -> u64 {
        let most = self.tops.values().map(|rollout| rollout.most_active).max();
        most.unwrap_or(0).saturating_sub(limit)
    }

    /// Which of these owners have not been told done at the named generation.
    pub(crate) fn unfinished(&self, wanted: &BTreeMap<String, u64>) -> usize {
        let done = |(key, generation): &(&String, &u64)| {
            let seen = self.tops.get(key.as_str()).and_then(|rollout| rollout.done_generation);
            seen.is_some_and(|done| done >= **generation)
        };
        wanted.len() - wanted.iter().filter(done).count()
    }

    pub(crate) fn ready_pods(&self) -> usize {
        self.pods.values().filter(|pod| pod.ready && !pod.terminating).count()
    }

    /// Namespace and name of every pod, in an order that does not depend on the run.
    pub(crate) fn pod_names(&self) -> Vec<(String, String)> {
        let mut pods: Vec<_> = self.pods.values().collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        pods.into_iter().map(|pod| (pod.namespace.clone(), pod.name.clone())).collect()
    }
}

impl Seen {
    /// None for a pod that is not of the bench or has no controller.
    fn of(pod: Pod) -> Option<Self> {
        let meta = pod.metadata;
        let ready = pod.status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True");
        let owner = meta.owner_references.into_iter().find(|owner| owner.controller)?;
        Some(Self {
            top: format!("{}/{}", meta.namespace, meta.labels.app?).into(),
            set: (owner.kind == "ReplicaSet").then(|| owner.uid.into()),
            revision: meta.labels.revision?.parse().ok()?,
            name: meta.name,
            namespace: meta.namespace,
            ready,
            terminating: meta.deletion_timestamp.is_some(),
            finished: ["Succeeded", "Failed"].contains(&pod.status.phase.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::manifests;
    use serde_json::json;
    use std::time::Duration;

    fn pod(name: &str, revision: u32, ready: bool, terminating: bool) -> Pod {
        let mut object = json!({
            "metadata": {
                "name": name, "namespace": "bench-0", "uid": format!("uid-{name}"), "resourceVersion": "1",
                "labels": {manifests::APP: "web-0000", manifests::REVISION: revision.to_string()},
                "ownerReferences": [{"kind": "ReplicaSet", "uid": format!("rs-{revision}"), "controller": true}],
            },
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        if terminating {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(object).unwrap()
    }

    fn key() -> Arc<str> {
        "bench-0/web-0000".into()
    }

    /// A terminating pod no longer counts as active: replacing it is no overshoot.
    #[test]
    fn the_most_active_pods_are_remembered() {
        let (mut world, now) = (World::default(), Instant::now());
        world.pod(pod("a", 1, true, false), false, now);
        world.pod(pod("b", 1, true, false), false, now);
        world.pod(pod("a", 1, true, true), false, now);
        world.pod(pod("c", 1, true, false), false, now);
        assert_eq!((world.overshoot(2), world.overshoot(1)), (0, 1));
        world.pod(pod("c", 1, true, false), true, now);
        world.begin_phase();
        assert_eq!(world.overshoot(1), 0);
    }

    /// Pods of the newest template are what `updatedReplicas` counts, even while none of them exists any more.
    #[test]
    fn counts_follow_the_pods() {
        let (mut world, now) = (World::default(), Instant::now());
        world.pod(pod("a", 1, true, false), false, now);
        world.pod(pod("b", 2, false, false), false, now);
        let counts = |world: &World| world.tops[&key()].counts;
        assert_eq!(counts(&world), Counts { active: 2, ready: 1, updated: 1, ..Counts::default() });
        world.pod(pod("b", 2, false, false), true, now);
        world.pod(pod("a", 1, true, true), false, now);
        assert_eq!(counts(&world), Counts { terminating: 1, ..Counts::default() });
        assert_eq!(world.replica_sets["rs-1"].counts.terminating, 1);
    }

    /// A pod's update is one change, not a disappearance and a return; ReplicaSet and Deployment both write.
    #[test]
    fn status_writes_are_counted_per_owner() {
        let (mut world, start) = (World::default(), Instant::now());
        world.pod(pod("a", 1, false, false), false, start);
        world.pod(pod("a", 1, false, false), false, start + Duration::from_secs(1));
        assert_eq!(world.take_status_writes(), 2);
        world.pod(pod("a", 1, true, false), false, start + Duration::from_secs(2));
        world.pod(pod("a", 1, true, false), true, start + Duration::from_secs(3));
        assert_eq!(world.take_status_writes(), 4);
    }

    /// A Job's pod that finished is neither active nor too many, and its Job alone writes.
    #[test]
    fn a_finished_pod_of_a_job_is_counted_once() {
        let (mut world, start) = (World::default(), Instant::now());
        let mut object = pod("a", 1, false, false);
        object.metadata.owner_references[0].kind = "Job".to_owned();
        object.status.phase = "Succeeded".to_owned();
        world.pod(object, false, start);
        assert_eq!(world.tops[&key()].counts, Counts { finished: 1, ..Counts::default() });
        assert_eq!((world.overshoot(0), world.take_status_writes()), (0, 1));
    }
}
