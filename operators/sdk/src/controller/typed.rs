//! Controllers for operator authors: any kind that kube knows, an async function, and what triggers it.

use std::{fmt, future::Future, marker::PhantomData, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use trysail_core::{Key, Object, Resource, Uid, View, plan::EventNote};

use super::{
    engine::{DEFAULT_WORKERS, Engine, Outcome, Work},
    ready::Ready,
    route::{self, Route},
};
use crate::{
    events::{Recorder, Regarding},
    informer::{Handle, Scope},
    manager::{Prepared, Runnable, Services},
    queue::{Causes, Item, Queue},
    store::Store,
};

/// A kind with a fixed group and version that an informer can keep: every k8s-openapi type and every type that
/// `#[derive(CustomResource)]` makes.
pub trait Kind: kube::Resource<DynamicType = ()> + DeserializeOwned + Object {
    /// Where the API server serves it.
    fn resource() -> Resource {
        Resource {
            group: keep(Self::group(&())),
            version: keep(Self::version(&())),
            kind: keep(Self::kind(&())),
            plural: keep(Self::plural(&())),
        }
    }
}

impl<K> Kind for K where K: kube::Resource<DynamicType = ()> + DeserializeOwned + Object {}

/// Kinds are constants in practice; one that is not costs its name once per controller.
fn keep(name: std::borrow::Cow<'static, str>) -> &'static str {
    match name {
        std::borrow::Cow::Borrowed(name) => name,
        std::borrow::Cow::Owned(name) => String::leak(name),
    }
}

/// The entry to building a controller.
///
/// ```no_run
/// # use k8s_openapi::api::core::v1::{ConfigMap, Secret};
/// use trysail_sdk::controller::{Controller, Request, Outcome};
/// let controller = Controller::new("copy")
///     .for_kind::<ConfigMap>()
///     .owns::<Secret>()
///     .reconcile(|request: Request<ConfigMap>| async move {
///         println!("{} because of {}", request.key, request.causes);
///         Ok::<_, kube::Error>(Outcome::Done)
///     });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Controller {
    name: &'static str,
}

impl Controller {
    /// A controller of that name: in logs, metrics and events.
    pub fn new(name: &'static str) -> Self {
        Self { name }
    }

    /// It reconciles objects of this kind.
    pub fn for_kind<K: Kind>(self) -> Builder<K> {
        Builder {
            name: self.name,
            scope: Scope::default(),
            workers: DEFAULT_WORKERS,
            timeout: None,
            watches: Vec::new(),
            kind: PhantomData,
        }
    }
}

type Watch = Box<dyn FnOnce(&Services) -> Box<dyn Route<Key>> + Send>;

/// What a controller watches, before it is told what to do.
#[must_use = "a controller does nothing before `reconcile` and a manager"]
pub struct Builder<K> {
    name: &'static str,
    scope: Scope,
    workers: usize,
    timeout: Option<Duration>,
    watches: Vec<Watch>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Builder<K> {
    /// Reconcile only objects in this scope.
    pub fn within(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// How many keys are worked on at the same time.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// A reconcile that takes longer is given up and tried again after its backoff.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Changes of a `C` reconcile the object that is its controlling owner.
    pub fn owns<C: Kind>(self) -> Self {
        self.watches::<C>(|child| {
            let owner = K::resource();
            let references = child.meta().owner_references.as_deref().unwrap_or_default();
            let controller = references.iter().find(|reference| reference.controller == Some(true));
            let controller = controller.filter(|reference| {
                let group = reference.api_version.rsplit_once('/').map_or("", |(group, _)| group);
                reference.kind == owner.kind && group == owner.group
            });
            let namespace = child.meta().namespace.as_deref().unwrap_or_default();
            controller.map(|reference| Key::new(namespace, reference.name.as_str())).into_iter().collect()
        })
    }

    /// Changes of a `W` reconcile the keys that `keys` names for it as it is, and as it was.
    pub fn watches<W: Kind>(mut self, keys: impl Fn(&W) -> Vec<Key> + Send + Sync + 'static) -> Self {
        self.watches.push(Box::new(move |services| {
            let handle = services.informers.informer::<W>(W::resource(), Scope::default());
            route::mapped(handle, keys)
        }));
        self
    }

    /// What is done with an object.
    pub fn reconcile<F, Fut, E>(self, reconcile: F) -> TypedController<K>
    where
        F: Fn(Request<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
        E: fmt::Display + 'static,
    {
        let reconcile = move |request| {
            let looked = reconcile(request);
            let looked: BoxFuture<'static, Outcome> =
                Box::pin(
                    async move { looked.await.unwrap_or_else(|error| Outcome::Failed(error.to_string())) },
                );
            looked
        };
        TypedController { builder: self, reconcile: Box::new(reconcile) }
    }
}

impl<K> fmt::Debug for Builder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Builder({})", self.name)
    }
}

type Reconcile<K> = Box<dyn Fn(Request<K>) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// A controller that is ready for a [`Manager`](crate::manager::Manager).
#[must_use = "a controller does nothing without a manager"]
pub struct TypedController<K> {
    builder: Builder<K>,
    reconcile: Reconcile<K>,
}

impl<K> fmt::Debug for TypedController<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedController({})", self.builder.name)
    }
}

