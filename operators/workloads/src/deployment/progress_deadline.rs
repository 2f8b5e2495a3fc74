//! `spec.progressDeadlineSeconds`: a rollout that makes no progress for so long is reported as failed. Nothing is
//! stopped or rolled back because of it.
//!
//! The clock runs from the `Progressing` condition's last update. It runs for rollouts only: a finished
//! Deployment that loses pods later is not reported here, as upstream has it; `Available` says so.
//! A rollout is known by the ReplicaSet whose name the condition's message quotes, so a controller that crashed
//! after creating it, or a rollback to an old one, starts the clock too.

use jiff::{SignedDuration, Timestamp};
use trysail_core::{
    condition::{Condition, Conditions},
    plan::Refusal,
};

use super::{
    Snapshot,
    conditions::{PROGRESSING, renew, set},
    fleet::Fleet,
    new_replica_set::{CREATE, Name},
    status::Counts,
};

const AVAILABLE: &str = "NewReplicaSetAvailable";
pub(super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";
const CREATE_ERROR: &str = "ReplicaSetCreateError";

/// Brings `Progressing` up to date. Answers when the deadline passes, if nothing happens until then.
pub(super) fn report(
    conditions: &mut Conditions,
    snapshot: &Snapshot,
    fleet: &Fleet<'_>,
    counts: &Counts,
    creating: Option<&Name>,
) -> Option<Timestamp> {
    let now = snapshot.context.now;
    let Some(deadline) = fleet.deployment.progress_deadline_seconds else {
        conditions.remove(PROGRESSING);
        return None;
    };
    pause(conditions, fleet.deployment.paused, now);
    if fleet.deployment.paused || fleet.deployment.meta.is_terminating() {
        return None;
    }
    // With another attempt in the same plan it is not known yet what comes of it.
    if let Some(refusal) = refused_creation(snapshot, fleet).filter(|_| creating.is_none()) {
        // The latest words: a quota may have given way to a webhook.
        let message = format!("Failed to create new replica set: {}", refusal.message);
        let held = conditions.get(PROGRESSING);
        if !held.is_some_and(|held| held.reason == CREATE_ERROR && held.message == message) {
            renew(conditions, [PROGRESSING, "False", CREATE_ERROR], &message, now);
        }
        return None;
    }
    start(conditions, fleet, counts, creating, now);
    estimate(conditions, snapshot, fleet, counts, now);
    let held = conditions.get(PROGRESSING)?;
    let is_over = held.reason == AVAILABLE || held.reason == TIMED_OUT;
    if is_over { None } else { due(held, deadline) }
}

/// While paused no time passes, so that resuming does not find the deadline already behind it. A failure that was
/// reported before stays.
fn pause(conditions: &mut Conditions, is_paused: bool, now: Timestamp) {
    let reason = conditions.get(PROGRESSING).map(|held| held.reason.clone()).unwrap_or_default();
    if reason == TIMED_OUT {
        return;
    }
    if is_paused {
        set(conditions, [PROGRESSING, "Unknown", PAUSED], "Deployment is paused", now);
    } else if reason == PAUSED {
        set(conditions, [PROGRESSING, "Unknown", RESUMED], "Deployment is resumed", now);
    }
}

fn refused_creation<'a>(snapshot: &'a Snapshot, fleet: &Fleet<'_>) -> Option<&'a Refusal> {
    let refusal = snapshot.context.refusal.as_ref()?;
    (fleet.new.is_none() && refusal.action == CREATE).then_some(refusal)
}

/// Starts the clock for a rollout that the condition does not speak of yet.
fn start(
    conditions: &mut Conditions,
    fleet: &Fleet<'_>,
    counts: &Counts,
    creating: Option<&Name>,
    now: Timestamp,
) {
    if let Some(Name { name, .. }) = creating {
        let message = format!("Created new replica set \"{name}\"");
        renew(conditions, [PROGRESSING, "True", "NewReplicaSetCreated"], &message, now);
        return;
    }
    let Some(new) = fleet.new else { return };
    let quoted = format!("\"{}\"", new.meta.key.name);
    let is_known = conditions.get(PROGRESSING).is_some_and(|held| {
        // A refusal may quote the name, too.
        let speaks_of_it = held.reason != CREATE_ERROR && held.message.contains(&quoted);
        speaks_of_it || held.reason == RESUMED || held.reason == PAUSED
    });
    if !is_known && !counts.is_complete(fleet) {
        let message = format!("Found new replica set {quoted}");
        renew(conditions, [PROGRESSING, "True", "FoundNewReplicaSet"], &message, now);
    }
}

fn estimate(
    conditions: &mut Conditions,
    snapshot: &Snapshot,
    fleet: &Fleet<'_>,
    counts: &Counts,
    now: Timestamp,
) {
    let subject = match fleet.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.meta.key.name),
        None => format!("Deployment \"{}\"", fleet.deployment.meta.key.name),
    };
    let held = conditions.get(PROGRESSING);
    let was_complete =
        held.is_some_and(|held| held.reason == AVAILABLE && held.message.starts_with(&subject));
    if was_complete && counts.replicas == counts.updated {
        return;
    }
    if counts.is_complete(fleet) {
        let message = format!("{subject} has successfully progressed.");
        // Another ReplicaSet than the one that was complete before: the same reason, but news.
        let is_news = held.is_none_or(|held| held.message != message);
        if is_news {
            renew(conditions, [PROGRESSING, "True", AVAILABLE], &message, now);
        }
    } else if counts.is_progress(&snapshot.deployment.status) {
        let message = format!("{subject} is progressing.");
        renew(conditions, [PROGRESSING, "True", "ReplicaSetUpdated"], &message, now);
    } else if is_timed_out(held, fleet, now) {
        let message = format!("{subject} has timed out progressing.");
        set(conditions, [PROGRESSING, "False", TIMED_OUT], &message, now);
    }
}

fn is_timed_out(held: Option<&Condition>, fleet: &Fleet<'_>, now: Timestamp) -> bool {
    let (Some(held), Some(deadline)) = (held, fleet.deployment.progress_deadline_seconds) else {
        return false;
    };
    held.reason == TIMED_OUT
        || (held.reason != AVAILABLE && due(held, deadline).is_some_and(|due| due <= now))
}

fn due(held: &Condition, deadline: i32) -> Option<Timestamp> {
    held.last_update_time?.checked_add(SignedDuration::from_secs(deadline.into())).ok()
}
