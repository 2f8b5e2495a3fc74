//! How a plan is carried out: waves in order, slow start inside a wave, preconditions on every write, and what
//! each kind of failure leads to.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trysail_core::{
    Key, Resource, Uid,
    plan::{Action, EventNote, OwnerReference, Plan, Verb},
};

use super::{
    Faults,
    informers::Informers,
    memory::{Report, Verdict},
};
use crate::cluster::{ApiError, Cluster, Writer};

/// What a controller needs of its process.
pub(super) struct Desk<'a> {
    pub(super) informers: &'a Informers,
    pub(super) is_gated: bool,
    pub(super) faults: &'a mut Faults,
    pub(super) journal: &'a mut Vec<String>,
    pub(super) actions: &'a mut usize,
}

/// What came of one plan.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) done: usize,
    pub(super) crashed: bool,
    /// Something was overtaken or went unanswered: the key is looked at again.
    pub(super) is_open: bool,
    /// Which revisions have to be seen before that.
    pub(super) gate: BTreeMap<Resource, u64>,
    pub(super) reports: Vec<Report>,
}

impl Outcome {
    fn hold(&mut self, resource: Resource, revision: u64) {
        let held = self.gate.entry(resource).or_insert(0);
        *held = revision.max(*held);
    }
}

enum Failure {
    /// Seen differently next time.
    Stale,
    /// An owner that is thought to be gone is not: the view of owners is behind.
    OwnerLives(Resource),
    /// Somebody else has the name.
    NameTaken,
    /// The server does not want it.
    Refused(String),
}

impl Desk<'_> {
    /// True while a view has not shown what is waited for.
    pub(super) fn is_behind(&self, gate: &BTreeMap<Resource, u64>) -> bool {
        self.is_gated && gate.iter().any(|(resource, revision)| self.informers.seen(*resource) < *revision)
    }

    pub(super) fn apply<M>(&mut self, cluster: &mut Cluster, plan: &Plan<M>) -> Outcome {
        let mut outcome = Outcome::default();
        for note in &plan.events {
            self.tell(note, "");
        }
        let mut going = true;
        for wave in &plan.waves {
            let tried = if going { self.apply_wave(cluster, wave, &mut outcome) } else { 0 };
            if outcome.crashed {
                return outcome;
            }
            going &= tried == wave.len() && !outcome.is_open && !refused(&outcome);
            let skipped = wave[tried..].iter().map(|action| Report::new(action, Verdict::Open));
            outcome.reports.extend(skipped);
        }
        outcome
    }

    /// 1, 2, 4 … actions at a time while all succeed; answers how many were tried.
    fn apply_wave(&mut self, cluster: &mut Cluster, wave: &[Action], outcome: &mut Outcome) -> usize {
        let (mut tried, mut size) = (0, 1);
        while tried < wave.len() {
            let mut failed = false;
            for action in wave[tried..].iter().take(size) {
                let verdict = self.apply_action(cluster, action, outcome);
                failed |= verdict != Verdict::Done;
                outcome.reports.push(Report::new(action, verdict));
                tried += 1;
                *self.actions += 1;
                if count_down(&mut self.faults.crash_after) {
                    outcome.crashed = true;
                    return tried;
                }
            }
            if failed {
                break;
            }
            size *= 2;
        }
        tried
    }

    fn apply_action(&mut self, cluster: &mut Cluster, action: &Action, outcome: &mut Outcome) -> Verdict {
        let resource = action.target.resource;
        let is_lost = count_down(&mut self.faults.lose_request_after);
        let result = if is_lost { Err(Failure::Stale) } else { execute(cluster, action) };
        if count_down(&mut self.faults.lose_reply_after) || is_lost {
            // Whatever became of it: the key is held until a consistent read has caught up with it.
            outcome.hold(resource, cluster.revision());
            outcome.is_open = true;
            outcome.done += 1;
            return Verdict::Open;
        }
        match result {
            Ok(revision) => {
                self.note(action);
                if let Some(note) = &action.on_success {
                    self.tell(note, "");
                }
                outcome.hold(resource, revision);
                outcome.done += 1;
                Verdict::Done
            }
            Err(failure) => {
                outcome.is_open |= !matches!(failure, Failure::Refused(_));
                match failure {
                    // The view is known to be behind: to look again before it has followed repeats the conflict.
                    Failure::Stale => outcome.hold(resource, cluster.revision()),
                    Failure::OwnerLives(owners) => outcome.hold(owners, cluster.revision()),
                    Failure::NameTaken => {}
                    Failure::Refused(message) => {
                        self.journal.push(format!("refused {action}: {message}"));
                        if let Some(note) = &action.on_failure {
                            self.tell(note, &format!(": {message}"));
                        }
                        return Verdict::Refused(message);
                    }
                }
                Verdict::Open
            }
        }
    }

    fn tell(&mut self, note: &EventNote, error: &str) {
        let kind = if note.warning { "Warning" } else { "Normal" };
        self.journal.push(format!("event {kind} {}: {}{error}", note.reason, note.message));
    }

    fn note(&mut self, action: &Action) {
        if action.reason != "UpdateStatus" {
            self.journal.push(action.to_string());
        }
    }
}

fn refused(outcome: &Outcome) -> bool {
    outcome.reports.iter().any(|report| matches!(report.verdict, Verdict::Refused(_)))
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
        let patched = cluster.patch(resource, key, (uid, version), subresource, body, Writer::Controller);
        patched.map(|object| Cluster::version_of(&object)).map_err(failure)
    };
    match &action.verb {
        Verb::Create { controller, body } => {
            match cluster.create(resource, body.to_value(), Writer::Controller) {
                Ok(object) => Ok(Cluster::version_of(&object)),
                Err(ApiError::AlreadyExists) => settle_existing(cluster, resource, key, controller.as_ref()),
                Err(error) => Err(failure(error)),
            }
        }
        Verb::Patch { subresource, body } => patch(cluster, target.resource_version, *subresource, body),
        Verb::PatchOrphan { owner, body } => {
            let live = cluster.get(owner.resource, &owner.key);
            if live.is_some_and(|live| live["metadata"]["uid"] == owner.uid.to_string()) {
                return Err(Failure::OwnerLives(owner.resource));
            }
            patch(cluster, target.resource_version, None, body)
        }
        Verb::Delete { propagation } => {
            match cluster.delete_with(resource, key, uid, *propagation, Writer::Controller) {
                Ok(revision) => Ok(revision),
                Err(ApiError::NotFound | ApiError::Conflict(_)) => Ok(cluster.revision()),
                Err(error) => Err(failure(error)),
            }
        }
        Verb::Adopt { owner } => {
            is_living(cluster, owner)?;
            let held = cluster.get(resource, key).ok_or(Failure::Stale)?;
            let mut owners = held["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            owners.push(owner.to_value());
            let body = json!({"metadata": {"ownerReferences": owners}});
            patch(cluster, target.resource_version, None, &body)
        }
        Verb::Release { owner } => {
            let held = cluster.get(resource, key).ok_or(Failure::Stale)?;
            let mut owners = held["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            owners.retain(|reference| reference["uid"] != owner.to_string());
            let body = json!({"metadata": {"ownerReferences": owners}});
            patch(cluster, target.resource_version, None, &body)
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
    let owners = held["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let mut controllers = owners.filter(|owner| owner["controller"] == true);
    let held_by = controllers.next().and_then(|owner| owner["uid"].as_str()).map(Uid::from);
    if held_by.as_ref() == controller { Ok(cluster.revision()) } else { Err(Failure::NameTaken) }
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
