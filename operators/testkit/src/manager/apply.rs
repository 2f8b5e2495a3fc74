//! How a plan is carried out: waves in order, slow start inside a wave, preconditions on every write, and what
//! each kind of failure leads to.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::{Value, json};
use trysail_core::{
    Key, Resource, Uid,
    plan::{Action, OwnerReference, Plan, Planner, Refusal, Verb},
};

use super::{Loop, Manager};
use crate::cluster::{ApiError, Cluster, Writer};

/// Refused writes are tried again after 1, 2, 4 … seconds, at most this many.
const MAX_RETRY_SECONDS: i64 = 30;

/// What came of one plan.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    done: usize,
    crashed: bool,
    gate: BTreeMap<Resource, u64>,
    refused: Option<(&'static str, String)>,
    succeeded: Vec<&'static str>,
    now: jiff::Timestamp,
}

enum Failure {
    /// Seen differently next time.
    Stale,
    /// The server does not want it.
    Refused(String),
}

impl Outcome {
    /// Books the outcome under its key; answers how many actions took effect.
    pub(super) fn settle_into<P: Planner>(
        self,
        held: &mut Loop<P>,
        key: &Key,
        uid: &Uid,
        plan: Plan<P::Memory>,
    ) -> usize {
        if self.crashed {
            return self.done;
        }
        held.memory.insert(uid.clone(), plan.memory);
        let gate = held.gates.entry(uid.clone()).or_default();
        for (resource, revision) in self.gate {
            let at = gate.entry(resource).or_insert(0);
            *at = revision.max(*at);
        }
        match plan.requeue_at {
            Some(at) => held.wake_at.insert(key.clone(), at),
            None => held.wake_at.remove(key),
        };
        // A refusal is looked at again at once: its condition has to be written.
        let news = usize::from(self.refused.is_some());
        let before = held.refusals.remove(uid);
        // A refusal stands until an action of the same kind succeeds: a status write says nothing about quota.
        let standing = before.clone().filter(|before| !self.succeeded.contains(&before.action));
        let after = match self.refused {
            None => standing,
            Some((action, message)) => {
                let attempts =
                    before.filter(|before| before.action == action).map_or(0, |held| held.attempts) + 1;
                let wait = (1 << (attempts - 1).min(5)).min(MAX_RETRY_SECONDS);
                let retry_at = self.now + SignedDuration::from_secs(wait);
                Some(Refusal { action, message, attempts, retry_at })
            }
        };
        if let Some(refusal) = after {
            held.refusals.insert(uid.clone(), refusal);
        }
        self.done + news
    }
}

impl Manager {
    pub(super) fn apply<M>(&mut self, cluster: &mut Cluster, plan: &Plan<M>) -> Outcome {
        let mut outcome = Outcome { now: cluster.now, ..Outcome::default() };
        for note in &plan.events {
            self.tell(note, "");
        }
        for wave in &plan.waves {
            if !self.apply_wave(cluster, wave, &mut outcome) {
                break;
            }
        }
        outcome
    }

    /// 1, 2, 4 … actions at a time while all succeed; answers whether the next wave may start.
    fn apply_wave(&mut self, cluster: &mut Cluster, wave: &[Action], outcome: &mut Outcome) -> bool {
        let mut rest = wave;
        let mut size = 1;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            let mut failed = false;
            for action in batch {
                failed |= !self.apply_action(cluster, action, outcome);
                if self.crashes() {
                    self.crash(cluster);
                    outcome.crashed = true;
                }
                if outcome.crashed {
                    return false;
                }
            }
            if failed {
                return false;
            }
            rest = later;
            size *= 2;
        }
        true
    }

    fn apply_action(&mut self, cluster: &mut Cluster, action: &Action, outcome: &mut Outcome) -> bool {
        let result = execute(cluster, action);
        if self.loses_reply() {
            // Whatever became of it: the key is held until a consistent read has caught up with it.
            outcome.gate.insert(action.target.resource, cluster.revision());
            outcome.done += 1;
            return false;
        }
        match result {
            Ok(revision) => {
                self.note(action);
                if let Some(note) = &action.on_success {
                    self.tell(note, "");
                }
                let gate = outcome.gate.entry(action.target.resource).or_insert(0);
                *gate = revision.max(*gate);
                outcome.done += 1;
                outcome.succeeded.push(action.reason);
                true
            }
            Err(Failure::Stale) => false,
            Err(Failure::Refused(message)) => {
                self.journal.push(format!("refused {action}: {message}"));
                if let Some(note) = &action.on_failure {
                    self.tell(note, &format!(": {message}"));
                }
                outcome.refused = Some((action.reason, message));
                false
            }
        }
    }

    fn crashes(&mut self) -> bool {
        count_down(&mut self.faults.crash_after)
    }

    fn loses_reply(&mut self) -> bool {
        count_down(&mut self.faults.lose_reply_after)
    }
}

