//! One action against the API server: its requests, and what their answers mean for it.

use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore};
use trysail_core::{
    Action, Json, Key, Uid,
    plan::{OwnerReference, Propagation, Target, Verb},
};

use super::{Applier, Verdict};
use crate::{
    client::{Class, Deleted, Error, LiveMeta, Preconditions, WriteReply},
    gate::{Attempt, Gate},
};

/// The application of one plan.
pub(super) struct Session<'a> {
    pub(super) applier: &'a Applier,
    pub(super) gate: &'a Gate,
    /// The key that the plan is for.
    pub(super) key: &'a Key,
    /// Why the owner may not adopt; read live once per plan.
    pub(super) owner: OnceCell<Result<(), Verdict>>,
    /// The plan's share of the slots.
    pub(super) share: Semaphore,
}

/// A write that has begun. Dropped before its answer was judged (the sync was cancelled, or panicked), its
/// outcome is unknown, and the gate has to find out.
struct InFlight<'a> {
    session: &'a Session<'a>,
    attempt: Option<Attempt>,
}

impl Session<'_> {
    pub(super) async fn run(&self, action: &Action) -> Verdict {
        if self.applier.closed && matches!(action.verb, Verb::Create { .. }) {
            return Verdict::NamespaceTerminating;
        }
        // Neither semaphore is ever closed. The share comes first: a plan lines up for no more slots than that.
        let _share = self.share.acquire().await;
        let _slot = self.applier.slots.acquire().await;
        let target = &action.target;
        let verdict = match &action.verb {
            Verb::Create { controller, body } => self.create(target, controller.as_ref(), body).await,
            Verb::Patch { subresource, body } => self.patch(target, *subresource, body).await,
            Verb::PatchOrphan { owner, body } => self.patch_orphan(target, owner, body).await,
            Verb::Delete { propagation } => self.delete(target, *propagation).await,
            Verb::Adopt { owner } => self.adopt(target, owner).await,
            Verb::Release { owner } => self.release(target, owner).await,
        };
        tracing::debug!(key = %self.key, %action, ?verdict, "applied");
        verdict
    }

    async fn create(&self, target: &Target, controller: Option<&Uid>, body: &Json) -> Verdict {
        let Target { resource, key, .. } = target;
        let write = self.begin(target, false);
        let reply = self.applier.client.create(resource, &key.namespace, body).await;
        match reply {
            Err(error) if error.class() == Class::AlreadyExists => {
                let verdict = self.judge_namesake(target, controller).await;
                write.end(verdict)
            }
            reply => write.end_with(reply),
        }
    }

    /// Someone has the name: we ourselves, when the reply to an earlier create was lost.
    async fn judge_namesake(&self, target: &Target, controller: Option<&Uid>) -> Verdict {
        let Target { resource, key, .. } = target;
        match self.applier.client.get_meta(resource, key).await {
            Ok(live) if live.meta.controller.as_ref() == controller => {
                self.gate.wrote(self.key, resource, &key.namespace, live.meta.resource_version);
                Verdict::Done
            }
            Ok(_) => Verdict::NameTaken { name: key.clone() },
            Err(error) if error.class() == Class::Gone => {
                Verdict::Conflict { message: format!("{resource} {key} existed and is gone again") }
            }
            Err(error) => verdict(&error),
        }
    }

    async fn patch(&self, target: &Target, subresource: Option<&'static str>, body: &Value) -> Verdict {
        let Target { resource, key, uid, resource_version } = target;
        let preconditions = Preconditions { uid: uid.clone(), resource_version: *resource_version };
        let body = preconditions.into_patch(body.clone());
        let write = self.begin(target, false);
        let reply = self.applier.client.merge_patch(resource, key, subresource, &body).await;
        write.end_with(reply)
    }

    async fn patch_orphan(&self, target: &Target, owner: &OwnerReference, body: &Value) -> Verdict {
        let OwnerReference { resource, key, uid } = owner;
        match self.applier.client.get_meta(resource, key).await {
            // Also one that is being deleted: while it is there, what it owns is its own business.
            Ok(live) if live.meta.uid == *uid => {
                let message = format!("{resource} {key} still lives");
                let living = Target {
                    resource: *resource,
                    key: key.clone(),
                    uid: Some(uid.clone()),
                    resource_version: live.meta.resource_version,
                };
                self.begin(&living, false).end(Verdict::Conflict { message })
            }
            Ok(_) => self.patch(target, None, body).await,
            Err(error) if error.class() == Class::Gone => self.patch(target, None, body).await,
            Err(error) => verdict(&error),
        }
    }

    async fn delete(&self, target: &Target, propagation: Option<Propagation>) -> Verdict {
        let Target { resource, key, uid, .. } = target;
        let Some(uid) = uid else {
            let message = format!("the plan deletes {resource} {key} without its uid");
            return Verdict::Failed { message };
        };
        let write = self.begin(target, true);
        let answer = self.applier.client.delete(resource, key, uid, propagation).await;
        let verdict = match answer {
            Ok(Deleted::Terminating(_) | Deleted::Gone) => Verdict::Done,
            Err(error) if error.class() == Class::Gone => Verdict::Done,
            // The uid did not match, or the object changed while it was being deleted: the words of the server
            // differ from kind to kind, so the object itself is asked.
            Err(error) if error.class() == Class::Conflict => {
                match self.applier.client.get_meta(resource, key).await {
                    Ok(live) if live.meta.uid == *uid => verdict(&error),
                    Ok(_) => Verdict::Done,
                    Err(gone) if gone.class() == Class::Gone => Verdict::Done,
                    Err(_) => verdict(&error),
                }
            }
            Err(error) => verdict(&error),
        };
        if verdict.is_done() {
            self.gate.deleted(self.key, resource, key, uid);
        }
        write.end(verdict)
    }

    async fn adopt(&self, target: &Target, owner: &OwnerReference) -> Verdict {
        let alive = self.owner.get_or_init(|| self.judge_owner(owner)).await;
        if let Err(verdict) = alive {
            return verdict.clone();
        }
        let Target { resource, key, uid, .. } = target;
        let live = match self.applier.client.get_meta(resource, key).await {
            Ok(live) => live,
            Err(error) if error.class() == Class::Gone => return self.changed(target),
            Err(error) => return verdict(&error),
        };
        if uid.as_ref().is_some_and(|uid| *uid != live.meta.uid) || live.meta.is_terminating() {
            return self.changed(target);
        }
        match &live.meta.controller {
            Some(controller) if *controller == owner.uid => {
                self.gate.wrote(self.key, resource, &key.namespace, live.meta.resource_version);
                return Verdict::Done;
            }
            Some(_) => return self.changed(target),
            None => {}
        }
        let mut references = without(&live, &owner.uid);
        references.push(owner.to_value());
        self.write_references(target, &live, references).await
    }

    /// A cache may show an owner that is gone; what it adopted would be collected as garbage.
    async fn judge_owner(&self, owner: &OwnerReference) -> Result<(), Verdict> {
        let OwnerReference { resource, key, uid } = owner;
        let target =
            Target { resource: *resource, key: key.clone(), uid: Some(uid.clone()), resource_version: 0 };
        match self.applier.client.get_meta(resource, key).await {
            Ok(live) if live.meta.uid == *uid && !live.meta.is_terminating() => Ok(()),
            Ok(_) => Err(self.changed(&target)),
            Err(error) if error.class() == Class::Gone => Err(self.changed(&target)),
            Err(error) => Err(verdict(&error)),
        }
    }

    async fn release(&self, target: &Target, owner: &Uid) -> Verdict {
        let Target { resource, key, uid, .. } = target;
        let live = match self.applier.client.get_meta(resource, key).await {
            Ok(live) if uid.as_ref().is_none_or(|uid| *uid == live.meta.uid) => live,
            Err(error) if error.class() != Class::Gone => return verdict(&error),
            // What is gone needs no release.
            Ok(_) | Err(_) => {
                if let Some(uid) = uid {
                    self.gate.deleted(self.key, resource, key, uid);
                }
                return Verdict::Done;
            }
        };
        let references = without(&live, owner);
        if references.len() == live.owner_references.len() {
            self.gate.wrote(self.key, resource, &key.namespace, live.meta.resource_version);
            return Verdict::Done;
        }
        // An object that goes meanwhile is a conflict: the next look finds it gone.
        self.write_references(target, &live, references).await
    }

    async fn write_references(&self, target: &Target, live: &LiveMeta, references: Vec<Value>) -> Verdict {
        let Target { resource, key, .. } = target;
        let preconditions =
            Preconditions { uid: Some(live.meta.uid.clone()), resource_version: live.meta.resource_version };
        let body = preconditions.into_patch(json!({"metadata": {"ownerReferences": references}}));
        let write = self.begin(target, false);
        let reply = self.applier.client.merge_patch(resource, key, None, &body).await;
        write.end_with(reply)
    }

    /// A live read shows another state than the stores do: the gate holds the key until they follow.
    fn changed(&self, target: &Target) -> Verdict {
        let Target { resource, key, .. } = target;
        let message = format!("{resource} {key} is gone, being deleted, or under another controller by now");
        self.begin(target, true).end(Verdict::Conflict { message })
    }

    fn begin(&self, target: &Target, delete: bool) -> InFlight<'_> {
        let attempt = Attempt {
            resource: target.resource,
            object: target.key.clone(),
            uid: target.uid.clone(),
            delete,
        };
        InFlight { session: self, attempt: Some(attempt) }
    }
}

