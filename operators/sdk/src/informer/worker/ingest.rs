//! What a watch event or list item does to the store, in this order: the store changes, subscribers are told,
//! gates are told.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use trysail_core::{Key, Object, Uid};

use super::{
    super::{
        Event, Undecodable,
        frame::{self, Bookmark, Frame, Unreadable},
    },
    Failure, Worker,
};
use crate::store::{Change, Listing};

impl<T: Object + DeserializeOwned> Worker<T> {
    pub(super) fn line(&mut self, line: &[u8], listing: &mut Option<Listing>) -> Result<(), Failure> {
        match frame::decode::<T>(line)? {
            Frame::Applied(object) => self.applied(object, *listing),
            Frame::Deleted(object) => self.deleted(object, *listing),
            Frame::Unreadable { deleted, object } => self.unreadable(object, deleted, *listing),
            Frame::Error(status) => return Err(Failure::Ended(status)),
            Frame::Unknown => tracing::debug!(resource = %self.shared.resource, "unknown watch event"),
            Frame::Bookmark(Bookmark { version, initial_events_end }) => match *listing {
                None => self.advanced(version),
                Some(_) if !initial_events_end => {}
                Some(done) => {
                    self.check_history(version, done)?;
                    self.listed(done, version);
                    *listing = None;
                }
            },
        }
        Ok(())
    }

    pub(super) fn applied(&mut self, object: T, listing: Option<Listing>) {
        let shared = &*self.shared;
        let version = object.resource_version();
        let mut left: Option<Uid> = None;
        shared.subscribers.change(|tell| {
            let change = shared.store.apply(object, listing);
            if listing.is_none() {
                shared.store.advance(version);
            }
            let Change::Applied { old, new } = change else { return };
            match old {
                // Another incarnation: the end of the one before was not seen.
                Some(old) if old.uid() != new.uid() => {
                    left = Some(old.uid());
                    tell(Event::Deleted { last: old });
                    tell(Event::Applied { old: None, new });
                }
                old => {
                    left = new.is_terminating().then(|| new.uid());
                    tell(Event::Applied { old, new });
                }
            }
        });
        self.tell_listeners(left.as_ref(), listing.is_none().then_some(version));
    }

    fn deleted(&mut self, object: T, listing: Option<Listing>) {
        let shared = &*self.shared;
        let (key, uid, version) = (object.key(), object.uid(), object.resource_version());
        shared.subscribers.change(|tell| {
            let held = shared.store.remove(&key, version);
            // While a list is under way, not everything before this has been seen.
            if listing.is_none() {
                shared.store.advance(version);
            }
            if held.is_some() {
                tell(Event::Deleted { last: Arc::new(object) });
            }
        });
        self.tell_listeners(Some(&uid), listing.is_none().then_some(version));
    }

    pub(super) fn unreadable(&mut self, object: Unreadable, deleted: bool, listing: Option<Listing>) {
        let resource = self.shared.resource;
        let Unreadable { key, version, error } = object;
        tracing::error!(%resource, ?key, version, %error, "an object cannot be decoded and is skipped");
        self.metrics().undecodable(&resource);
        let mut left = None;
        match &key {
            Some(key) if deleted => left = self.forget(key, version),
            Some(key) => self.shared.store.keep(key),
            None => {}
        }
        let seen = (listing.is_none() && version > 0).then_some(version);
        if let Some(version) = seen {
            self.shared.store.advance(version);
        }
        self.tell_listeners(left.as_ref(), seen);
        if let Some(hook) = &self.options.on_undecodable {
            hook(&Undecodable { resource, key, version, error });
        }
    }

    fn forget(&self, key: &Key, version: u64) -> Option<Uid> {
        let shared = &*self.shared;
        shared.subscribers.change(|tell| {
            let last = shared.store.remove(key, version)?;
            let uid = last.uid();
            tell(Event::Deleted { last });
            Some(uid)
        })
    }

    /// A list is complete: what it did not mention is gone.
    pub(super) fn listed(&mut self, listing: Listing, version: u64) {
        let shared = &*self.shared;
        let mut left = Vec::new();
        shared.subscribers.change(|tell| {
            for last in shared.store.finish_list(listing, version) {
                left.push(last.uid());
                tell(Event::Deleted { last });
            }
        });
        for uid in &left {
            self.tell_listeners(Some(uid), None);
        }
        if listing.new_history {
            // What was written in the history that is no more will never show.
            let id = self.shared.id;
            self.shared.listeners.each(|listener| listener.removed(id));
        }
        self.tell_listeners(None, Some(version));
        self.doubting = None;
        self.position = Some(version);
        self.shared.listed.send_replace(self.answering);
        self.metrics().listed(&self.shared.resource);
        let objects = self.shared.store.len();
        tracing::info!(resource = %self.shared.resource, objects, version, "listed");
        self.say_following();
    }

    fn advanced(&mut self, version: u64) {
        self.shared.store.advance(version);
        self.tell_listeners(None, Some(version));
    }

    fn tell_listeners(&mut self, left: Option<&Uid>, version: Option<u64>) {
        let id = self.shared.id;
        if let (Some(position), Some(version)) = (&mut self.position, version) {
            *position = version.max(*position);
        }
        self.shared.listeners.each(|listener| {
            if let Some(uid) = left {
                listener.left(id, uid);
            }
            if let Some(version) = version {
                listener.advanced(id, version);
            }
        });
    }
}
