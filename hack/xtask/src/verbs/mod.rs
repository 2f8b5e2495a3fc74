//! One file per verb: its arguments and how it calls the libraries.

pub(crate) mod cluster;
pub(crate) mod image;
pub(crate) mod logs;
pub(crate) mod node;
pub(crate) mod setup;
pub(crate) mod status;
pub(crate) mod upstream;
