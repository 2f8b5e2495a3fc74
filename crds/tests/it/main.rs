//! Tests of the CRDs from outside: what is committed, and how it treats manifests.

// A test's helper may fail the test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod apiserver;
mod chart;
mod dependencies;
mod generated;
mod manifests;
mod rules;
mod schema;
