//! What a refusal of the API server (quota, admission, validation) leads to: a pause until the next attempt.

use jiff::Timestamp;
use trysail_core::plan::Refusal;

use super::{
    Snapshot, history,
    pods::{CREATE, DELETE},
};

/// The reason of status writes; a refused one must not keep pods from being created.
pub(super) const UPDATE_STATUS: &str = "UpdateStatus";

/// The refusal that bars creates or deletes of pods, if its time has not passed. Who forbids to delete has not
/// forbidden to create; what comes before either bars both.
pub(super) fn barring<'a>(snapshot: &'a Snapshot, action: &str) -> Option<&'a Refusal> {
    let refusal = snapshot.context.refusal.as_ref()?;
    let bars = match refusal.action {
        UPDATE_STATUS | history::TRUNCATE => false,
        CREATE | DELETE => refusal.action == action,
        _ => true,
    };
    (bars && snapshot.context.now < refusal.retry_at).then_some(refusal)
}

/// The refusal that bars actions of exactly this reason.
pub(super) fn barred_until(snapshot: &Snapshot, action: &str) -> Option<Timestamp> {
    let refusal = snapshot.context.refusal.as_ref().filter(|refusal| refusal.action == action)?;
    (snapshot.context.now < refusal.retry_at).then_some(refusal.retry_at)
}
