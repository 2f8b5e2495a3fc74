//! Deployments and ReplicaSets:
//!
//! - **No overshoot.** A controller creates a pod only while the pods of its Deployment that are neither finished
//!   nor terminating number fewer than `replicas + maxSurge`, and those of its ReplicaSet fewer than `replicas`.
//! - **Availability.** A controller deletes an available pod of a rolling Deployment only if
//!   `replicas − maxUnavailable` others are available. A pod that became available only after the ReplicaSet's
//!   status was written by which its size was decided does not count: nobody could know.
//! - **No overlap.** With `Recreate`, no pod is created while one of another ReplicaSet has not ended.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;
use trysail_core::{Uid, condition::whole_seconds, pod::Pod, resource::PODS};
use trysail_workloads::views::{Deployment, ReplicaSet, Strategy};

use super::{Change, Monitor, is_deletion};
use crate::cluster::{Cluster, Writer};

/// The most generous bounds since the cluster was last settled.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    max_total: i64,
    min_available: i64,
    is_recreate: bool,
}

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Rollouts {
    deployments: BTreeMap<Uid, Bounds>,
    sets: BTreeMap<Uid, i64>,
    /// When each ReplicaSet's status was last written, and when it was as its size was last reduced.
    reported: BTreeMap<Uid, Timestamp>,
    decided: BTreeMap<Uid, Timestamp>,
    found: Vec<String>,
}

impl Monitor for Rollouts {
    fn settle(&mut self) {
        self.deployments.clear();
        self.sets.clear();
    }

    fn judge(&mut self, cluster: &Cluster, change: &Change<'_>, found: &mut Vec<String>) {
        let (before, after) = (change.before, change.after);
        match change.resource.plural {
            "deployments" => {
                let values = before.into_iter().chain(after);
                // A change of scale shrinks all ReplicaSets in proportion, whatever is available.
                let is_scaled = before
                    .zip(after)
                    .is_some_and(|(before, after)| before["spec"]["replicas"] != after["spec"]["replicas"]);
                values.for_each(|value| self.remember_deployment(value, is_scaled));
            }
            "replicasets" | "replicationcontrollers" => {
                for value in before.into_iter().chain(after) {
                    self.remember_set(value);
                }
                if let (Some(before), Some(after)) = (before, after) {
                    self.remember_decision(before, after, cluster.now);
                }
            }
            "pods" if change.writer == Writer::Controller => match (before, after) {
                (None, Some(pod)) => self.created(cluster, pod),
                (Some(pod), after) if is_deletion(pod, after) => {
                    self.deleted(cluster, pod, change.is_excused);
                }
                _ => {}
            },
            _ => {}
        }
        found.append(&mut self.found);
    }
}

impl Rollouts {
    fn remember_deployment(&mut self, value: &Value, is_scaled: bool) {
        let Some(deployment) = read::<Deployment>(value) else { return };
        let mut now = bounds(&deployment);
        if is_scaled {
            now.min_available = 0;
        }
        let held = self.deployments.entry(deployment.meta.uid).or_insert(now);
        held.max_total = held.max_total.max(now.max_total);
        held.min_available = held.min_available.min(now.min_available);
        held.is_recreate &= now.is_recreate;
    }

    fn remember_set(&mut self, value: &Value) {
        let Some(set) = read::<ReplicaSet>(value) else { return };
        let held = self.sets.entry(set.meta.uid).or_insert(0);
        *held = (*held).max(i64::from(set.replicas));
    }

    fn remember_decision(&mut self, before: &Value, after: &Value, now: Timestamp) {
        let uid = Uid::from(after["metadata"]["uid"].as_str().unwrap_or_default());
        if before["status"] != after["status"] {
            self.reported.insert(uid, now);
        } else if before["spec"]["replicas"].as_i64() > after["spec"]["replicas"].as_i64() {
            let reported = self.reported.get(&uid).copied().unwrap_or(now);
            self.decided.insert(uid, reported);
        }
    }

