//! Read your own writes: a key is not looked at again before the stores show what was done for it.
//!
//! After a create or patch the stores must have passed its resourceVersion; after a delete they must show that
//! incarnation gone or terminating. A write whose outcome is unknown holds its key until a consistent read has
//! told what became of it, and the stores show that. Nothing here waits for time to pass.
//!
//! Decided here: whether a key may be looked at. Not decided here: what is done then.

mod metrics;
mod state;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering, fence},
    },
    time::Duration,
};

use tokio::time::Instant;
use trysail_core::{Key, Resource, Uid};

use crate::{
    client::{Class, Client},
    informer::{Informers, Listener},
};
use state::{Held, State};

pub use metrics::GateMetrics;

/// A key that is held for this long is reported: a watch is broken, or the API server cannot be asked.
const STUCK: Duration = Duration::from_secs(30);
/// How often held keys are looked through for stuck ones.
const SWEEP: Duration = Duration::from_secs(10);
/// How soon a failed read about an unknown outcome is repeated, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Whether a key may be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It may.
    Open,
    /// It may not yet; the gate wakes it when it may.
    Waiting(WaitingFor),
}

/// What a held key waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitingFor {
    /// A store that shows our write.
    Version {
        /// The version of the write.
        version: u64,
    },
    /// A store that shows our deletes.
    Deletions {
        /// How many.
        count: usize,
    },
    /// A read that tells what became of writes whose outcome is unknown.
    Answers {
        /// How many.
        count: usize,
    },
}

/// A write whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What was written to.
    pub resource: Resource,
    /// The object's key.
    pub object: Key,
    /// Which incarnation; `None` for creates.
    pub uid: Option<Uid>,
    /// True for a delete.
    pub delete: bool,
}

/// The gate of one controller. Clones are handles to the same.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    controller: &'static str,
    informers: Informers,
    client: Client,
    metrics: GateMetrics,
    state: Mutex<State>,
    /// Keys held: lets the busiest path, every watch event, pass without the lock.
    held: AtomicUsize,
    wake: Box<dyn Fn(Key) + Send + Sync>,
}

impl Gate {
    /// A gate that hands a key to `wake` when it opens for it. Must be called within a tokio runtime.
    pub fn new(
        controller: &'static str,
        informers: &Informers,
        client: &Client,
        metrics: GateMetrics,
        wake: impl Fn(Key) + Send + Sync + 'static,
    ) -> Self {
        let inner = Arc::new(Inner {
            controller,
            informers: informers.clone(),
            client: client.clone(),
            metrics,
            state: Mutex::default(),
            held: AtomicUsize::new(0),
            wake: Box::new(wake),
        });
        let listener: Weak<Inner> = Arc::downgrade(&inner);
        informers.listen(listener);
        tokio::spawn(watch_for_stuck(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Whether `key` may be looked at now.
    pub fn check(&self, key: &Key) -> Passage {
        if self.0.held.load(Ordering::Acquire) == 0 {
            return Passage::Open;
        }
        match self.0.lock().held(key) {
            None => Passage::Open,
            Some(held) => Passage::Waiting(held.waiting_for()),
        }
    }

    /// How many keys are held.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Acquire)
    }

    /// A write for `key` is at `version` of `resource` in `namespace`. A resource that nobody watches is not
    /// waited for.
    pub fn wrote(&self, key: &Key, resource: &Resource, namespace: &str, version: u64) {
        for informer in self.0.informers.covering(resource, namespace) {
            let id = informer.id();
            if informer.last_version() >= version {
                continue;
            }
            self.0.hold(
                |state| state.wait_for_version(key, id, version),
                |state| state.advanced(id, informer.last_version()),
            );
        }
    }

    /// That incarnation was deleted for `key`.
    pub fn deleted(&self, key: &Key, resource: &Resource, object: &Key, uid: &Uid) {
        for informer in self.0.informers.covering(resource, &object.namespace) {
            let id = informer.id();
            if !informer.is_alive(object, uid) {
                continue;
            }
            self.0.hold(
                |state| state.wait_for_leave(key, id, uid),
                |state| if informer.is_alive(object, uid) { Vec::new() } else { state.left(id, uid) },
            );
        }
    }

    /// A write for `key` may or may not have been done: finds out, and holds the key until then.
    pub fn unknown(&self, key: &Key, attempt: Attempt) {
        self.0.hold(|state| state.wait_for_answer(key), |_| Vec::new());
        // Without a runtime the process is ending, and so is the controller that would be woken.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(find_out(Arc::downgrade(&self.0), key.clone(), attempt));
        }
    }
}

impl Inner {
    /// Begins to wait, then looks whether that progress has been made meanwhile. Progress is made before
    /// listeners look at `held`, and `held` is set before progress is looked at: one of the two sees the other.
    fn hold(&self, wait: impl FnOnce(&mut State), meanwhile: impl FnOnce(&mut State) -> Vec<Key>) {
        self.change(|state| {
            wait(state);
            self.held.store(state.len(), Ordering::Release);
            fence(Ordering::SeqCst);
            meanwhile(state)
        });
    }

