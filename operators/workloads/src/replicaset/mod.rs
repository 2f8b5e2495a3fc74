//! ReplicaSet and ReplicationController: keep a number of identical pods.
//!
//! - [`snapshot`]: what a decision looks at, and how it is read
//! - [`plan`]: the order of the decisions
//! - [`claim`]: which pods are ours (`spec.selector`)
//! - [`replicas`]: how many to create or delete, and under which names (`spec.replicas`)
//! - [`deletion_order`]: which pods go first
//! - [`min_ready_seconds`]: when a ready pod counts as available
//! - [`failing_pods`]: how fast pods are replaced that fail right away
//! - [`failure`]: what a refusal of the API server leads to
//! - [`status`]: what is reported
//! - [`audit`]: invariants of every plan

mod audit;
mod claim;
mod deletion_order;
mod failing_pods;
mod failure;
mod min_ready_seconds;
mod plan;
mod replicas;
mod snapshot;
mod status;

pub use replicas::BURST;
pub use snapshot::{Memory, Snapshot, observe};

use trysail_core::{
    Face, Plan, Resource,
    plan::{Planner, Violation},
};

/// The brain of the ReplicaSet and ReplicationController controllers, for either face.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaSetPlanner {
    /// What is controlled: ReplicaSets or ReplicationControllers, of one face.
    pub resource: Resource,
    /// Which face.
    pub face: Face,
}

impl ReplicaSetPlanner {
    /// For ReplicaSets.
    pub const fn replica_sets(face: Face) -> Self {
        Self { resource: Resource::replica_sets(face), face }
    }

    /// For ReplicationControllers.
    pub const fn replication_controllers(face: Face) -> Self {
        Self { resource: Resource::replication_controllers(face), face }
    }

    /// ReplicationControllers have no `status.terminatingReplicas`.
    fn reports_terminating(self) -> bool {
        self.resource.plural == "replicasets"
    }
}

impl Planner for ReplicaSetPlanner {
    type Snapshot = Snapshot;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        if self.reports_terminating() { "replicaset-controller" } else { "replication-controller" }
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan<Memory> {
        plan::plan(*self, snapshot)
    }

    fn audit(&self, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
        audit::audit(*self, snapshot, plan)
    }
}
