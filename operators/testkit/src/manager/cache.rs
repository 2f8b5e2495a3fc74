//! A view of one resource as a watch delivers it: late by a number of events, with gaps that a relist ends, and
//! with events that arrive twice.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    rc::Rc,
    sync::Arc,
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use trysail_core::{Key, Object, Resource, Uid, View};

use crate::cluster::Cluster;

/// The objects of one resource as a watch delivered them so far.
#[derive(Debug)]
struct Cache<T> {
    resource: Resource,
    /// How many of the newest events are still on their way.
    lag: usize,
    /// The watch is cut; the resource is listed anew when so many further events have happened.
    cut: Option<usize>,
    /// Lists are given the other way round: decisions must not depend on the order.
    is_reversed: bool,
    objects: BTreeMap<Key, Arc<T>>,
    /// The keys of what each controller has: thousands of owners ask for their own at every look.
    owned: BTreeMap<Uid, BTreeSet<Key>>,
    next: usize,
    seen: u64,
    /// Counts what was delivered.
    changes: u64,
}

/// A shared handle on a view: what `observe` functions read.
pub struct Cached<T>(Rc<RefCell<Cache<T>>>);

/// What the manager does with views of any type.
pub(super) trait Feed {
    fn resource(&self) -> Resource;
    /// Delivers what has arrived by now.
    fn catch_up(&self, cluster: &Cluster);
    /// Replaces the content with a consistent list.
    fn relist(&self, cluster: &Cluster);
    fn lag(&self) -> usize;
    fn set_lag(&self, events: usize);
    /// The next events are not delivered: after them follows a list.
    fn cut(&self, events: usize);
    /// The last events are delivered once more.
    fn repeat(&self, events: usize);
    fn reverse(&self, is_reversed: bool);
    /// Everything up to this revision is in the view.
    fn seen(&self) -> u64;
    /// Grows with every delivery.
    fn changes(&self) -> u64;
    /// Every key with its incarnation.
    fn keys(&self) -> Vec<(Key, Uid)>;
}

impl<T: DeserializeOwned + Object> Cached<T> {
    /// An empty view: it is filled by a relist.
    pub(super) fn new(resource: Resource) -> Self {
        Self(Rc::new(RefCell::new(Cache {
            resource,
            lag: 0,
            cut: None,
            is_reversed: false,
            objects: BTreeMap::new(),
            owned: BTreeMap::new(),
            next: 0,
            seen: 0,
            changes: 0,
        })))
    }

    fn matching(&self, predicate: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let cache = self.0.borrow();
        let mut found: Vec<_> = cache.objects.values().filter(|object| predicate(object)).cloned().collect();
        if cache.is_reversed {
            found.reverse();
        }
        found
    }
}

impl<T: DeserializeOwned + Object> Cache<T> {
    /// As the SDK's store takes an event: what is older than what is held changes nothing.
    fn deliver(&mut self, revision: u64, key: &Key, object: Option<&Value>) {
        let held = self.objects.get(key).map_or(0, |held| held.resource_version());
        match object.and_then(decode::<T>) {
            Some(object) if object.resource_version() > held => {
                self.put(object);
            }
            None if revision > held => self.remove(key),
            _ => return,
        }
        self.changes += 1;
    }

    fn put(&mut self, object: T) {
        let key = object.key();
        self.remove(&key);
        if let Some(owner) = object.controller() {
            self.owned.entry(owner.clone()).or_default().insert(key.clone());
        }
        self.objects.insert(key, Arc::new(object));
    }

    fn remove(&mut self, key: &Key) {
        let removed = self.objects.remove(key);
        if let Some(owner) = removed.as_deref().and_then(Object::controller)
            && let Some(keys) = self.owned.get_mut(&owner)
        {
            keys.remove(key);
        }
    }
}

impl<T: DeserializeOwned + Object> Feed for Cached<T> {
    fn resource(&self) -> Resource {
        self.0.borrow().resource
    }

    fn catch_up(&self, cluster: &Cluster) {
        let mut cache = self.0.borrow_mut();
        let events = cluster.events(cache.resource);
        if let Some(missed) = cache.cut {
            let is_over = events.len() >= cache.next + missed;
            drop(cache);
            if is_over {
                self.relist(cluster);
            }
            return;
        }
        let until = events.len().saturating_sub(cache.lag).max(cache.next);
        for event in &events[cache.next..until] {
            cache.deliver(event.revision, &event.key, event.object.as_deref());
        }
        cache.next = until;
        // Bookmarks tell a watch how far it is when nothing of its resource happens.
        let missing = events.get(until).map_or(cluster.revision(), |missing| missing.revision - 1);
        cache.seen = missing.max(cache.seen);
    }

    fn relist(&self, cluster: &Cluster) {
        let mut cache = self.0.borrow_mut();
        let objects = cluster.list(cache.resource);
        cache.objects.clear();
        cache.owned.clear();
        objects.iter().filter_map(|object| decode::<T>(object)).for_each(|object| cache.put(object));
        cache.next = cluster.events(cache.resource).len();
        cache.seen = cluster.revision();
        cache.cut = None;
        cache.changes += 1;
    }

    fn lag(&self) -> usize {
        self.0.borrow().lag
    }

    fn set_lag(&self, events: usize) {
        self.0.borrow_mut().lag = events;
    }

    fn cut(&self, events: usize) {
        self.0.borrow_mut().cut = Some(events);
    }

    fn repeat(&self, events: usize) {
        let mut cache = self.0.borrow_mut();
        cache.next = cache.next.saturating_sub(events);
    }

    fn reverse(&self, is_reversed: bool) {
        self.0.borrow_mut().is_reversed = is_reversed;
    }

    fn seen(&self) -> u64 {
        self.0.borrow().seen
    }

    fn changes(&self) -> u64 {
        self.0.borrow().changes
    }

    fn keys(&self) -> Vec<(Key, Uid)> {
        self.0.borrow().objects.iter().map(|(key, object)| (key.clone(), object.uid())).collect()
    }
}

impl<T: DeserializeOwned + Object> View<T> for Cached<T> {
    fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.0.borrow().objects.get(key).cloned()
    }

    fn controlled_by(&self, owner: &Uid) -> Vec<Arc<T>> {
        let cache = self.0.borrow();
        let keys = cache.owned.get(owner).into_iter().flatten();
        let mut found: Vec<_> = keys.filter_map(|key| cache.objects.get(key)).cloned().collect();
        if cache.is_reversed {
            found.reverse();
        }
        found
    }

    fn orphans(&self, namespace: &str) -> Vec<Arc<T>> {
        self.matching(|object| object.controller().is_none() && object.key().namespace == namespace)
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.matching(|object| object.key().namespace == namespace)
    }
}

impl<T> Clone for Cached<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = self.0.borrow();
        write!(f, "Cached({}: {}, lag {})", cache.resource, cache.objects.len(), cache.lag)
    }
}

/// Objects that a view cannot read are not in it; the planners' own decoders are lenient where users may err.
fn decode<T: DeserializeOwned>(object: &Value) -> Option<T> {
    T::deserialize(object).ok()
}
