//! The views of one process: one per resource and type, shared by its controllers.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    fmt,
    rc::Rc,
};

use serde::de::DeserializeOwned;
use trysail_core::{Object, Resource};

use super::cache::{Cached, Feed};
use crate::cluster::Cluster;

/// The views of one process.
#[derive(Default)]
pub struct Informers {
    typed: BTreeMap<(Resource, TypeId), Rc<dyn Any>>,
    feeds: Vec<Rc<dyn Feed>>,
    /// Which of them the controller that is being wired reads.
    used: Vec<usize>,
}

impl Informers {
    /// The view of a resource; the same one for everybody who asks for it in that type.
    pub fn of<T: DeserializeOwned + Object>(&mut self, resource: Resource) -> Cached<T> {
        let id = (resource, TypeId::of::<T>());
        let held = self.typed.get(&id).and_then(|held| held.downcast_ref::<(usize, Cached<T>)>());
        let (place, view) = held.cloned().unwrap_or_else(|| {
            let view = Cached::new(resource);
            self.feeds.push(Rc::new(view.clone()));
            let entry = (self.feeds.len() - 1, view);
            self.typed.insert(id, Rc::new(entry.clone()));
            entry
        });
        self.used.push(place);
        view
    }

    /// The views that were asked for since the last call.
    pub(super) fn take_used(&mut self) -> Vec<Rc<dyn Feed>> {
        std::mem::take(&mut self.used).into_iter().map(|place| Rc::clone(&self.feeds[place])).collect()
    }

    pub(super) fn catch_up(&self, cluster: &Cluster) {
        self.feeds.iter().for_each(|feed| feed.catch_up(cluster));
    }

    /// The views of one resource, or all of them.
    pub(super) fn feeds(&self, resource: Option<Resource>) -> impl Iterator<Item = &dyn Feed> {
        let feeds = self.feeds.iter().map(AsRef::as_ref);
        feeds.filter(move |feed| resource.is_none_or(|resource| feed.resource() == resource))
    }

    /// How far every view of a resource is. What nobody watches, nobody waits for.
    pub(super) fn seen(&self, resource: Resource) -> u64 {
        self.feeds(Some(resource)).map(Feed::seen).min().unwrap_or(u64::MAX)
    }

    pub(super) fn lags(&self) -> Vec<usize> {
        self.feeds.iter().map(|feed| feed.lag()).collect()
    }

    pub(super) fn set_lags(&self, lags: &[usize]) {
        self.feeds.iter().zip(lags).for_each(|(feed, lag)| feed.set_lag(*lag));
    }

    /// Runs `read` on views that give their lists the other way round.
    pub(super) fn reversed<R>(&self, read: impl FnOnce() -> R) -> R {
        self.feeds.iter().for_each(|feed| feed.reverse(true));
        let result = read();
        self.feeds.iter().for_each(|feed| feed.reverse(false));
        result
    }
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resources = self.feeds.iter().map(|feed| (feed.resource().plural, feed.lag()));
        f.debug_map().entries(resources).finish()
    }
}
