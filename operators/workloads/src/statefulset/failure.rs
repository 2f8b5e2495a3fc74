//! What a refusal of the API server (quota, admission, validation) or a mistake that only the user can mend leads
//! to: a condition and an event that say so, and for a refusal a pause until the next attempt is due.

use jiff::Timestamp;
use trysail_core::{
    Action, Plan,
    condition::{Condition, Conditions},
    plan::{EventNote, Refusal, Verb, WaitingOn},
};

use super::{Memory, Snapshot, status::UPDATE_STATUS, volume_claim_templates};
use crate::pod_control::{CREATE_POD, DELETE_POD};

/// The condition: the one that ReplicaSets have for the same.
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Something that stays wrong until the user acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The refusal whose time has not passed.
fn standing(snapshot: &Snapshot) -> Option<&Refusal> {
    let refusal = snapshot.context.refusal.as_ref()?;
    (refusal.action != UPDATE_STATUS && snapshot.context.now < refusal.retry_at).then_some(refusal)
}

/// The refusal that bars status writes, if its time has not passed.
pub(super) fn status_barred_until(snapshot: &Snapshot) -> Option<Timestamp> {
    let refusal = snapshot.context.refusal.as_ref().filter(|refusal| refusal.action == UPDATE_STATUS)?;
    (snapshot.context.now < refusal.retry_at).then_some(refusal.retry_at)
}

/// Leaves out what was refused and is not due yet, and the creates that build on it. What is of another kind stays:
/// who forbids to delete has not forbidden to create.
pub(super) fn bar(snapshot: &Snapshot, waves: Vec<Vec<Action>>, plan: &mut Plan<Memory>) -> Vec<Vec<Action>> {
    let Some(refusal) = standing(snapshot) else { return waves };
    let mut is_barred = false;
    let mut is_create_barred = false;
    let mut left = Vec::new();
    for mut wave in waves {
        let builds_on_it = is_create_barred;
        let is_create = |action: &Action| matches!(action.verb, Verb::Create { .. });
        wave.retain(|action| {
            let goes = action.reason == refusal.action || (builds_on_it && is_create(action));
            is_barred |= goes;
            is_create_barred |= goes && is_create(action);
            !goes
        });
        left.push(wave);
    }
    if is_barred {
        let (message, retry_at) = (refusal.message.clone(), refusal.retry_at);
        plan.waiting_on.push(WaitingOn::Refused { message, retry_at });
        plan.requeue_by(retry_at);
    }
    left
}

/// Sets the condition while something is wrong, and removes it once nothing is. `is_writing` says that the same plan
/// creates or deletes: what that comes to is not known yet.
pub(super) fn report(
    conditions: &mut Conditions,
    snapshot: &Snapshot,
    problems: &[Problem],
    is_writing: bool,
) {
    let now = snapshot.context.now;
    let refusal = snapshot.context.refusal.as_ref().filter(|refusal| refusal.action != UPDATE_STATUS);
    let told = match (problems.first(), refusal) {
        (Some(problem), _) => Some((problem.reason, problem.message.clone())),
        (None, Some(refusal)) => Some((reason(refusal), refusal.message.clone())),
        (None, None) => None,
    };
    match told {
        Some((reason, message)) => {
            conditions.set(Condition::new(REPLICA_FAILURE, "True", reason, message, now));
        }
        None if is_writing => {}
        None => conditions.remove(REPLICA_FAILURE),
    }
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal.action {
        DELETE_POD => "FailedDelete",
        CREATE_POD | volume_claim_templates::CREATE => "FailedCreate",
        _ => "FailedUpdate",
    }
}

/// The events for problems that the condition does not tell of yet.
pub(super) fn events(snapshot: &Snapshot, problems: &[Problem]) -> Vec<EventNote> {
    let told = snapshot.set.status.conditions.get(REPLICA_FAILURE);
    let is_news = |problem: &&Problem| {
        told.is_none_or(|held| held.reason != problem.reason || held.message != problem.message)
    };
    let news = problems.first().filter(is_news);
    news.map(|problem| EventNote::warning(problem.reason, problem.message.clone())).into_iter().collect()
}
