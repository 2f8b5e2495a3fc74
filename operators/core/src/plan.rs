//! What a decision returns: everything that is to be done, in order, and everything it waits for.
//!
//! A plan leaves nothing to choose: names, sizes and order are in it. Printed, it is the debug log, the dry
//! run and the test snapshot.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

use crate::{Json, Key, Resource, Uid};

/// The decision for one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<M = ()> {
    /// A wave starts only when the one before succeeded; inside a wave, actions run in parallel with slow start.
    pub waves: Vec<Vec<Action>>,
    /// Why there is nothing (more) to do for now.
    pub waiting_on: Vec<WaitingOn>,
    /// Told about the owner whatever becomes of the actions.
    pub events: Vec<EventNote>,
    /// When to look again though nothing happens.
    pub requeue_at: Option<Timestamp>,
    /// What the next look should remember and the API does not hold. Lost on restart.
    pub memory: M,
    /// The same, should every action be done: then it is known what became of them.
    pub memory_when_done: Option<M>,
}

impl<M: Default> Default for Plan<M> {
    fn default() -> Self {
        Self {
            waves: Vec::new(),
            waiting_on: Vec::new(),
            events: Vec::new(),
            requeue_at: None,
            memory: M::default(),
            memory_when_done: None,
        }
    }
}

impl<M> Plan<M> {
    /// Appends a wave, unless it is empty.
    pub fn wave(&mut self, actions: Vec<Action>) {
        if !actions.is_empty() {
            self.waves.push(actions);
        }
    }

    /// Looks again at `at` or earlier.
    pub fn requeue_by(&mut self, at: Timestamp) {
        self.requeue_at = Some(self.requeue_at.map_or(at, |already| already.min(at)));
    }

    /// All actions, in order.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.waves.iter().flatten()
    }

    /// True when nothing is to be done.
    pub fn is_idle(&self) -> bool {
        self.waves.is_empty()
    }
}

/// One effect. It is idempotent: creates by name, patches by resourceVersion, deletes by uid.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// What is acted upon.
    pub target: Target,
    /// What is done.
    pub verb: Verb,
    /// One CamelCase word: metric label and log field.
    pub reason: &'static str,
    /// The same in words, for plans that people read.
    pub because: String,
    /// Recorded about the owner when the action succeeded.
    pub on_success: Option<EventNote>,
    /// Recorded about the owner when the server refused the action; the error is appended to the message.
    pub on_failure: Option<EventNote>,
}

/// The object an action is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its resource.
    pub resource: Resource,
    /// Its key.
    pub key: Key,
    /// Which incarnation was judged; `None` for creates.
    pub uid: Option<Uid>,
    /// Which version was judged; 0 for creates.
    pub resource_version: u64,
}

/// What is done to a [`Target`].
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Create it. `AlreadyExists` is success when the object there has the same controller.
    Create {
        /// The uid that the created object's controller reference has.
        controller: Option<Uid>,
        /// The whole object.
        body: Json,
    },
    /// JSON merge patch, with uid and resourceVersion of the target as preconditions.
    Patch {
        /// `Some("status")` for a status write.
        subresource: Option<&'static str>,
        /// The patch without the preconditions.
        body: Value,
    },
    /// The same patch, after a live read has shown that `owner` is gone: a cache may not show it yet. While the owner
    /// lives this is a conflict, and the next look comes when the cache shows it.
    PatchOrphan {
        /// Who must not live any more.
        owner: OwnerReference,
        /// The patch without the preconditions.
        body: Value,
    },
    /// Delete it with its default grace period, with the uid as a precondition.
    Delete {
        /// What becomes of dependents; the server's default when `None`.
        propagation: Option<Propagation>,
    },
    /// Make `owner` its controller, after a live read has shown that the owner lives.
    Adopt {
        /// The owner to be.
        owner: OwnerReference,
    },
    /// Remove the owner reference with that uid.
    Release {
        /// The owner that lets go.
        owner: Uid,
    },
}

/// `DeleteOptions.propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents are collected after the object is gone.
    Background,
    /// The object goes after its blocking dependents.
    Foreground,
    /// Dependents stay.
    Orphan,
}

/// A controlling owner reference.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnerReference {
    /// The owner's resource.
    pub resource: Resource,
    /// The owner's key: in the child's namespace.
    pub key: Key,
    /// The owner's incarnation.
    pub uid: Uid,
}

