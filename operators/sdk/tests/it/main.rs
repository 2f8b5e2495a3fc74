//! Tests of the SDK as its users see it, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests, though clippy cannot tell"
)]

mod apiserver;
mod apply;
mod chaos;
mod client;
mod controller;
mod election;
mod events;
mod gate;
mod history;
mod informer;
mod manager;
mod pace;
mod probes;
mod queue;
mod revisions;
mod standstill;
mod wire;
