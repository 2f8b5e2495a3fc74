//! Between the start of the caches and the end of the last key: what both kinds of controllers do alike.

use std::{fmt, hash::Hash, sync::Arc};

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{
    engine::{Engine, Work},
    route::Route,
};
use crate::{informer::Subscription, manager::Prepared};

/// A controller whose caches fill, and that does not work yet.
pub(super) struct Ready<K, W> {
    pub(super) engine: Arc<Engine<K, W>>,
    pub(super) routes: Vec<Box<dyn Route<K>>>,
    pub(super) workers: usize,
}

impl<K, W> Prepared for Ready<K, W>
where
    K: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    W: Work<K>,
{
    fn run(self: Box<Self>, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Self { engine, routes, workers } = *self;
            let synced = async {
                for route in &routes {
                    route.synced().await;
                }
            };
            tokio::select! {
                () = synced => {}
                () = stop.cancelled() => return,
            }
            let queue = engine.queue.clone();
            let subscriptions: Vec<_> = routes.iter().map(|route| route.subscribe(&queue)).collect();
            tracing::info!(controller = %engine.name, workers, keys = queue.len(), "controller started");
            let name = Arc::clone(&engine.name);
            // Not a task of its own: workers end with this future, when a stop took too long.
            let running = engine.run(workers);
            tokio::pin!(running);
            tokio::select! {
                // Only a bug ends workers by themselves; the manager reports it.
                () = &mut running => {}
                () = stop.cancelled() => {
                    queue.shut_down();
                    // In-flight keys are finished.
                    running.await;
                }
            }
            subscriptions.into_iter().for_each(Subscription::cancel);
            tracing::info!(controller = %name, "controller stopped");
        })
    }
}
