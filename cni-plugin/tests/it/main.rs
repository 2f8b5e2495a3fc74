//! The plugin as a program, in throw-away network namespaces. Needs root.
//!
//! Every namespace is held by an open file of the test process and by nothing else: whatever ends it, nothing stays.
//! The host's own network is never looked at.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod attach;
mod bad_input;
mod cnitool;
mod delegation;
mod dependencies;
mod firewall;
mod kill;
mod overlay;
mod parallel;
mod sandbox;