    fn nothing_held(&self) -> bool {
        fence(Ordering::SeqCst);
        self.held.load(Ordering::Acquire) == 0
    }

    /// Changes the state, then wakes the keys for which the gate opened.
    fn change(&self, change: impl FnOnce(&mut State) -> Vec<Key>) {
        let opened = {
            let mut state = self.lock();
            let opened = change(&mut state);
            self.held.store(state.len(), Ordering::Release);
            self.metrics.held(self.controller, state.len());
            opened
        };
        for key in opened {
            (self.wake)(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Inner {
    fn advanced(&self, informer: usize, version: u64) {
        if !self.nothing_held() {
            self.change(|state| state.advanced(informer, version));
        }
    }

    fn left(&self, informer: usize, uid: &Uid) {
        if !self.nothing_held() {
            self.change(|state| state.left(informer, uid));
        }
    }

    fn removed(&self, informer: usize) {
        self.change(|state| state.removed(informer));
    }
}

/// Asks the API server what became of a write, until it answers. The write itself cannot arrive much later: the
/// server was told to give up when we did. If it does nevertheless, its name, uid or version make it harmless.
async fn find_out(gate: Weak<Inner>, key: Key, attempt: Attempt) {
    let mut pause = RETRY.0;
    loop {
        let Some(inner) = gate.upgrade() else { return };
        let gate_handle = Gate(Arc::clone(&inner));
        let Attempt { resource, object, uid, delete } = &attempt;
        let answer = inner.client.get_meta(resource, object).await;
        match answer {
            Ok(live) => {
                let same = uid.as_ref().is_none_or(|uid| *uid == live.meta.uid);
                match uid {
                    Some(uid) if !same => gate_handle.deleted(&key, resource, object, uid),
                    Some(uid) if *delete && live.meta.is_terminating() => {
                        gate_handle.deleted(&key, resource, object, uid);
                    }
                    _ => gate_handle.wrote(&key, resource, &object.namespace, live.meta.resource_version),
                }
            }
            Err(error) if error.class() == Class::Gone => {
                if let Some(uid) = uid {
                    gate_handle.deleted(&key, resource, object, uid);
                }
            }
            Err(error) => {
                tracing::warn!(controller = inner.controller, %key, %error,
                    "the outcome of a write is unknown, and the API server cannot be asked; the key is held");
                drop((inner, gate_handle));
                tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64())).await;
                pause = (pause * 2).min(RETRY.1);
                continue;
            }
        }
        inner.change(|state| state.answered(&key));
        return;
    }
}

async fn watch_for_stuck(gate: Weak<Inner>) {
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        sweep.tick().await;
        let Some(inner) = gate.upgrade() else { return };
        if inner.held.load(Ordering::Acquire) == 0 {
            inner.metrics.stuck(inner.controller, 0);
            continue;
        }
        let stuck = inner.lock().stuck(Instant::now(), STUCK);
        inner.metrics.stuck(inner.controller, stuck.total);
        for (key, waiting) in stuck.news {
            tracing::error!(controller = inner.controller, %key, ?waiting,
                "held for {STUCK:?}: no store shows our own writes. Is a watch broken?");
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({}, {} keys held)", self.0.controller, self.held())
    }
}

impl Held {
    fn waiting_for(&self) -> WaitingFor {
        if self.answers > 0 {
            return WaitingFor::Answers { count: self.answers };
        }
        match self.versions.iter().map(|(_, version)| *version).max() {
            Some(version) => WaitingFor::Version { version },
            None => WaitingFor::Deletions { count: self.leaving },
        }
    }
}
