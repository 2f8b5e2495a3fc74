//! DaemonSet: one pod on every node that a template belongs on.
//!
//! - [`snapshot`]: what a decision looks at, and how it is read
//! - [`plan`]: the order of the decisions
//! - [`claim`]: which pods are ours (`spec.selector`)
//! - [`placement`]: which nodes a pod belongs on (`nodeSelector`, `affinity`, `tolerations`, `nodeName`)
//! - [`slots`]: the names of the pods to come
//! - [`fleet`]: nodes and the pods on them
//! - [`per_node`]: what to create and delete on each node, updates aside
//! - [`failed_pods`]: how fast failed pods are replaced
//! - [`update_strategy`]: which pods an update replaces, and its two budgets in
//!   [`max_unavailable`] and [`max_surge`]
//! - [`min_ready_seconds`]: when a ready pod counts as available
//! - [`history`]: the revisions of the template (`spec.revisionHistoryLimit`)
//! - [`pods`]: the pods to send
//! - [`unplaceable`]: pods that no scheduler can bind
//! - [`failure`]: what a refusal of the API server leads to
//! - [`status`]: what is reported
//! - [`audit`]: invariants of every plan

mod audit;
mod claim;
mod failed_pods;
mod failure;
#[cfg(test)]
mod fixture;
mod fleet;
mod history;
mod max_surge;
mod max_unavailable;
mod min_ready_seconds;
mod per_node;
mod placement;
mod plan;
mod pods;
mod slots;
mod snapshot;
mod status;
mod unplaceable;
mod update_strategy;

pub use placement::{Verdict, is_affected};
pub use pods::BURST;
pub use snapshot::{Memory, Snapshot, Spot, observe};

use trysail_core::{
    Face, Plan, Resource,
    plan::{Planner, Violation},
};

/// On pods of our own DaemonSets: `kubectl drain` knows Kubernetes' kind only, and tells by this which pods would
/// come straight back.
pub const DAEMON_SET_LABEL: &str = "trysail.dev/daemonset";

/// The brain of the DaemonSet controller, for either face.
#[derive(Clone, Copy, Debug)]
pub struct DaemonSetPlanner {
    /// What is controlled: DaemonSets of one face.
    pub resource: Resource,
    /// Which face.
    pub face: Face,
}

impl DaemonSetPlanner {
    /// For DaemonSets of a face.
    pub const fn new(face: Face) -> Self {
        Self { resource: Resource::daemon_sets(face), face }
    }
}

impl Planner for DaemonSetPlanner {
    type Snapshot = Snapshot;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan<Memory> {
        plan::plan(*self, snapshot)
    }

    fn audit(&self, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
        audit::audit(*self, snapshot, plan)
    }
}
