//! Scheduler, kubelets, node lifecycle and garbage collector: one step of each per tick.

mod collector;
mod kubelet;
mod nodes;
mod scheduler;

use std::collections::BTreeSet;

use trysail_core::{Face, Resource, Uid, resource::PODS};

pub use kubelet::{Exit, Kubelet};

use super::{Cluster, api::key_of};

/// Holds a claim while a pod uses it.
pub(super) const PVC_PROTECTION: &str = "kubernetes.io/pvc-protection";

impl Cluster {
    /// One step of every actor.
    pub fn actors(&mut self) {
        self.collect_garbage();
        self.claims_step();
        self.nodes_step();
        for pod in self.list(PODS) {
            // What an earlier step of this tick changed waits for the next one.
            if self.get(PODS, &key_of(&pod)).as_ref() == Some(&pod) {
                self.pod_step(&pod);
            }
        }
        let living: BTreeSet<Uid> = self.list(PODS).iter().map(|pod| Self::uid_of(pod)).collect();
        self.kubelet.forget_all_but(&living);
    }

    /// The Deployments, ReplicaSets and ReplicationControllers of a face.
    pub fn resources(face: Face) -> [Resource; 3] {
        [Resource::deployments(face), Resource::replica_sets(face), Resource::replication_controllers(face)]
    }
}
