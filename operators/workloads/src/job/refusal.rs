//! What a refusal of the API server (quota, admission, validation) leads to: what was refused waits until the next
//! attempt is due, and everything else goes on. A webhook that lets no pod be created must not keep finished ones
//! from being counted.

use jiff::Timestamp;
use trysail_core::plan::Refusal;

use super::Snapshot;
pub(super) use crate::pod_control::{CREATE_POD as CREATE, DELETE_POD as DELETE};

/// The reason of status writes.
pub(super) const UPDATE_STATUS: &str = "UpdateStatus";

/// Until when actions of that reason are not attempted.
pub(super) fn bars(snapshot: &Snapshot, reason: &str) -> Option<Timestamp> {
    let refusal = standing(snapshot).filter(|refusal| refusal.action == reason)?;
    Some(refusal.retry_at)
}

/// The last refusal, while its time has not passed.
pub(super) fn standing(snapshot: &Snapshot) -> Option<&Refusal> {
    snapshot.context.refusal.as_ref().filter(|refusal| snapshot.context.now < refusal.retry_at)
}

/// The last refusal in the words of a condition, standing or about to be tried again.
pub(super) fn told(snapshot: &Snapshot) -> Option<(&'static str, &str)> {
    let refusal = snapshot.context.refusal.as_ref()?;
    let reason = match refusal.action {
        CREATE => "FailedCreate",
        DELETE => "FailedDelete",
        super::tracking::REMOVE_FINALIZER => "FailedFinalizerRemoval",
        super::claim::ADD_FINALIZER => "FailedFinalizer",
        UPDATE_STATUS => return None,
        _ => "FailedAdoption",
    };
    Some((reason, &refusal.message))
}
