//! CSI driver for node-local volumes that do not lose data.
//!
//! A volume is a file on a reflink filesystem, attached as a loop device with direct I/O. One call takes one way:
//! request → look → plan → execute. [`model`] holds what volumes are, [`plan`] what is to be done (pure), [`sys`] the
//! door to the machine, [`service`] the wire.

pub mod driver;
pub mod model;
pub mod plan;
pub mod proto;
pub mod service;
pub mod store;
pub mod sys;

pub use driver::Driver;
