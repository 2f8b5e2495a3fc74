//! Which key is worked on next, and when a failing one is tried again.
//!
//! * A key is with at most one worker. What happens to it meanwhile makes it ready again when that worker is done.
//! * Within a priority, first in is first out. A higher priority goes first, but [one turn in
//!   eight](state::AGING_SHARE) goes to the key that has waited longest, whatever its priority: a key that `n`
//!   others have waited longer than runs within `8 * (n + 1)` turns, whatever else arrives.
//! * A key that fails is tried again after 5 ms, 10 ms, … 30 s; success resets the count. Events about a failing
//!   key run it early, but no sooner than a tenth of that delay after its last attempt; an early attempt that
//!   fails neither lengthens the delay nor moves the retry.
//!
//! [`state`] decides all this with the time as an argument; [`Queue`] adds the lock, the clock and the waiting.

mod cause;
mod entry;
pub mod state;

use std::{
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use self::state::{Next, QueueState};
pub use self::{
    cause::{Cause, Causes, Change},
    entry::QueueConfig,
    state::{Finish, Item},
};
use crate::metrics::{Metrics, WorkqueueMetrics};

/// Where a key stands among others: higher goes first.
pub type Priority = i32;

/// Events, timers and retries.
pub const NORMAL_PRIORITY: Priority = 0;
/// Objects of the initial list: they must not delay live changes (controller-runtime's number).
pub const LOW_PRIORITY: Priority = -100;

/// A work queue. Clones share it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use trysail_sdk::{metrics::Metrics, queue::{Cause, Finish, Queue}};
/// let queue = Queue::new("sails", &Metrics::new());
/// queue.add(&"main", Cause::Request("hoist"));
/// queue.add(&"main", Cause::Request("trim"));
/// let item = queue.next().await.unwrap();
/// assert_eq!(item.causes.to_string(), "hoist, trim");
/// queue.finish(&item.key, Finish::Success { again_after: None });
/// assert!(queue.is_empty());
/// # }
/// ```
pub struct Queue<K>(Arc<Inner<K>>);

struct Inner<K> {
    state: Mutex<QueueState<K>>,
    changed: Notify,
    epoch: Instant,
    metrics: WorkqueueMetrics,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("metrics", &self.0.metrics).finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash + Send + 'static> Queue<K> {
    /// A queue with the default delays. `name` labels its metrics.
    pub fn new(name: &str, metrics: &Metrics) -> Self {
        Self::with_config(name, metrics, QueueConfig::default())
    }

    /// A queue.
    pub fn with_config(name: &str, metrics: &Metrics, config: QueueConfig) -> Self {
        let inner = Arc::new(Inner {
            state: Mutex::new(QueueState::new(config)),
            changed: Notify::new(),
            epoch: Instant::now(),
            metrics: metrics.workqueue(name),
        });
        let weak = Arc::downgrade(&inner);
        metrics.before_scrape(move || {
            if let Some(inner) = weak.upgrade() {
                inner.report();
            }
        });
        Self(inner)
    }

    /// Something happened to `key`.
    pub fn add(&self, key: &K, cause: Cause) {
        self.add_with(key, NORMAL_PRIORITY, cause);
    }

    /// [`Queue::add`] with a priority.
    pub fn add_with(&self, key: &K, priority: Priority, cause: Cause) {
        self.0.metrics.added();
        self.change(|state, now| state.add(key, priority, cause, now));
    }

    /// Looks at `key` after `delay`. Of several calls the earliest counts.
    pub fn add_after(&self, key: &K, delay: Duration, cause: Cause) {
        self.0.metrics.added();
        self.change(|state, now| state.add_at(key, now.saturating_add(delay), cause, now));
    }

    /// What held `key` back is over, or its own writes show: it is looked at, at once unless it failed.
    pub fn release(&self, key: &K, cause: Cause) {
        self.0.metrics.added();
        self.change(|state, now| state.release(key, cause, now));
    }

    /// Tries `key` again after its backoff, as if an attempt had failed. For keys that no worker has; a worker
    /// [finishes](Queue::finish) with [`Finish::Failure`].
    pub fn add_rate_limited(&self, key: &K) {
        self.0.metrics.retried();
        self.change(|state, now| state.add_rate_limited(key, now));
    }

    /// Forgets that `key` failed.
    pub fn forget(&self, key: &K) {
        self.change(|state, now| state.forget(key, now));
    }

    /// The worker of `key` is done.
    pub fn finish(&self, key: &K, finish: Finish) {
        if matches!(finish, Finish::Failure | Finish::Retry) {
            self.0.metrics.retried();
        }
        if let Some(worked) = self.change(|state, now| state.finish(key, finish, now)) {
            self.0.metrics.worked(worked);
        }
    }

    /// The worker of this item could not begin: its key waits, with its causes, until it is added again.
    pub fn hold(&self, item: Item<K>) {
        self.change(|state, now| state.hold(item, now));
    }

    /// Waits for the next key; `None` once the queue was [shut down](Queue::shut_down).
    ///
    /// Cancel safe: a key is only handed out together with the return.
    pub async fn next(&self) -> Option<Item<K>> {
        loop {
            let changed = self.0.changed.notified();
            let next = {
                let mut state = self.state();
                let next = state.next(self.now());
                if state.has_ready() {
                    // One notification may stand for several adds: pass it on.
                    self.0.changed.notify_one();
                }
                next
            };
            match next {
                Next::Item(item) => {
                    self.0.metrics.waited(item.waited);
                    return Some(item);
                }
                Next::ShutDown => {
                    self.0.changed.notify_waiters();
                    return None;
                }
                Next::At(time) => match self.0.epoch.checked_add(time) {
                    // Whichever comes first; the loop looks again in both cases.
                    Some(time) => {
                        let _ = tokio::time::timeout_at(time, changed).await;
                    }
                    // No clock goes that far.
                    None => changed.await,
                },
                Next::Idle => changed.await,
            }
        }
    }

    /// Lets [`Queue::next`] end at once; what waits is dropped, what is with workers may finish.
    pub fn shut_down(&self) {
        self.state().shut_down();
        self.0.changed.notify_waiters();
        self.0.changed.notify_one();
    }

    /// How many keys are ready and wait for a worker.
    pub fn len(&self) -> usize {
        self.state().len()
    }

    /// True when no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn change<R>(&self, with: impl FnOnce(&mut QueueState<K>, Duration) -> R) -> R {
        let result = {
            let mut state = self.state();
            with(&mut state, self.now())
        };
        self.0.changed.notify_one();
        result
    }

    fn now(&self) -> Duration {
        self.0.epoch.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, QueueState<K>> {
        self.0.lock()
    }
}

impl<K> Inner<K> {
    /// Nothing in [`QueueState`] can panic between two of its writes, except for lack of memory.
    fn lock(&self) -> MutexGuard<'_, QueueState<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Inner<K> {
    fn report(&self) {
        let now = self.epoch.elapsed();
        let state = self.lock();
        for (&priority, &depth) in state.depth() {
            self.metrics.depth(priority, depth);
        }
        let (sum, longest) = state.running(now);
        drop(state);
        self.metrics.running(sum, longest);
    }
}