/// One object to look at.
pub struct Request<K> {
    /// Its key.
    pub key: Key,
    /// The object as the store shows it; `None` when it is gone.
    pub object: Option<Arc<K>>,
    /// Why it is looked at.
    pub causes: Causes,
    /// How many attempts failed in a row.
    pub failures: u32,
    /// For everything that is not in the store.
    pub client: kube::Client,
    /// Where to look up other objects of the kind.
    pub store: Arc<Store<K>>,
    recorder: Recorder,
}

impl<K> fmt::Debug for Request<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} because of {})", self.key, self.causes)
    }
}

impl<K: Kind> Request<K> {
    /// Records an event about the object, if it is still there.
    pub fn event(&self, note: EventNote) {
        if let Some(object) = &self.object {
            let uid: Uid = Object::uid(&**object);
            self.recorder.record(&Regarding { resource: K::resource(), key: self.key.clone(), uid }, note);
        }
    }
}

struct TypedWork<K> {
    store: Arc<Store<K>>,
    client: kube::Client,
    recorder: Recorder,
    reconcile: Reconcile<K>,
}

impl<K: Kind> Work<Key> for TypedWork<K> {
    async fn look(&self, item: &Item<Key>) -> Outcome {
        let request = Request {
            key: item.key.clone(),
            object: self.store.get(&item.key),
            causes: item.causes.clone(),
            failures: item.failures,
            client: self.client.clone(),
            store: Arc::clone(&self.store),
            recorder: self.recorder.clone(),
        };
        (self.reconcile)(request).await
    }
}

impl<K: Kind> Runnable for TypedController<K> {
    fn name(&self) -> &str {
        self.builder.name
    }

    fn prepare(self: Box<Self>, services: &Services) -> Box<dyn Prepared> {
        let Self { builder, reconcile } = *self;
        let primary: Handle<K> = services.informers.informer(K::resource(), builder.scope);
        let mut routes: Vec<Box<dyn Route<Key>>> = vec![route::own(primary.clone())];
        routes.extend(builder.watches.into_iter().map(|watch| watch(services)));
        let work = TypedWork {
            store: Arc::clone(primary.store()),
            client: services.client.kube(),
            recorder: services.events.recorder(builder.name),
            reconcile,
        };
        let engine = Engine {
            name: builder.name.into(),
            queue: Queue::new(builder.name, &services.metrics),
            metrics: services.metrics.controller(builder.name),
            work,
            timeout: builder.timeout,
        };
        Box::new(Ready { engine: Arc::new(engine), routes, workers: builder.workers })
    }
}
