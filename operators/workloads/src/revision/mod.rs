//! ControllerRevisions: the history of templates that a StatefulSet or DaemonSet had.
//!
//! - [`history`]: which records are ours, which of them is the current template's, which pods belong to which
//! - [`writes`]: how the history is brought up to date and kept short
//! - [`data`]: what a record holds, byte for byte as kube-controller-manager writes it
//! - [`name`]: how a record is called
//! - [`go_json`]: JSON as Go writes it
//!
//! Identity is judged by meaning, never by bytes: a record that kube-controller-manager, of whatever version, wrote
//! for the same template is the same revision, so that a hand-over restarts nothing. What we write has nevertheless
//! its bytes, because it compares bytes.

mod data;
mod go_json;
mod history;
mod name;
mod writes;

#[cfg(test)]
mod tests;

pub use history::{Dialect, History, RevisionOwner, Update};
pub use writes::CREATE_REVISION;
