//! What a refusal of the API server (quota, admission, validation) leads to: a condition that says so, and a
//! pause until the next attempt is due.

use jiff::Timestamp;
use trysail_core::{
    condition::{Condition, Conditions},
    plan::Refusal,
};

use super::Snapshot;
use crate::pod_control::{CREATE_POD, DELETE_POD};

pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The reason of status writes; a refused one must not keep pods from being created.
pub(super) const UPDATE_STATUS: &str = "UpdateStatus";

/// The refusal that bars what `active` pods would lead to, if its time has not passed.
pub(super) fn barring(snapshot: &Snapshot, active: usize) -> Option<&Refusal> {
    let refusal = standing(snapshot, active)?;
    (snapshot.context.now < refusal.retry_at).then_some(refusal)
}

/// The last refusal, if there is still reason to attempt what was refused. A quota is no reason to keep pods that
/// are not wanted any more, and who forbids to delete has not forbidden to create.
fn standing(snapshot: &Snapshot, active: usize) -> Option<&Refusal> {
    let wanted = usize::try_from(snapshot.set.replicas).unwrap_or(0);
    let refusal = snapshot.context.refusal.as_ref()?;
    let is_due = match refusal.action {
        UPDATE_STATUS => false,
        CREATE_POD => active < wanted,
        DELETE_POD => active > wanted,
        _ => active != wanted,
    };
    is_due.then_some(refusal)
}

/// The refusal that bars status writes, if its time has not passed.
pub(super) fn status_barred_until(snapshot: &Snapshot) -> Option<Timestamp> {
    let refusal = snapshot.context.refusal.as_ref().filter(|refusal| refusal.action == UPDATE_STATUS)?;
    (snapshot.context.now < refusal.retry_at).then_some(refusal.retry_at)
}

/// Sets the condition while attempts are refused, with the server's latest words, and removes it once there is
/// nothing left to attempt or an attempt went through.
pub(super) fn report(conditions: &mut Conditions, snapshot: &Snapshot, active: usize, is_writing: bool) {
    let wanted = usize::try_from(snapshot.set.replicas).unwrap_or(0);
    match standing(snapshot, active) {
        Some(refusal) => {
            let reason = if active < wanted { "FailedCreate" } else { "FailedDelete" };
            let now = snapshot.context.now;
            let condition = Condition::new(REPLICA_FAILURE, "True", reason, refusal.message.clone(), now);
            conditions.set(condition);
        }
        // What a plan in flight comes to is not known yet: after a restart the condition may still hold.
        None if is_writing => {}
        _ => conditions.remove(REPLICA_FAILURE),
    }
}
