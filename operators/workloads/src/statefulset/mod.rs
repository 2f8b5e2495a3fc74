//! StatefulSet: pods with an identity, a name and volumes of their own each.
//!
//! - [`snapshot`]: what a decision looks at, and how it is read
//! - [`plan`]: the order of the decisions
//! - [`claim`]: which pods are ours (`spec.selector`), in range or condemned
//! - [`ordinals`]: which pods there should be (`spec.replicas`, `spec.ordinals`)
//! - [`pod_management_policy`]: in which order they come and go; one file per policy
//! - [`update_strategy`]: how old pods give way to new ones (`spec.updateStrategy`)
//! - [`identity`]: name, labels, host name and volumes of a pod (`spec.serviceName`)
//! - [`volume_claim_templates`]: the claims of a pod; [`claim_retention`]: who they go with
//! - [`revisions`]: the revision of the template, and the one before
//! - [`failing_pods`]: how fast pods are replaced that fail right away
//! - [`failure`]: what a refusal of the API server or a user's mistake leads to
//! - [`status`]: what is reported
//! - [`audit`]: invariants of every plan

mod audit;
mod claim;
mod claim_retention;
mod failing_pods;
mod failure;
mod identity;
mod ordinals;
mod plan;
mod pod_management_policy;
mod pods;
mod revisions;
mod scene;
mod snapshot;
mod status;
mod update_strategy;
mod volume_claim_templates;

#[cfg(test)]
mod fixture;

pub use ordinals::{ordinal_of, pod_name};
pub use snapshot::{Memory, Snapshot, observe};
pub use volume_claim_templates::{claim_name, possible_owners};

use trysail_core::{
    Face, Plan, Resource,
    plan::{OwnerReference, Planner, Violation},
};

use crate::views::StatefulSet;

/// Creates or deletes per look, upstream's number: one huge owner leaves room for the others.
pub const BURST: usize = 500;

/// The brain of the StatefulSet controller, for either face.
#[derive(Clone, Copy, Debug)]
pub struct StatefulSetPlanner {
    /// StatefulSets of the face.
    pub resource: Resource,
    /// Which face.
    pub face: Face,
}

impl StatefulSetPlanner {
    /// For one face.
    pub const fn new(face: Face) -> Self {
        Self { resource: Resource::stateful_sets(face), face }
    }

    /// A set as the owner of what it makes.
    fn owner(self, set: &StatefulSet) -> OwnerReference {
        OwnerReference { resource: self.resource, key: set.meta.key.clone(), uid: set.meta.uid.clone() }
    }
}

impl Planner for StatefulSetPlanner {
    type Snapshot = Snapshot;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan<Memory> {
        plan::plan(*self, snapshot)
    }

    fn audit(&self, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
        audit::audit(*self, snapshot, plan)
    }
}
