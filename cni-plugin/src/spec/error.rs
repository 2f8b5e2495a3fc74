//! What the plugin says when it cannot do what it was asked for: the specification's error object.
//!
//! Decided here: the numbers. 1 to 99 are the specification's; from 100 on they are ours.

use std::fmt;

use serde_json::{Value, json};

/// An error code of the specification, or one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Code {
    /// The configuration's version is not spoken.
    IncompatibleVersion = 1,
    /// A field of the configuration is unknown, or has a value that is not supported.
    UnsupportedField = 2,
    /// No such container: the runtime need not call DEL.
    UnknownContainer = 3,
    /// A CNI_* variable is missing or malformed.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// Input is not the JSON it should be.
    Decode = 6,
    /// The configuration contradicts itself.
    InvalidNetworkConfig = 7,
    /// The path names no usable network namespace (the reference library's addition to the specification).
    InvalidNetns = 8,
    /// Somebody else is at work: the same call may succeed later.
    TryAgainLater = 11,
    /// STATUS: no pod can be added.
    NotAvailable = 50,
    /// STATUS: no pod can be added, and those that exist may be cut off.
    LimitedConnectivity = 51,
    /// A pool has no free address.
    AddressesExhausted = 100,
    /// The host port belongs to another pod.
    PortInUse = 101,
    /// Something with our name exists and is not ours.
    ForeignObject = 102,
    /// The kernel refuses for lack of rights.
    NotPermitted = 103,
    /// CHECK: what ADD made is not as it was made.
    CheckFailed = 104,
    /// The kernel refused a change.
    Kernel = 105,
    /// The container already has an interface of this name.
    InterfaceExists = 106,
    /// A delegated plugin failed without saying how.
    Delegate = 107,
}

/// The specification's error object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    /// What kind.
    pub code: Code,
    /// What went wrong, in one sentence.
    pub msg: String,
    /// What to do about it.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The object as it goes to stdout.
    pub fn to_json(&self, version: &str) -> Value {
        let mut object = json!({ "cniVersion": version, "code": self.code as u32, "msg": self.msg });
        if !self.details.is_empty() {
            object["details"] = json!(self.details);
        }
        object
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, "; {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for CniError {}
