//! Effects, and the public face of Trysail for operator authors.

pub mod client;
pub mod metrics;
pub mod queue;

pub use trysail_core as core;
