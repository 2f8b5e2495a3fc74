//! The API server: one revision counter, a log of events per resource, and the rules for writes.

mod actors;
mod api;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use trysail_core::{Key, Resource, Uid};

pub use actors::{Exit, Kubelet};
pub use api::key_of;
pub(crate) use rules::parse_indexes;

use crate::invariants::Invariants;

/// A refusal by the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// 404.
    NotFound,
    /// 409 on create.
    AlreadyExists,
    /// 409: a precondition on uid or resourceVersion does not hold.
    Conflict(String),
    /// 403: quota or admission.
    Forbidden(String),
    /// 422.
    Invalid(String),
}

/// A change as a watch delivers it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The revision of the change.
    pub revision: u64,
    /// What changed.
    pub key: Key,
    /// The object after the change; `None` when it is gone.
    pub object: Option<Arc<Value>>,
}

/// Who writes: the invariants judge only the controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A user, a kubelet, the garbage collector.
    Other,
    /// One of the controllers under test.
    Controller,
}

/// What the server refuses or changes beyond its own rules.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// At most so many pods that have not finished.
    pub pod_quota: Option<usize>,
    /// Refuses `(verb, resource's plural)` with a message.
    pub deny: BTreeMap<(&'static str, String), String>,
    /// A webhook that adds this annotation to the template of every ReplicaSet that is created.
    pub stamp_templates: Option<(String, String)>,
}

/// The simulated cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The clock of everybody.
    pub now: Timestamp,
    /// Additional refusals.
    pub policy: Policy,
    /// How pods behave.
    pub kubelet: Kubelet,
    /// Judges every write.
    pub invariants: Invariants,
    revision: u64,
    uids: u64,
    controller_writes: usize,
    objects: BTreeMap<Resource, BTreeMap<Key, Arc<Value>>>,
    /// Where the object of each uid is.
    places: BTreeMap<Uid, (Resource, Key)>,
    log: BTreeMap<Resource, Vec<Event>>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            now: Timestamp::constant(1_767_225_600, 0),
            policy: Policy::default(),
            kubelet: Kubelet::default(),
            invariants: Invariants::default(),
            revision: 0,
            uids: 0,
            controller_writes: 0,
            objects: BTreeMap::new(),
            places: BTreeMap::new(),
            log: BTreeMap::new(),
        }
    }
}

impl Cluster {
    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A consistent read.
    pub fn get(&self, resource: Resource, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(&resource)?.get(key).cloned()
    }

    /// A consistent read by uid, where the resource is one of these.
    pub fn find(&self, resources: &[Resource], uid: &str) -> Option<Arc<Value>> {
        let (resource, key) = self.places.get(&Uid::from(uid))?;
        if resources.contains(resource) { self.get(*resource, key) } else { None }
    }

    /// A consistent list, by key.
    pub fn list(&self, resource: Resource) -> Vec<Arc<Value>> {
        self.objects.get(&resource).into_iter().flatten().map(|(_, object)| Arc::clone(object)).collect()
    }

    /// Everything there is.
    fn all(&self) -> Vec<(Resource, Arc<Value>)> {
        let resources = self.objects.iter();
        let objects = resources.flat_map(|(resource, held)| held.values().map(|object| (*resource, object)));
        objects.map(|(resource, object)| (resource, Arc::clone(object))).collect()
    }

    /// All changes of a resource so far.
    pub fn events(&self, resource: Resource) -> &[Event] {
        self.log.get(&resource).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many writes of controllers changed something.
    pub fn controller_writes(&self) -> usize {
        self.controller_writes
    }

    /// How many objects of a resource were ever created.
    pub fn created(&self, resource: Resource) -> usize {
        let objects = self.events(resource).iter().filter_map(|event| event.object.as_ref());
        objects.map(|object| Self::uid_of(object)).collect::<BTreeSet<_>>().len()
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: SignedDuration) {
        self.now += by;
    }

    fn uid_of(object: &Value) -> Uid {
        Uid::from(object["metadata"]["uid"].as_str().unwrap_or_default())
    }

    pub(crate) fn version_of(object: &Value) -> u64 {
        object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Stores or removes an object and tells the watches.
    fn commit(&mut self, resource: Resource, key: &Key, object: Option<Value>, writer: Writer) -> u64 {
        self.revision += 1;
        self.controller_writes += usize::from(writer == Writer::Controller);
        let object = object.map(|mut object| {
            object["metadata"]["resourceVersion"] = self.revision.to_string().into();
            Arc::new(object)
        });
        let held = self.objects.entry(resource).or_default();
        let before = match &object {
            Some(object) => held.insert(key.clone(), Arc::clone(object)),
            None => held.remove(key),
        };
        if let Some(gone) = before.as_deref() {
            self.places.remove(&Self::uid_of(gone));
        }
        if let Some(object) = object.as_deref() {
            self.places.insert(Self::uid_of(object), (resource, key.clone()));
        }
        let event = Event { revision: self.revision, key: key.clone(), object: object.clone() };
        self.log.entry(resource).or_default().push(event);
        let mut invariants = std::mem::take(&mut self.invariants);
        invariants.judge(self, resource, before.as_deref(), object.as_deref(), writer);
        self.invariants = invariants;
        self.revision
    }
}
