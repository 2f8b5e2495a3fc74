//! A simulated cluster for tests of decisions: an API server with real semantics for the kinds it holds, a
//! scheduler, kubelets and a garbage collector, and a manager that runs the planners against stale views,
//! lost replies and crashes. Everything is deterministic: a virtual clock, counted uids, no threads.
//!
//! - [`cluster`]: the API server and the actors around it
//! - [`manager`]: the controllers, with the same rules of execution as the SDK's
//! - [`kinds`]: which controllers there are
//! - [`invariants`]: what must hold at every single write
//! - [`fixtures`]: small manifests
//! - [`property`]: a harness for property tests of any kind
//! - [`scenario`]: transcripts, a command language for all of that

pub mod cluster;
pub mod fixtures;
pub mod invariants;
pub mod kinds;
pub mod manager;
pub mod property;
pub mod scenario;

pub use cluster::{ApiError, Cluster};
pub use manager::Manager;
