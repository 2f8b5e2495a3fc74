//! The slim objects that decisions read; everything else is skipped while decoding.
//!
//! Nulls and absent fields are one, as in Go. Defaults that the API server fills in for native kinds are
//! repeated here, because a CRD may leave them out.

mod annotations;
mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod job;
mod node;
mod persistent_volume_claim;
mod placement;
mod replica_set;
mod selector;
mod stateful_set;

pub use annotations::Annotations;
pub(crate) use annotations::LAST_APPLIED;
pub use controller_revision::ControllerRevision;
pub use cron_job::{ConcurrencyPolicy, CronJob, CronJobStatus, JobTemplate, ObjectReference};
pub use daemon_set::{DaemonSet, DaemonSetStatus, UpdateStrategy};
pub use deployment::{Deployment, DeploymentStatus, Strategy};
pub use job::{
    CompletionMode, JOB_NAME, Job, JobStatus, OnExitCodes, OnPodCondition, PodFailureAction, PodFailureRule,
    SuccessRule, UncountedPods,
};
pub use node::{Node, Taint};
pub use persistent_volume_claim::PersistentVolumeClaim;
pub use placement::{Placement, Requirement, Term, Toleration};
pub use replica_set::{ReplicaSet, ReplicaSetStatus};
pub use stateful_set::{
    ClaimRetention, ClaimTemplate, PodManagementPolicy, StatefulSet, StatefulSetStatus,
    StatefulSetUpdateStrategy,
};
