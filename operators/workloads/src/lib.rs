//! What is decided about workloads, and nothing else: one folder per kind, each a function from a snapshot to
//! a plan. No clock, no client, no randomness, no async.
//!
//! Every kind has the same five places: `snapshot.rs` (all that a decision may look at), `plan.rs` (the order
//! of the decisions), one file per field the user wrote (`min_ready_seconds.rs`, `rolling_update.rs`, …),
//! `status.rs` (what is reported) and `audit.rs` (invariants, written independently of the decisions).
//!
//! Both faces of a kind, the CRD and Kubernetes' own, are read into the same [`views`].

pub mod views;

#[cfg(test)]
mod fixture;
mod kstatus;
pub mod pod_body;
pub mod pod_control;
pub mod revision;
mod slots;
mod status_patch;
mod topology_spread;

pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod job;
pub mod replicaset;
pub mod statefulset;
pub mod ttl_after_finished;

pub use status_patch::StatusPace;
pub use topology_spread::TopologySpread;
