//! One list and watch per resource, shared by every controller of the process.
//!
//! Decided here: when to list, when to watch, what to do when either fails, and that every list is consistent.
//! Not decided here: what is kept of an object (the type says so while it is decoded) and what a change means.
//!
//! An informer runs whether or not anyone reads its store. Subscribers are told of every change after the store
//! shows it; those who come late are told of the present content first.
//!
//! ```no_run
//! use trysail_sdk::{
//!     client::{Client, Options},
//!     core::{View, pod::Pod, resource::PODS},
//!     informer::{Event, Handle, Informers, Scope},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(&kube::Config::infer().await?, Options::default())?;
//! let informers = Informers::new(client, Default::default());
//! let pods: Handle<Pod> = informers.informer(PODS, Scope::all());
//! let subscription = pods.subscribe(|event| match event {
//!     Event::Applied { new, .. } => println!("{:?} is {:?}", new.meta.key, new.phase),
//!     Event::Deleted { last } => println!("{:?} is gone", last.meta.key),
//! });
//! pods.wait_synced().await;
//! println!("{} pods in default", pods.store().in_namespace("default").len());
//! subscription.cancel();
//! # Ok(())
//! # }
//! ```

mod backoff;
mod event;
mod frame;
mod metrics;
mod scope;
mod worker;

use std::{
    any::{Any, TypeId},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use trysail_core::{Key, Object, Resource, Uid, View};

use crate::{client::Client, store::Store};
use event::Subscribers;
use worker::Worker;

pub use event::{Event, Subscription};
pub use metrics::InformerMetrics;
pub use scope::Scope;

/// An object that cannot be decoded. It is skipped: what was known of it before stays.
#[derive(Clone, Debug)]
pub struct Undecodable {
    /// Its resource.
    pub resource: Resource,
    /// Its key, if that much could be read.
    pub key: Option<Key>,
    /// Its version; 0 if unknown.
    pub version: u64,
    /// What is wrong with it.
    pub error: String,
}

/// Called for every object that cannot be decoded.
pub type UndecodableHook = Arc<dyn Fn(&Undecodable) + Send + Sync>;
/// How long a resource's events are held back: for tests of controllers against a lagging watch.
pub type DelayHook = Arc<dyn Fn(&Resource) -> Duration + Send + Sync>;

/// How informers behave.
#[derive(Clone)]
pub struct Options {
    /// What is counted.
    pub metrics: InformerMetrics,
    /// Called for every object that cannot be decoded.
    pub on_undecodable: Option<UndecodableHook>,
    /// Holds events back, for tests.
    pub delay: Option<DelayHook>,
    /// Objects per page, where the server does not stream its lists.
    pub page_size: u32,
    /// A watch lives between this and twice this long. Watches that end by the clock spread over the API
    /// servers of a cluster again after one of them was restarted.
    pub watch_lifetime: Duration,
    /// A watch that is silent for this long is taken for dead. Bookmarks come about once a minute.
    pub idle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            metrics: InformerMetrics::default(),
            on_undecodable: None,
            delay: None,
            page_size: 500,
            watch_lifetime: Duration::from_secs(300),
            idle: Duration::from_secs(150),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("page_size", &self.page_size).finish_non_exhaustive()
    }
}

/// How an informer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The first list is under way.
    Starting,
    /// The store follows the API server.
    Synced,
    /// It cannot follow for now, and tries again.
    Waiting {
        /// Why, in words that name what to do.
        why: String,
    },
}

/// The informers of a process. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Informers(Arc<Registry>);

struct Registry {
    client: Client,
    options: Options,
    listeners: Arc<Listeners>,
    cancel: CancellationToken,
    next_id: AtomicUsize,
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    scope: Scope,
    kind: TypeId,
    informer: Arc<dyn AnyInformer>,
    shared: Arc<dyn Any + Send + Sync>,
    task: JoinHandle<()>,
}

impl Informers {
    /// None yet.
    pub fn new(client: Client, options: Options) -> Self {
        Self(Arc::new(Registry {
            client,
            options,
            listeners: Arc::default(),
            cancel: CancellationToken::new(),
            next_id: AtomicUsize::new(0),
            entries: Mutex::default(),
        }))
    }

