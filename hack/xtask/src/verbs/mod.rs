//! One file per verb: its arguments and how it calls the libraries.

pub(crate) mod image;
pub(crate) mod setup;
