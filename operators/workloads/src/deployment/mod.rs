//! Deployment: rolls a template out through ReplicaSets, one per revision.
//!
//! - [`snapshot`]: what a decision looks at, and how it is read
//! - [`plan`]: the order of the decisions
//! - [`claim`]: which ReplicaSets are ours (`spec.selector`)
//! - [`fleet`]: the ReplicaSet of the current template, and the old ones
//! - [`new_replica_set`]: how the current one is found, made and kept up to date
//! - [`strategy`], [`rolling_update`], [`recreate`]: how old pods give way to new ones (`spec.strategy`)
//! - [`scaling`]: what a changed `spec.replicas` means in mid-rollout; also while paused (`spec.paused`)
//! - [`progress_deadline`]: when a rollout counts as failed
//! - [`revision_history`]: which old ReplicaSets are kept; [`rollback`]: the way back to one
//! - [`edits`]: the one patch that each ReplicaSet gets
//! - [`status`], [`conditions`]: what is reported
//! - [`audit`]: invariants of every plan

mod annotations;
mod audit;
mod claim;
mod conditions;
mod edits;
mod fleet;
mod merge_patch;
pub mod new_replica_set;
mod plan;
mod progress_deadline;
mod recreate;
mod revision_history;
mod rollback;
mod rolling_update;
mod scaling;
mod snapshot;
mod status;
mod strategy;

pub use snapshot::{Memory, Snapshot, observe};

use trysail_core::{
    Face, Plan, Resource,
    plan::{Planner, Violation},
};

/// The brain of the Deployment controller, for either face.
#[derive(Clone, Copy, Debug)]
pub struct DeploymentPlanner {
    /// Deployments of the face.
    pub resource: Resource,
    /// ReplicaSets of the same face.
    pub sets: Resource,
    /// Which face.
    pub face: Face,
}

impl DeploymentPlanner {
    /// For one face.
    pub const fn new(face: Face) -> Self {
        Self { resource: Resource::deployments(face), sets: Resource::replica_sets(face), face }
    }
}

impl Planner for DeploymentPlanner {
    type Snapshot = Snapshot;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan<Memory> {
        plan::plan(*self, snapshot)
    }

    fn audit(&self, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
        audit::audit(*self, snapshot, plan)
    }
}