impl OwnerReference {
    /// The entry of `metadata.ownerReferences`.
    pub fn to_value(&self) -> Value {
        serde_json::json!({
            "apiVersion": self.resource.api_version(),
            "kind": self.resource.kind,
            "name": &*self.key.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}

/// An event about the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Something went wrong.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl EventNote {
    /// An event of type Normal.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into() }
    }

    /// An event of type Warning.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }
}

/// Why nothing (more) is done for now, as a value that people and tests read alike.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitingOn {
    /// Pods that are still to be created, become ready or become available.
    Pods {
        /// `created`, `ready`, `available`.
        state: &'static str,
        /// How many are.
        have: i32,
        /// How many should be.
        want: i32,
    },
    /// Pods that are still terminating.
    Terminating {
        /// How many.
        pods: i32,
    },
    /// One object on which everything else depends.
    Object {
        /// Its resource.
        resource: Resource,
        /// Its key.
        key: Key,
        /// What it has to do: `become ready`, `be gone`.
        until: &'static str,
    },
    /// Another controller that has not acted on our last write yet.
    Observation {
        /// Whose.
        resource: Resource,
        /// Of which object.
        key: Key,
    },
    /// The API server refused the last attempt.
    Refused {
        /// With these words.
        message: String,
        /// When it is tried again.
        retry_at: Timestamp,
    },
    /// `spec.paused`.
    Paused,
    /// The object itself is being deleted.
    Deletion,
    /// The user has to change something.
    User {
        /// What.
        what: String,
    },
    /// A point in time.
    Time {
        /// When.
        at: Timestamp,
        /// For what.
        what: &'static str,
    },
}

impl fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitingOn::Pods { state, have, want } => write!(f, "{have} of {want} pods {state}"),
            WaitingOn::Terminating { pods } => write!(f, "{pods} pods still terminating"),
            WaitingOn::Object { resource, key, until } => write!(f, "{resource} {key} to {until}"),
            WaitingOn::Observation { resource, key } => write!(f, "{resource} {key} to be acted upon"),
            WaitingOn::Refused { message, retry_at } => {
                write!(f, "the API server, which refused: {message} (next attempt at {retry_at})")
            }
            WaitingOn::Paused => f.write_str("spec.paused to be unset"),
            WaitingOn::Deletion => f.write_str("its own deletion"),
            WaitingOn::User { what } => write!(f, "you: {what}"),
            WaitingOn::Time { at, what } => write!(f, "{at}: {what}"),
        }
    }
}

/// What the runtime knows beside the API's objects when a decision is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Context<M> {
    /// The time of this look.
    pub now: Timestamp,
    /// What the last plan for this incarnation of the key asked to remember.
    pub memory: M,
    /// The API server's last refusal for this key, until an action succeeds.
    pub refusal: Option<Refusal>,
}

/// An action that the API server refused for good reasons of its own: quota, admission, validation.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The refused action's reason, e.g. `SuccessfulCreate` would-be.
    pub action: &'static str,
    /// The server's words.
    pub message: String,
    /// How often in a row.
    pub attempts: u32,
    /// Creates and deletes are not planned again before.
    pub retry_at: Timestamp,
}

/// The audit's finding: a plan that breaks an invariant. It is dropped, reported and counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plan breaks an invariant: {0}")]
pub struct Violation(pub String);

/// A controller's brain: pure, synchronous, total, deterministic.
pub trait Planner: Send + Sync + 'static {
    /// Everything that is read.
    type Snapshot;
    /// What is remembered between looks.
    type Memory: Clone + Default + PartialEq + Send + Sync + 'static;

    /// The controller's name in logs, metrics and events, e.g. `deployment-controller`.
    fn name(&self) -> &'static str;

    /// Decides.
    fn plan(&self, snapshot: &Self::Snapshot) -> Plan<Self::Memory>;

    /// Checks a plan against separately written invariants before it is applied.
    fn audit(&self, snapshot: &Self::Snapshot, plan: &Plan<Self::Memory>) -> Result<(), Violation>;
}

impl<M> fmt::Display for Plan<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, wave) in self.waves.iter().enumerate() {
            for action in wave {
                writeln!(f, "{}. {action}", number + 1)?;
            }
        }
        for event in &self.events {
            writeln!(f, "event {}: {}", event.reason, event.message)?;
        }
        for waiting in &self.waiting_on {
            writeln!(f, "waiting on {waiting}")?;
        }
        if let Some(at) = self.requeue_at {
            writeln!(f, "look again at {at}")?;
        }
        if self.waves.is_empty()
            && self.waiting_on.is_empty()
            && self.events.is_empty()
            && self.requeue_at.is_none()
        {
            writeln!(f, "nothing to do")?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { resource, key, .. } = &self.target;
        match &self.verb {
            Verb::Create { .. } => write!(f, "create {resource} {key}")?,
            Verb::Patch { subresource: Some(sub), body } => {
                let body = body.get(sub).unwrap_or(body);
                write!(f, "patch {resource} {key} {sub} {body}")?;
            }
            Verb::Patch { subresource: None, body } => write!(f, "patch {resource} {key} {body}")?,
            Verb::PatchOrphan { owner, body } => {
                write!(f, "patch {resource} {key} {body} if {} {} is gone", owner.resource, owner.key)?;
            }
            Verb::Delete { .. } => write!(f, "delete {resource} {key}")?,
            Verb::Adopt { .. } => write!(f, "adopt {resource} {key}")?,
            Verb::Release { .. } => write!(f, "release {resource} {key}")?,
        }
        if self.because.is_empty() { Ok(()) } else { write!(f, " ({})", self.because) }
    }
}
