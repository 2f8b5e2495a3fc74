//! The slim objects that decisions read; everything else is skipped while decoding.
//!
//! Nulls and absent fields are one, as in Go. Defaults that the API server fills in for native kinds are
//! repeated here, because a CRD may leave them out.

mod annotations;
mod controller_revision;
mod deployment;
mod replica_set;
mod selector;

pub use annotations::Annotations;
pub(crate) use annotations::LAST_APPLIED;
pub use controller_revision::ControllerRevision;
pub use deployment::{Deployment, DeploymentStatus, Strategy};
pub use replica_set::{ReplicaSet, ReplicaSetStatus};
