//! Jobs: run pods until enough of them have succeeded, and count each finished pod exactly once.
//!
//! - [`snapshot`]: what a decision looks at, and how it is read
//! - [`plan`]: the order of the decisions
//! - [`contradictions`]: specs that no plan can serve
//! - [`claim`]: which pods are ours (`spec.selector`)
//! - [`seen`]: what is read of a single pod
//! - [`tally`]: what there is, and what has finished, counted or not
//! - [`outcome`]: whether the Job is decided, and which way (`backoffLimit`, `maxFailedIndexes`, …)
//! - [`pod_failure_policy`], [`success_policy`]: rules of the user about that
//! - [`parallelism`]: how many pods to create or delete, `completions` and `suspend` included
//! - [`completion_index`]: which index a pod works on, and which are still to be done
//! - [`going`]: which pods go now, [`deletion_order`]: which of them first
//! - [`backoff`]: when a failed pod may be replaced
//! - [`replicas`]: what a pod to be created looks like, and its name
//! - [`tracking`]: the protocol of finalizers by which nothing is counted twice
//! - [`status`]: what is reported, and [`batch`]: how often
//! - [`orphans`]: pods whose Job is gone, and which still carry our finalizer
//! - [`unattended`]: pods that are left to themselves while no controller is there, and taken back
//! - [`audit`]: invariants of every plan, [`transition`]: what a status may become

mod audit;
mod backoff;
mod batch;
mod claim;
mod completion_index;
mod contradictions;
mod deletion_order;
#[cfg(test)]
mod fixture;
mod going;
mod indexes;
mod orphans;
mod outcome;
mod parallelism;
mod plan;
mod pod_failure_policy;
mod refusal;
mod replicas;
mod seen;
mod snapshot;
mod status;
mod success_policy;
mod tally;
mod tracking;
mod transition;
mod unattended;

pub use orphans::{OrphanPodPlanner, OrphanSnapshot, observe_orphan};
pub use snapshot::{Memory, Snapshot, observe};
pub use unattended::leave;

use trysail_core::{
    Face, Plan, Resource,
    plan::{Planner, Violation},
};

/// Creates, deletes and newly counted pods per look, upstream's number for all three: a huge Job leaves room for the
/// others, and 500 uids keep the status below 20 KB.
pub const BURST: usize = 500;

/// The finalizer by which a finished pod waits until it is counted.
///
/// Pods of native Jobs carry upstream's, so that either controller can continue the other's work. Pods of our own kind
/// carry one of our own, because a kube-controller-manager that runs beside us minds upstream's wherever it sees it:
/// it strips it from every pod that has no controller at the moment (one whose owner reference was just removed, which
/// we are about to adopt again), and versions before it compared the owner's API group also from pods whose owner is
/// of kind `Job` but not known to it. A finalizer that goes before its pod is counted is a pod that is never counted.
pub const fn tracking_finalizer(face: Face) -> &'static str {
    match face {
        Face::Native => "batch.kubernetes.io/job-tracking",
        Face::Crd => "batch.trysail.dev/job-tracking",
    }
}

/// The brain of the Job controller, for either face.
#[derive(Clone, Copy, Debug)]
pub struct JobPlanner {
    /// Which face.
    pub face: Face,
}

impl JobPlanner {
    /// For Jobs of a face.
    pub const fn new(face: Face) -> Self {
        Self { face }
    }

    fn resource(self) -> Resource {
        Resource::jobs(self.face)
    }

    fn finalizer(self) -> &'static str {
        tracking_finalizer(self.face)
    }
}

impl Planner for JobPlanner {
    type Snapshot = Snapshot;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan<Memory> {
        plan::plan(*self, snapshot)
    }

    fn audit(&self, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
        audit::audit(*self, snapshot, plan)
    }
}
