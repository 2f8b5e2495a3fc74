//! Decisions at work: transcripts and properties on a simulated cluster.

mod properties;
mod scenarios;
