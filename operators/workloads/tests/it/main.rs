//! Decisions at work: transcripts and properties on a simulated cluster.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod cron_jobs;
mod daemonset;
mod deployment;
mod jobs;
mod lessons;
mod scenarios;
mod soak;
mod statefulset;
