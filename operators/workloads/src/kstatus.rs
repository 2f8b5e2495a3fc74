//! The conditions `Ready`, `Reconciling` and `Stalled` that `helm --wait`, Flux and `kubectl wait` understand.
//! CRD face only: for native kinds those tools know the kind itself.
//!
//! `Ready` is always there; the other two are abnormal when true and absent otherwise, as the convention asks.

use jiff::Timestamp;
use trysail_core::condition::{Condition, Conditions};

/// How far an object is on the way to what its spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All is as wanted.
    Done { message: String },
    /// On its way, or at least still trying.
    Underway { reason: &'static str, message: String },
    /// Nothing will come of it unless somebody steps in.
    Stuck { reason: &'static str, message: String },
}

/// Sets the three conditions.
pub(crate) fn apply(conditions: &mut Conditions, progress: Progress, now: Timestamp) {
    let mut set = |kind: &str, status: &str, reason: &str, message: String| {
        conditions.set(Condition::new(kind, status, reason, message, now));
    };
    match progress {
        Progress::Done { message } => {
            set("Ready", "True", "AsWanted", message);
            conditions.remove("Reconciling");
            conditions.remove("Stalled");
        }
        Progress::Underway { reason, message } => {
            set("Ready", "False", reason, message.clone());
            set("Reconciling", "True", reason, message);
            conditions.remove("Stalled");
        }
        Progress::Stuck { reason, message } => {
            set("Ready", "False", reason, message.clone());
            set("Stalled", "True", reason, message);
            conditions.remove("Reconciling");
        }
    }
}
