//! The CNI specification as types: versions, errors, the environment, results. No network, no files.

mod environment;
mod error;
mod result;
mod version;

pub(crate) use environment::is_identifier;
pub use environment::{Arguments, Command, Environment};
pub use error::{CniError, Code};
pub use result::{Dns, Interface, Ip, Route, Success};
pub use version::SpecVersion;

/// What every verb answers.
pub type Result<T, E = CniError> = std::result::Result<T, E>;
