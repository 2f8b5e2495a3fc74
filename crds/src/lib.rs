//! The kinds of `apps.trysail.dev/v1` and `batch.trysail.dev/v1`: Rust types, and the CustomResourceDefinitions generated from them.
//!
//! A spec is upstream's spec field for field, so that a native manifest becomes ours when its `apiVersion` is
//! changed and nothing else. What the API server does for native kinds in Go (defaults, validation, `/scale`, printer
//! columns) is said here in the schema: [`schema`] derives it from k8s-openapi, one file per kind adds the rules.
//!
//! Not here: how a status is computed, and anything that talks to a cluster.

// Printer columns share types and priorities, which clippy takes for attributes written twice.
#![allow(clippy::duplicated_attributes)]

pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod job;
pub mod replicaset;
pub mod replicationcontroller;
pub mod statefulset;

mod claim_template;
mod condition;
mod crd;
mod schema;
mod template;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

pub use claim_template::ClaimTemplate;
pub use condition::Condition;
pub use crd::{CrdError, to_yaml};
pub use cronjob::CronJob;
pub use daemonset::DaemonSet;
pub use deployment::Deployment;
pub use job::Job;
pub use replicaset::ReplicaSet;
pub use replicationcontroller::ReplicationController;
pub use statefulset::StatefulSet;
pub use template::{PodTemplate, TemplateError};

/// API group of the workload kinds that upstream keeps in `apps` (and of `ReplicationController`).
pub const APPS_GROUP: &str = "apps.trysail.dev";

/// The one served and stored version of [`APPS_GROUP`].
pub const APPS_VERSION: &str = "v1";

/// API group of the workload kinds that upstream keeps in `batch`.
pub const BATCH_GROUP: &str = "batch.trysail.dev";

/// The one served and stored version of [`BATCH_GROUP`].
pub const BATCH_VERSION: &str = "v1";

/// Every CRD of the project with its complete schema, in the order in which they are listed to users.
pub fn all() -> Result<Vec<CustomResourceDefinition>, CrdError> {
    Ok(vec![
        deployment::crd()?,
        replicaset::crd()?,
        replicationcontroller::crd()?,
        statefulset::crd()?,
        daemonset::crd()?,
        job::crd()?,
        cronjob::crd()?,
    ])
}