    /// The informer of a resource, started now unless it runs already. Must be called within a tokio runtime.
    pub fn informer<T>(&self, resource: Resource, scope: Scope) -> Handle<T>
    where
        T: Object + DeserializeOwned,
    {
        let mut entries = self.entries();
        let same_resource = entries.iter().filter(|entry| *entry.informer.resource() == resource);
        for entry in same_resource {
            if entry.kind != TypeId::of::<T>() {
                tracing::warn!(%resource, "watched twice because two controllers decode it differently");
            } else if entry.scope == scope
                && let Ok(shared) = Arc::clone(&entry.shared).downcast::<Shared<T>>()
            {
                return Handle(shared);
            }
        }
        let shared = Arc::new(Shared {
            id: self.0.next_id.fetch_add(1, Ordering::Relaxed),
            resource,
            scope: scope.clone(),
            store: Arc::new(Store::default()),
            subscribers: Arc::new(Subscribers::new(resource)),
            listeners: Arc::clone(&self.0.listeners),
            status: watch::Sender::new(Status::Starting),
            asked: watch::Sender::new(0),
            listed: watch::Sender::new(0),
            cancel: self.0.cancel.child_token(),
        });
        let worker = Worker::new(Arc::clone(&shared), self.0.client.clone(), self.0.options.clone());
        entries.push(Entry {
            scope,
            kind: TypeId::of::<T>(),
            informer: Arc::clone(&shared) as Arc<dyn AnyInformer>,
            shared: Arc::clone(&shared) as Arc<dyn Any + Send + Sync>,
            task: tokio::spawn(worker.run()),
        });
        Handle(shared)
    }

    /// Ends an informer and forgets its content. Handles to it keep what they have, and no gate waits for it.
    pub fn remove<T: Object>(&self, handle: &Handle<T>) {
        let id = handle.0.id;
        handle.0.cancel.cancel();
        self.entries().retain(|entry| entry.informer.id() != id);
        self.0.listeners.each(|listener| listener.removed(id));
    }

    /// Returns when the first list of every informer is complete, or the one that was [asked](Self::list_anew) for last.
    pub async fn wait_synced(&self) {
        let all: Vec<_> = self.entries().iter().map(|entry| Arc::clone(&entry.informer)).collect();
        for informer in all {
            informer.synced().await;
        }
    }

    /// Has every informer list anew. Until that list is complete, [`Handle::wait_synced`] waits again; what the stores
    /// hold stays readable.
    ///
    /// A watch may lag, by however much. Who has to know everything that was written until now asks for a list that
    /// begins now.
    pub fn list_anew(&self) {
        for entry in self.entries().iter() {
            entry.informer.list_anew();
        }
    }

    /// Those that do not follow the API server at the moment, and why.
    pub fn not_following(&self) -> Vec<(Resource, Status)> {
        let entries = self.entries();
        let states = entries.iter().map(|entry| {
            let status = entry.informer.status().borrow().clone();
            (*entry.informer.resource(), status)
        });
        states.filter(|(_, status)| *status != Status::Synced).collect()
    }

    /// Brings gauges up to date: to be called before they are read.
    pub fn refresh_metrics(&self) {
        for entry in self.entries().iter() {
            let informer = &entry.informer;
            self.0.options.metrics.held(informer.resource(), informer.len(), informer.bytes());
        }
    }

    /// Ends all of them.
    pub async fn stop(&self) {
        self.0.cancel.cancel();
        let entries = std::mem::take(&mut *self.entries());
        for entry in entries {
            // An informer that panicked has said so.
            let _ = entry.task.await;
        }
    }

    /// Those in whose stores a write to that resource and namespace will show.
    pub(crate) fn covering(&self, resource: &Resource, namespace: &str) -> Vec<Arc<dyn AnyInformer>> {
        let entries = self.entries();
        let covering = entries
            .iter()
            .filter(|entry| entry.informer.resource() == resource && entry.scope.covers(namespace));
        covering.map(|entry| Arc::clone(&entry.informer)).collect()
    }