/// True once, when the countdown has run out.
fn count_down(left: &mut Option<u32>) -> bool {
    match left {
        None => false,
        Some(0) => {
            *left = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

/// Carries out one action; answers the revision from which on its effect can be seen.
fn execute(cluster: &mut Cluster, action: &Action) -> Result<u64, Failure> {
    let target = &action.target;
    let (resource, key, uid) = (target.resource, &target.key, target.uid.as_ref());
    let patch = |cluster: &mut Cluster, version, subresource, body: &Value| {
        cluster.patch(resource, key, (uid, version), subresource, body, Writer::Controller)
    };
    match &action.verb {
        Verb::Create { controller, body } => {
            match cluster.create(resource, body.to_value(), Writer::Controller) {
                Ok(object) => Ok(Cluster::version_of(&object)),
                Err(ApiError::AlreadyExists) => settle_existing(cluster, resource, key, controller.as_ref()),
                Err(error) => Err(failure(error)),
            }
        }
        Verb::Patch { subresource, body } => {
            let patched = patch(cluster, target.resource_version, *subresource, body);
            patched.map(|object| Cluster::version_of(&object)).map_err(failure)
        }
        Verb::Delete { .. } => match cluster.delete(resource, key, uid, Writer::Controller) {
            Ok(revision) => Ok(revision),
            Err(ApiError::NotFound | ApiError::Conflict(_)) => Ok(cluster.revision()),
            Err(error) => Err(failure(error)),
        },
        Verb::Adopt { owner } => {
            is_living(cluster, owner)?;
            let held = cluster.get(resource, key).ok_or(Failure::Stale)?;
            let mut owners = held["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            owners.push(owner.to_value());
            let body = json!({"metadata": {"ownerReferences": owners}});
            let patched = patch(cluster, target.resource_version, None, &body);
            patched.map(|object| Cluster::version_of(&object)).map_err(failure)
        }
        Verb::Release { owner } => {
            let held = cluster.get(resource, key).ok_or(Failure::Stale)?;
            let mut owners = held["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            owners.retain(|reference| reference["uid"] != owner.to_string());
            let body = json!({"metadata": {"ownerReferences": owners}});
            let patched = patch(cluster, target.resource_version, None, &body);
            patched.map(|object| Cluster::version_of(&object)).map_err(failure)
        }
    }
}

/// A create that met an object of that name: ours from an attempt whose reply was lost, or somebody else's.
fn settle_existing(
    cluster: &Cluster,
    resource: Resource,
    key: &Key,
    controller: Option<&Uid>,
) -> Result<u64, Failure> {
    let held = cluster.get(resource, key).ok_or(Failure::Stale)?;
    let owners = held["metadata"]["ownerReferences"].as_array();
    let is_ours = owners.into_iter().flatten().any(|owner| {
        owner["controller"] == true && owner["uid"].as_str().map(Uid::from).as_ref() == controller
    });
    if is_ours { Ok(cluster.revision()) } else { Err(Failure::Stale) }
}

/// Before an adoption, one live read: the owner must still be there and not be on its way out.
fn is_living(cluster: &Cluster, owner: &OwnerReference) -> Result<(), Failure> {
    let held = cluster.get(owner.resource, &owner.key).ok_or(Failure::Stale)?;
    let metadata = &held["metadata"];
    let is_same = metadata["uid"] == owner.uid.to_string();
    if is_same && metadata["deletionTimestamp"].is_null() { Ok(()) } else { Err(Failure::Stale) }
}

fn failure(error: ApiError) -> Failure {
    match error {
        ApiError::NotFound | ApiError::AlreadyExists | ApiError::Conflict(_) => Failure::Stale,
        ApiError::Forbidden(message) | ApiError::Invalid(message) => Failure::Refused(message),
    }
}
