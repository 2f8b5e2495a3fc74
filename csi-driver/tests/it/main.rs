//! Tests of the CSI driver from outside.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests, though clippy cannot tell"
)]

mod arena;
mod crash;
mod fake;
mod generated;
mod kill;
mod real;
mod sanity;
