//! Effects, and the public face of Trysail for operator authors.
//!
//! A controller says what it looks at and what it does about one object; a manager gives it caches, a fair
//! queue, leader election, probes, metrics and an orderly end. A whole operator:
//!
//! ```no_run
#![doc = include_str!("../examples/first_operator.rs")]
//! ```
//!
//! # What happens between a change and its effects
//!
//! ```text
//! watch → store → route → queue → gate → observe → plan → audit → apply → outcome → (queue)
//! ```
//!
//! * [`informer`] lists and watches each resource once per process; [`store`] holds what it knows, indexed.
//! * [`controller::route`] says which keys look again because of an object.
//! * [`queue`] decides which key is next: one worker per key, first in first out, nothing starves, a failing key
//!   is backed off.
//! * [`gate`] holds a key until the stores show our own writes for it.
//! * [`controller`] runs a key: an async function ([`controller::Controller`]), or a pure
//!   [`Planner`](core::plan::Planner) whose plan is audited and applied ([`controller::PlanController`]).
//! * [`mod@apply`] carries out a plan: waves in order, preconditions on every write.
//! * [`election`] moves the fence of the [`client`] with every renewal of the lease: a process that does not
//!   lead writes nothing.
//! * [`events`], [`metrics`] and [`logging`] tell people; [`manager`] starts all of it in order, and ends it.
//!
//! There is no global state: two managers in one process share nothing.

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
pub mod ssa;
pub mod store;

pub use trysail_core as core;

/// What a caught panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// What nearly every operator needs.
pub mod prelude {
    pub use crate::{
        controller::{Controller, Outcome, Request},
        core::{Key, Selector, View, plan::EventNote},
        informer::Scope,
        logging::{self, LogFormat},
        manager::Manager,
    };
}
