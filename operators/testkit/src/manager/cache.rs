//! A view of one resource that may lag behind the server by a number of events, never back in time.

use std::{collections::BTreeMap, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value;
use trysail_core::{Key, Object, Resource, Uid, View};

use crate::cluster::Cluster;

/// The objects of one resource as a watch delivered them so far.
#[derive(Debug)]
pub struct Cache<T> {
    /// How many of the newest events are still on their way.
    pub lag: usize,
    resource: Resource,
    objects: BTreeMap<Key, Arc<T>>,
    next: usize,
    seen: u64,
}

impl<T: DeserializeOwned + Object> Cache<T> {
    /// A consistent list.
    pub fn list(resource: Resource, cluster: &Cluster) -> Self {
        let objects = cluster.list(resource);
        let objects = objects.iter().filter_map(|object| decode::<T>(object));
        Self {
            lag: 0,
            resource,
            objects: objects.map(|object| (object.key(), Arc::new(object))).collect(),
            next: cluster.events(resource).len(),
            seen: cluster.revision(),
        }
    }

    /// Delivers what has arrived by now.
    pub fn catch_up(&mut self, cluster: &Cluster) {
        let events = cluster.events(self.resource);
        let until = events.len().saturating_sub(self.lag).max(self.next);
        for event in &events[self.next..until] {
            match event.object.as_deref().and_then(decode::<T>) {
                Some(object) => self.objects.insert(event.key.clone(), Arc::new(object)),
                None => self.objects.remove(&event.key),
            };
        }
        self.next = until;
        // Bookmarks tell a watch how far it is when nothing of its resource happens.
        self.seen =
            events.get(until).map_or(cluster.revision(), |missing| missing.revision - 1).max(self.seen);
    }

    /// Everything up to this revision is in the view.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// What it holds.
    pub fn resource(&self) -> Resource {
        self.resource
    }

    /// Every key with its incarnation.
    pub fn keys(&self) -> Vec<(Key, Uid)> {
        self.objects.iter().map(|(key, object)| (key.clone(), object.uid())).collect()
    }

    /// The same view with its lists the other way round: decisions must not depend on the order.
    pub fn reversed(&self) -> Reversed<'_, T> {
        Reversed(self)
    }

    fn matching(&self, predicate: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        self.objects.values().filter(|object| predicate(object)).cloned().collect()
    }
}

/// See [`Cache::reversed`].
#[derive(Debug)]
pub struct Reversed<'a, T>(&'a Cache<T>);

impl<T: DeserializeOwned + Object> View<T> for Reversed<'_, T> {
    fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.0.get(key)
    }

    fn controlled_by(&self, owner: &Uid) -> Vec<Arc<T>> {
        self.0.controlled_by(owner).into_iter().rev().collect()
    }

    fn orphans(&self, namespace: &str) -> Vec<Arc<T>> {
        self.0.orphans(namespace).into_iter().rev().collect()
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.0.in_namespace(namespace).into_iter().rev().collect()
    }
}

fn decode<T: DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.clone()).ok()
}

impl<T: DeserializeOwned + Object> View<T> for Cache<T> {
    fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.objects.get(key).cloned()
    }

    fn controlled_by(&self, owner: &Uid) -> Vec<Arc<T>> {
        self.matching(|object| object.controller().as_ref() == Some(owner))
    }

    fn orphans(&self, namespace: &str) -> Vec<Arc<T>> {
        self.matching(|object| object.controller().is_none() && object.key().namespace == namespace)
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.matching(|object| object.key().namespace == namespace)
    }
}
