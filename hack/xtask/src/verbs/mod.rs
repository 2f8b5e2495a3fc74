//! One file per verb: its arguments and how it calls the libraries.

pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod codegen;
pub(crate) mod image;
pub(crate) mod lint;
pub(crate) mod logs;
pub(crate) mod node;
pub(crate) mod release;
pub(crate) mod sanity;
pub(crate) mod setup;
pub(crate) mod stage;
pub(crate) mod status;
pub(crate) mod test;
pub(crate) mod up;
pub(crate) mod upstream;