impl InFlight<'_> {
    /// Judges the reply to a create or patch.
    fn end_with(self, reply: Result<WriteReply, Error>) -> Verdict {
        let verdict = match reply {
            Ok(reply) => {
                if let Some(Attempt { resource, object, .. }) = &self.attempt {
                    let Session { gate, key, .. } = self.session;
                    gate.wrote(key, resource, &object.namespace, reply.resource_version());
                }
                Verdict::Done
            }
            Err(error) => verdict(&error),
        };
        self.end(verdict)
    }

    /// After a conflict the store is known to be behind: to look again before it shows what the server has
    /// would only repeat the conflict.
    fn end(mut self, verdict: Verdict) -> Verdict {
        if !matches!(verdict, Verdict::Unknown { .. } | Verdict::Conflict { .. }) {
            self.attempt = None;
        }
        verdict
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.session.gate.unknown(self.session.key, attempt);
        }
    }
}

/// The one mapping from errors to verdicts.
fn verdict(error: &Error) -> Verdict {
    match error.class() {
        Class::Conflict | Class::AlreadyExists | Class::Gone | Class::Expired => {
            Verdict::Conflict { message: error.message() }
        }
        Class::Refused => Verdict::Refused { message: error.message() },
        Class::NamespaceTerminating => Verdict::NamespaceTerminating,
        Class::Throttled(after) => Verdict::Throttled { after },
        Class::Unauthorized | Class::NotSent => Verdict::Failed { message: error.message() },
        Class::Unknown => Verdict::Unknown { message: error.message() },
        Class::Fenced => Verdict::Fenced,
    }
}

fn without(live: &LiveMeta, owner: &Uid) -> Vec<Value> {
    let owner = owner.to_string();
    let references = live.owner_references.iter().filter(|reference| reference["uid"] != owner.as_str());
    references.cloned().collect()
}
