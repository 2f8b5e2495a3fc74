//! From watch events to keys: which keys look again because of an object, and with which priority.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::future::BoxFuture;
use trysail_core::{Key, Object, Symbol};

use crate::{
    informer::{Event, Handle, Subscription},
    queue::{Cause, Change, LOW_PRIORITY, NORMAL_PRIORITY, Queue},
};

/// One informer's way into a queue.
pub trait Route<K>: Send + Sync {
    /// Returns when the informer's first list is complete.
    fn synced(&self) -> BoxFuture<'_, ()>;
    /// Adds the keys of everything that is there, with a low priority, and of everything that changes.
    fn subscribe(&self, queue: &Queue<K>) -> Subscription;
}

/// Objects lead to their own keys.
pub fn own<T: Object>(handle: Handle<T>) -> Box<dyn Route<Key>> {
    Box::new(Mapped {
        handle,
        keys: Arc::new(|event: &Event<T>, add: &mut dyn FnMut(Key)| add(latest(event).key())),
    })
}

/// Objects lead to the keys that `keys` names for them as they are, and as they were.
pub fn mapped<T: Object>(
    handle: Handle<T>,
    keys: impl Fn(&T) -> Vec<Key> + Send + Sync + 'static,
) -> Box<dyn Route<Key>> {
    events(handle, move |event, add| {
        let old = match event {
            Event::Applied { old: Some(old), .. } => keys(old),
            Event::Applied { old: None, .. } | Event::Deleted { .. } => Vec::new(),
        };
        let new = keys(latest(event));
        for key in old {
            if !new.contains(&key) {
                add(key);
            }
        }
        new.into_iter().for_each(add);
    })
}

/// Events lead to the keys that `keys` adds: for controllers that let most events pass.
pub fn events<T: Object>(
    handle: Handle<T>,
    keys: impl Fn(&Event<T>, &mut dyn FnMut(Key)) + Send + Sync + 'static,
) -> Box<dyn Route<Key>> {
    Box::new(Mapped { handle, keys: Arc::new(keys) })
}

type Keys<T> = Arc<dyn Fn(&Event<T>, &mut dyn FnMut(Key)) + Send + Sync>;

struct Mapped<T> {
    handle: Handle<T>,
    keys: Keys<T>,
}

impl<T: Object> Route<Key> for Mapped<T> {
    fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.handle.wait_synced())
    }

    fn subscribe(&self, queue: &Queue<Key>) -> Subscription {
        let kind = Symbol::from(self.handle.resource().kind);
        let (keys, queue) = (Arc::clone(&self.keys), queue.clone());
        // What the store holds is told within the call to subscribe: that is the initial list.
        let listing = Arc::new(AtomicBool::new(true));
        let while_listing = Arc::clone(&listing);
        let subscription = self.handle.subscribe(move |event| {
            let (priority, change) = match event {
                Event::Applied { .. } if while_listing.load(Ordering::Acquire) => {
                    (LOW_PRIORITY, Change::Listed)
                }
                Event::Applied { .. } => (NORMAL_PRIORITY, Change::Applied),
                Event::Deleted { .. } => (NORMAL_PRIORITY, Change::Deleted),
            };
            let object = latest(event);
            let mut cause = None;
            keys(event, &mut |key| {
                let cause = cause.get_or_insert_with(|| Cause::Object {
                    kind: kind.clone(),
                    key: object.key(),
                    version: object.resource_version(),
                    change,
                });
                queue.add_with(&key, priority, cause.clone());
            });
        });
        listing.store(false, Ordering::Release);
        subscription
    }
}

/// The object as the event shows it.
pub fn latest<T>(event: &Event<T>) -> &T {
    match event {
        Event::Applied { new, .. } => new,
        Event::Deleted { last } => last,
    }
}