    pub(crate) fn listen(&self, listener: Weak<dyn Listener>) {
        self.0.listeners.lock().push(listener);
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A handle to one informer; cheap to clone.
pub struct Handle<T>(Arc<Shared<T>>);

impl<T: Object> Handle<T> {
    /// What is watched.
    pub fn resource(&self) -> &Resource {
        &self.0.resource
    }

    /// What is known of it.
    pub fn store(&self) -> &Arc<Store<T>> {
        &self.0.store
    }

    /// Tells `callback` of everything in the store, and from now on of every change. It is called while the
    /// store waits: it must be quick, and must not subscribe or cancel.
    pub fn subscribe(&self, callback: impl Fn(&Event<T>) + Send + Sync + 'static) -> Subscription {
        self.0.subscribers.add(&self.0.store, Box::new(callback))
    }

    /// Returns when the first list is complete, or the one that was [asked](Informers::list_anew) for last.
    pub async fn wait_synced(&self) {
        self.0.synced().await;
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.0.status.borrow().clone()
    }

    /// Changes of [`Handle::status`].
    pub fn status_changes(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} in {})", self.0.resource, self.0.scope)
    }
}

/// What worker, handles and gates share of one informer.
pub(crate) struct Shared<T> {
    id: usize,
    resource: Resource,
    scope: Scope,
    store: Arc<Store<T>>,
    subscribers: Arc<Subscribers<T>>,
    listeners: Arc<Listeners>,
    status: watch::Sender<Status>,
    /// How often a list was asked for.
    asked: watch::Sender<u64>,
    /// How often it had been when the last complete list began.
    listed: watch::Sender<u64>,
    cancel: CancellationToken,
}

impl<T: Object> Shared<T> {
    async fn synced(&self) {
        let is_synced = |listed: &u64| self.store.is_synced() && *listed >= *self.asked.borrow();
        // A sender lives as long as its informer.
        let _ = self.listed.subscribe().wait_for(is_synced).await;
    }
}

/// Told of progress by every informer: the gates.
pub(crate) trait Listener: Send + Sync {
    /// That informer's store shows everything up to `version`.
    fn advanced(&self, informer: usize, version: u64);
    /// That informer's store shows this incarnation gone or terminating.
    fn left(&self, informer: usize, uid: &Uid);
    /// That informer will never show what is waited for: it was removed, or the server's history was replaced.
    fn removed(&self, informer: usize);
}

#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<Weak<dyn Listener>>>);

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<dyn Listener>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(&self, tell: impl Fn(&dyn Listener)) {
        self.lock().retain(|listener| match listener.upgrade() {
            None => false,
            Some(listener) => {
                tell(&*listener);
                true
            }
        });
    }
}

/// What a gate needs to know of an informer, whatever its type.
pub(crate) trait AnyInformer: Send + Sync {
    fn id(&self) -> usize;
    fn resource(&self) -> &Resource;
    fn last_version(&self) -> u64;
    fn synced(&self) -> BoxFuture<'_, ()>;
    fn list_anew(&self);
    fn status(&self) -> watch::Receiver<Status>;
    fn len(&self) -> usize;
    fn bytes(&self) -> usize;
    /// True when the store holds this incarnation and it is not terminating.
    fn is_alive(&self, key: &Key, uid: &Uid) -> bool;
}

impl<T: Object> AnyInformer for Shared<T> {
    fn id(&self) -> usize {
        self.id
    }

    fn resource(&self) -> &Resource {
        &self.resource
    }

    fn last_version(&self) -> u64 {
        self.store.last_version()
    }

    fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(Shared::synced(self))
    }

    fn list_anew(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn len(&self) -> usize {
        self.store.len()
    }

    fn bytes(&self) -> usize {
        self.store.bytes()
    }

    fn is_alive(&self, key: &Key, uid: &Uid) -> bool {
        self.store.get(key).is_some_and(|held| held.uid() == *uid && !held.is_terminating())
    }
}
