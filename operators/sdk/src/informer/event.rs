//! What subscribers are told, and the list of those who are told.
//!
//! Told is told: callbacks run one after the other, in the task that reads the watch, after the store shows the
//! change. They must be cheap: file a key in a queue, no more.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use trysail_core::{Object, Resource};

use crate::store::Store;

/// One change of one object.
#[derive(Debug)]
pub enum Event<T> {
    /// It is new or has changed.
    Applied {
        /// What it was; `None` for one that is new to the store, or to a subscriber who came late.
        old: Option<Arc<T>>,
        /// What it is.
        new: Arc<T>,
    },
    /// It is gone.
    Deleted {
        /// What it was last. When the deletion itself was missed, what was known of it last.
        last: Arc<T>,
    },
}

type Callback<T> = Box<dyn Fn(&Event<T>) + Send + Sync>;

/// Those who are told about the changes of one resource.
pub(crate) struct Subscribers<T> {
    resource: Resource,
    callbacks: Mutex<Callbacks<T>>,
}

struct Callbacks<T> {
    next: u64,
    list: Vec<(u64, Callback<T>)>,
}

/// A subscription, for giving it up. Dropping it changes nothing.
#[must_use = "keep it to be able to cancel, or drop it to stay subscribed for good"]
pub struct Subscription {
    cancel: Box<dyn FnOnce() + Send>,
}

impl Subscription {
    /// The callback is not called again once this returns.
    pub fn cancel(self) {
        (self.cancel)();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

impl<T: Object> Subscribers<T> {
    pub(crate) fn new(resource: Resource) -> Self {
        Self { resource, callbacks: Mutex::new(Callbacks { next: 0, list: Vec::new() }) }
    }

    /// Adds a callback. It is told of everything in the store first; nothing is missed or told out of order,
    /// because the store does not change while the lock is held.
    pub(crate) fn add(self: &Arc<Self>, store: &Store<T>, callback: Callback<T>) -> Subscription {
        let mut callbacks = self.lock();
        for new in store.all() {
            self.tell(&callback, &Event::Applied { old: None, new });
        }
        let id = callbacks.next;
        callbacks.next += 1;
        callbacks.list.push((id, callback));
        drop(callbacks);
        let subscribers: Weak<Self> = Arc::downgrade(self);
        let cancel = move || {
            if let Some(subscribers) = subscribers.upgrade() {
                subscribers.lock().list.retain(|(held, _)| *held != id);
            }
        };
        Subscription { cancel: Box::new(cancel) }
    }

    /// Changes the store and tells everyone, as one step.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut dyn FnMut(Event<T>)) -> R) -> R {
        let callbacks = self.lock();
        change(&mut |event| {
            for (_, callback) in &callbacks.list {
                self.tell(callback, &event);
            }
        })
    }

    /// A callback that panics is that subscriber's loss, not the informer's.
    fn tell(&self, callback: &Callback<T>, event: &Event<T>) {
        if catch_unwind(AssertUnwindSafe(|| callback(event))).is_err() {
            tracing::error!(resource = %self.resource, "a subscriber panicked; this change is lost to it");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Callbacks<T>> {
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Subscribers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribers").field("resource", &self.resource).finish_non_exhaustive()
    }
}
