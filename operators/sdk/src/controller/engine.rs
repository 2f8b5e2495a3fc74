//! The workers: take a key, run it, say how it went. Panics, time and numbers are dealt with here; what running
//! a key means is not.

use std::{fmt, future::Future, hash::Hash, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{task::JoinSet, time::Instant};
use tracing::Instrument;

use crate::{
    metrics::{ControllerMetrics, ReconcileResult},
    panic_message,
    queue::{Finish, Item, Queue},
};

/// Keys worked on at the same time, unless the controller says otherwise.
pub const DEFAULT_WORKERS: usize = 5;

/// How a look at a key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until something happens.
    Done,
    /// Look again at this time from now, though nothing happens.
    After(Duration),
    /// Look again at once, behind the others.
    Again,
    /// Somebody was faster: look again soon. Not an error, but backed off.
    Retry,
    /// The API server asked to be left alone for so long.
    Later(Duration),
    /// It could not begin; whoever holds it back adds the key again.
    Held,
    /// It failed: try again after the key's backoff.
    Failed(String),
    /// It failed, and trying again cannot help.
    Terminal(String),
}

/// What a worker does with a key.
pub(crate) trait Work<K>: Send + Sync + 'static {
    /// Looks at the key once.
    fn look(&self, item: &Item<K>) -> impl Future<Output = Outcome> + Send;
}

/// What all workers of a controller share.
pub(crate) struct Engine<K, W> {
    pub(crate) name: Arc<str>,
    pub(crate) queue: Queue<K>,
    pub(crate) metrics: ControllerMetrics,
    pub(crate) work: W,
    /// A look that takes longer is given up and backed off.
    pub(crate) timeout: Option<Duration>,
}

impl<K, W> Engine<K, W>
where
    K: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    W: Work<K>,
{
    /// Runs `workers` workers until the queue is shut down and each has finished the key it has. Ends early with
    /// a worker that panicked outside of any look: its key would never be looked at again.
    pub(crate) async fn run(self: Arc<Self>, workers: usize) {
        self.metrics.max_concurrent(workers);
        let mut running = JoinSet::new();
        for _ in 0..workers.max(1) {
            running.spawn(Arc::clone(&self).work());
        }
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(controller = %self.name, %error, "a worker ended by a bug");
                return;
            }
        }
    }

    async fn work(self: Arc<Self>) {
        while let Some(item) = self.queue.next().await {
            let span = tracing::info_span!(
                "reconcile", controller = %self.name, key = %item.key, causes = tracing::field::Empty,
            );
            // Written out for each of thousands of looks only where somebody wants to see that.
            if tracing::enabled!(tracing::Level::DEBUG) {
                span.record("causes", tracing::field::display(&item.causes));
            }
            self.turn(item).instrument(span).await;
        }
    }

    async fn turn(&self, item: Item<K>) {
        let (active, started) = (self.metrics.active(), Instant::now());
        let outcome = self.guarded(&item).await;
        let took = started.elapsed();
        drop(active);
        tracing::debug!(?outcome, ?took, "reconciled");
        let (result, finish) = match outcome {
            Outcome::Held => return self.queue.hold(item),
            Outcome::Done => (ReconcileResult::Success, Finish::Success { again_after: None }),
            Outcome::After(delay) => {
                (ReconcileResult::RequeueAfter, Finish::Success { again_after: Some(delay) })
            }
            Outcome::Again => (ReconcileResult::Requeue, Finish::Again),
            Outcome::Retry => (ReconcileResult::Requeue, Finish::Retry),
            Outcome::Later(delay) => (ReconcileResult::RequeueAfter, Finish::Later(delay)),
            Outcome::Failed(error) => {
                tracing::warn!(causes = %item.causes, %error, failures = item.failures + 1, "reconcile failed; it is tried again");
                (ReconcileResult::Error, Finish::Failure)
            }
            Outcome::Terminal(error) => {
                tracing::error!(causes = %item.causes, %error, "reconcile failed for good; it waits for a change");
                self.metrics.terminal_error();
                (ReconcileResult::Error, Finish::Terminal)
            }
        };
        self.metrics.finished(result, took);
        self.queue.finish(&item.key, finish);
    }

    /// A panic or a hang in one key is that key's failure, nobody else's.
    async fn guarded(&self, item: &Item<K>) -> Outcome {
        let look = AssertUnwindSafe(self.work.look(item)).catch_unwind();
        let looked = match self.timeout {
            None => look.await,
            Some(limit) => match tokio::time::timeout(limit, look).await {
                Ok(looked) => looked,
                Err(_) => {
                    self.metrics.timed_out();
                    return Outcome::Failed(format!("not done within {limit:?}"));
                }
            },
        };
        looked.unwrap_or_else(|panic| {
            self.metrics.panicked();
            Outcome::Failed(format!("panicked: {}", panic_message(&*panic)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Metrics, queue::Cause};

    /// A key that cannot be named in a span: a bug outside of the look.
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Nameless;

    impl fmt::Display for Nameless {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no name")
        }
    }

    struct Nothing;

    impl Work<Nameless> for Nothing {
        async fn look(&self, _: &Item<Nameless>) -> Outcome {
            Outcome::Done
        }
    }

    /// The rest would work on, and the manager would not know.
    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_lost_ends_its_controller() {
        let _log = tracing::subscriber::set_default(
            tracing_subscriber::fmt()
                .with_writer(std::io::sink)
                .with_max_level(tracing::Level::INFO)
                .finish(),
        );
        let metrics = Metrics::new();
        let queue = Queue::new("sails", &metrics);
        queue.add(&Nameless, Cause::Timer);
        let metrics = metrics.controller("sails");
        let engine = Engine { name: "sails".into(), queue, metrics, work: Nothing, timeout: None };
        let ended = tokio::time::timeout(Duration::from_secs(5), Arc::new(engine).run(3)).await;
        assert!(ended.is_ok(), "the others work on");
    }
}
