//! Tests of the CRDs from outside: what is committed, and how it treats manifests.

mod chart;
mod dependencies;
mod generated;
mod manifests;
mod rules;
mod schema;
