//! `status.conditions` of a Deployment: upstream's rules for when times move.

use jiff::Timestamp;
use trysail_core::condition::{Condition, Conditions, whole_seconds};

use super::fleet::Fleet;

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Sets a condition, unless it holds already with the same status and reason: neither its message nor its times
/// move then.
pub(super) fn set(
    conditions: &mut Conditions,
    [kind, status, reason]: [&str; 3],
    message: &str,
    now: Timestamp,
) {
    let held = conditions.get(kind);
    if !held.is_some_and(|held| held.status == status && held.reason == reason) {
        renew(conditions, [kind, status, reason], message, now);
    }
}

/// Sets a condition and its time of update; the transition time moves with the status only.
pub(super) fn renew(
    conditions: &mut Conditions,
    [kind, status, reason]: [&str; 3],
    message: &str,
    now: Timestamp,
) {
    let mut condition = Condition::new(kind, status, reason, message, now);
    condition.last_update_time = Some(whole_seconds(now));
    conditions.set(condition);
}

/// `Available`: at least as many pods as the strategy demands.
pub(super) fn available(conditions: &mut Conditions, fleet: &Fleet<'_>, available: i32, now: Timestamp) {
    let (state, message) = if i64::from(available) >= fleet.bounds.min_available() {
        ([AVAILABLE, "True", "MinimumReplicasAvailable"], "Deployment has minimum availability.")
    } else {
        ([AVAILABLE, "False", "MinimumReplicasUnavailable"], "Deployment does not have minimum availability.")
    };
    set(conditions, state, message, now);
}

/// `ReplicaFailure` as a ReplicaSet reports it, the current one's first.
pub(super) fn replica_failure(conditions: &mut Conditions, fleet: &Fleet<'_>) {
    let mut sets = fleet.new.into_iter().chain(fleet.old.iter().copied());
    let Some(failure) = sets.find_map(|set| set.status.conditions.get(REPLICA_FAILURE)) else {
        conditions.remove(REPLICA_FAILURE);
        return;
    };
    let mut failure = failure.clone();
    failure.last_update_time = failure.last_transition_time;
    conditions.set(failure);
}
