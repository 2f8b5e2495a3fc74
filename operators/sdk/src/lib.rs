//! Effects, and the public face of Trysail for operator authors.

pub mod apply;
pub mod client;
pub mod controller;
pub mod election;
pub mod events;
pub mod gate;
pub mod informer;
pub mod logging;
pub mod manager;
pub mod metrics;
pub mod queue;
pub mod store;

pub use trysail_core as core;