    fn created(&mut self, cluster: &Cluster, value: &Value) {
        let Some(pod) = read::<Pod>(value) else { return };
        let family = Family::of(cluster, &pod);
        if let Some(set) = &family.set {
            let own =
                family.active.iter().filter(|other| other.meta.controller == pod.meta.controller).count();
            let allowed = self.sets.get(&set.meta.uid).copied().unwrap_or(0).max(set.replicas.into());
            if own as i64 > allowed {
                self.report(&pod, &format!("{own} pods of a ReplicaSet that wants {allowed}"));
            }
        }
        let Some(deployment) = &family.deployment else { return };
        let bounds = self.bounds(deployment);
        let total = family.active.len() as i64;
        if total > bounds.max_total {
            self.report(&pod, &format!("{total} pods where {} are allowed", bounds.max_total));
        }
        let others =
            family.running.iter().filter(|other| other.meta.controller != pod.meta.controller).count();
        if bounds.is_recreate && others > 0 {
            self.report(&pod, &format!("created beside {others} old pods"));
        }
    }

    fn deleted(&mut self, cluster: &Cluster, value: &Value, is_excused: bool) {
        let Some(pod) = read::<Pod>(value) else { return };
        let family = Family::of(cluster, &pod);
        let Some(deployment) = &family.deployment else { return };
        let bounds = self.bounds(deployment);
        let is_available = |pod: &Pod, at| pod.is_available(deployment.min_ready_seconds, at);
        let left = family.active.iter().filter(|other| is_available(other, cluster.now)).count() as i64;
        let decided = pod.meta.controller.as_ref().and_then(|set| self.decided.get(set)).copied();
        let decided = decided.unwrap_or(cluster.now);
        let was_available = is_available(&pod, decided)
            && pod.ready_since.is_some_and(|since| since < whole_seconds(decided));
        if !is_excused && was_available && left < bounds.min_available {
            self.report(&pod, &format!("{left} pods left available of {}", bounds.min_available));
        }
    }

    fn bounds(&self, deployment: &Deployment) -> Bounds {
        self.deployments.get(&deployment.meta.uid).copied().unwrap_or_else(|| bounds(deployment))
    }

    fn report(&mut self, pod: &Pod, what: &str) {
        self.found.push(format!("{}: {what}", pod.meta.key));
    }
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

fn bounds(deployment: &Deployment) -> Bounds {
    let replicas = i64::from(deployment.replicas);
    match deployment.strategy {
        Strategy::Recreate => Bounds { max_total: replicas, min_available: 0, is_recreate: true },
        Strategy::RollingUpdate { max_surge, max_unavailable } => {
            let surge = i64::from(max_surge.of_rounding_up(deployment.replicas));
            let unavailable = i64::from(max_unavailable.of_rounding_down(deployment.replicas));
            let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
            Bounds {
                max_total: replicas + surge,
                min_available: (replicas - unavailable).max(0),
                is_recreate: false,
            }
        }
    }
}

/// A pod's ReplicaSet and Deployment, and the pods that they have after the write.
struct Family {
    set: Option<ReplicaSet>,
    deployment: Option<Deployment>,
    active: Vec<Pod>,
    running: Vec<Pod>,
}

impl Family {
    fn of(cluster: &Cluster, pod: &Pod) -> Self {
        let faces = [trysail_core::Face::Crd, trysail_core::Face::Native];
        let list = |kind: usize| -> Vec<Arc<Value>> {
            faces.iter().flat_map(|face| cluster.list(Cluster::resources(*face)[kind])).collect()
        };
        let mut sets: Vec<ReplicaSet> = list(1).iter().filter_map(|value| read(value)).collect();
        sets.extend(list(2).iter().filter_map(|value| read::<ReplicaSet>(value)));
        let set = sets.iter().find(|set| Some(&set.meta.uid) == pod.meta.controller.as_ref()).cloned();
        let owner = set.as_ref().and_then(|set| set.meta.controller.clone());
        let deployments = list(0);
        let mut deployments = deployments.iter().filter_map(|value| read::<Deployment>(value));
        let deployment = owner.as_ref().and_then(|owner| deployments.find(|held| held.meta.uid == *owner));
        let is_sibling = |uid: &Uid| match &owner {
            Some(owner) => {
                sets.iter().any(|set| set.meta.uid == *uid && set.meta.controller.as_ref() == Some(owner))
            }
            None => pod.meta.controller.as_ref() == Some(uid),
        };
        let pods = cluster.list(PODS);
        let pods = pods.iter().filter_map(|value| read::<Pod>(value));
        let family: Vec<Pod> =
            pods.filter(|pod| pod.meta.controller.as_ref().is_some_and(is_sibling)).collect();
        let running: Vec<Pod> = family.into_iter().filter(|pod| !pod.is_terminal()).collect();
        let active = running.iter().filter(|pod| pod.is_active()).cloned().collect();
        Self { set, deployment, active, running }
    }
}
