//! Every way in which a call can fail, and the one table that turns it into a gRPC code.
//!
//! Sidecars and the kubelet treat some codes as "may be in progress, ask again" and all others as final; after a final
//! one they forget the volume. So a final error promises that nothing was left behind.

use std::path::PathBuf;

use tonic::{Code, Status};

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. The message names the field, or the object, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A required field is empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has a value that cannot be.
    #[error("{field}: {why}")]
    Invalid {
        /// The field of the request.
        field: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// There is no such volume here.
    #[error("volume {0:?} does not exist")]
    NoVolume(String),
    /// There is no such snapshot here.
    #[error("snapshot {0:?} does not exist")]
    NoSnapshot(String),
    /// Another node was asked for.
    #[error("node {0:?} is not this node ({1:?})")]
    NoNode(String, String),
    /// The volume is not at this path.
    #[error("volume {id:?} is not at {path}")]
    NotAtPath {
        /// The volume.
        id: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Something of this name exists and differs.
    #[error("{name:?} exists with another {differs}")]
    Differs {
        /// The name, or the path.
        name: String,
        /// The first property that differs.
        differs: &'static str,
    },
    /// A size that cannot be given.
    #[error("{0}")]
    OutOfRange(String),
    /// Not enough space, or none where it was asked for.
    #[error("{0}")]
    Exhausted(String),
    /// The state of the volume, the pool or the node forbids it.
    #[error("{0}")]
    Precondition(String),
    /// Another call on the same object is running.
    #[error("another call on {0:?} is running")]
    Busy(String),
    /// A page token that this driver never gave out.
    #[error("starting_token {0:?} is unknown")]
    BadToken(String),
    /// The pool cannot be used until somebody has looked at it.
    #[error("pool {pool}: {why}")]
    PoolFailed {
        /// The pool's name.
        pool: String,
        /// What happened.
        why: String,
    },
    /// An effect failed; everything before it was undone.
    #[error("{0}")]
    Effect(String),
    /// An effect failed and something is left; a repeated call continues.
    #[error("{0}; repeat the call")]
    Unfinished(String),
}

impl Error {
    /// A field with a value that cannot be.
    pub fn invalid(field: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { field, why: why.into() }
    }

    /// The code that callers act on.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing(_) | Self::Invalid { .. } => Code::InvalidArgument,
            Self::NoVolume(_) | Self::NoSnapshot(_) | Self::NoNode(..) | Self::NotAtPath { .. } => {
                Code::NotFound
            }
            Self::Differs { .. } => Code::AlreadyExists,
            Self::OutOfRange(_) => Code::OutOfRange,
            Self::Exhausted(_) => Code::ResourceExhausted,
            Self::Precondition(_) => Code::FailedPrecondition,
            Self::Busy(_) | Self::BadToken(_) => Code::Aborted,
            Self::PoolFailed { .. } | Self::Unfinished(_) => Code::Unavailable,
            Self::Effect(_) => Code::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::new(error.code(), error.to_string())
    }
}
