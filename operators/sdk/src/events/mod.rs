//! Events about objects, as `kubectl describe` and `kubectl get events` show them.
//!
//! core/v1 Events with client-go's three stages: more than ten similar ones in ten minutes are combined, equal
//! ones are counted in one object, and an object that talks too much is silenced (25 at once, then one per five
//! minutes). Best effort: recording never waits, and what the API server does not take is dropped and counted.
//!
//! Events pass the fence: one from a leader that was just deposed tells what it did while it led.

mod correlator;
mod limits;

use std::{sync::Arc, time::Duration};

use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use trysail_core::{Key, Resource, Timestamp, Uid, plan::EventNote};

use self::correlator::{Correlator, Write};
use crate::{
    client::{Class, Client, Error},
    metrics::Metrics,
};

/// Events.
pub const EVENTS: Resource = Resource { group: "", version: "v1", kind: "Event", plural: "events" };

/// client-go's queue length: a burst of a thousand pods, or a few seconds of an API server that does not answer.
const BUFFER: usize = 1000;
/// After that many failures an event is dropped: the next ones matter more.
const ATTEMPTS: u32 = 3;

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// Its resource.
    pub resource: Resource,
    /// Its key.
    pub key: Key,
    /// Its incarnation.
    pub uid: Uid,
}

impl Regarding {
    /// The namespace that the event goes to.
    fn namespace(&self) -> &str {
        if self.key.namespace.is_empty() { "default" } else { &self.key.namespace }
    }
}

/// One thing that happened, on its way to the sink.
#[derive(Clone, Debug)]
struct Happened {
    component: Arc<str>,
    regarding: Regarding,
    note: EventNote,
    at: Timestamp,
}

/// The sink of a process: correlates and writes in the background. Hands out [`Recorder`]s.
#[derive(Debug)]
pub struct Events {
    sender: mpsc::Sender<Happened>,
    writer: JoinHandle<()>,
    stop: CancellationToken,
    dropped: Counter,
}

impl Events {
    /// Starts the writer. Must be called within a tokio runtime.
    pub fn start(client: &Client, metrics: &Metrics) -> Self {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let dropped = Counter::default();
        metrics.register(|registry| {
            registry.register("trysail_events_dropped", "Events that were not written", dropped.clone());
        });
        let stop = CancellationToken::new();
        let writer = Writer { client: client.exempt(), stop: stop.clone(), dropped: dropped.clone() };
        Self { sender, writer: tokio::spawn(writer.run(receiver)), stop, dropped }
    }

    /// A recorder whose events name `component` as their source.
    pub fn recorder(&self, component: &str) -> Recorder {
        Recorder {
            component: component.into(),
            sender: Some(self.sender.clone()),
            dropped: self.dropped.clone(),
        }
    }

    /// Writes what was recorded, for at most `grace`.
    pub async fn stop(self, grace: Duration) {
        // Recorders may outlive the sink: the writer ends when its buffer is empty, not with the last sender.
        let Self { sender, mut writer, stop, .. } = self;
        drop(sender);
        stop.cancel();
        if tokio::time::timeout(grace, &mut writer).await.is_err() {
            tracing::warn!("events were dropped: the API server did not take them in time");
            writer.abort();
        }
    }
}

/// Records events of one component. Cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub struct Recorder {
    component: Arc<str>,
    sender: Option<mpsc::Sender<Happened>>,
    dropped: Counter,
}

impl Recorder {
    /// A recorder that drops everything, for tests and dry runs.
    pub fn none() -> Self {
        Self { component: "none".into(), sender: None, dropped: Counter::default() }
    }

    /// Records that something happened to an object.
    pub fn record(&self, regarding: &Regarding, note: EventNote) {
        let Some(sender) = &self.sender else { return };
        tracing::debug!(kind = %regarding.resource, key = %regarding.key, reason = note.reason,
            message = note.message, "event");
        let happened = Happened {
            component: Arc::clone(&self.component),
            regarding: regarding.clone(),
            note,
            at: Timestamp::now(),
        };
        if sender.try_send(happened).is_err() {
            self.dropped.inc();
        }
    }
}

#[derive(Debug)]
struct Writer {
    client: Client,
    stop: CancellationToken,
    dropped: Counter,
}

impl Writer {
    async fn run(self, mut receiver: mpsc::Receiver<Happened>) {
        let (mut correlator, epoch) = (Correlator::default(), Instant::now());
        loop {
            let happened = tokio::select! {
                biased;
                happened = receiver.recv() => happened,
                () = self.stop.cancelled() => None,
            };
            let Some(happened) = happened else { return };
            match correlator.correlate(happened, epoch.elapsed()) {
                Some(write) => self.write(write).await,
                None => {
                    self.dropped.inc();
                }
            }
        }
    }

    async fn write(&self, mut write: Write) {
        for attempt in 1..=ATTEMPTS {
            let Err(error) = self.send(&write).await else { return };
            match error.class() {
                // The event has expired meanwhile: it begins anew, with the count it had.
                Class::Gone if write.seen => write.seen = false,
                // It is there: an earlier attempt did arrive.
                Class::AlreadyExists => return,
                Class::Throttled(after) => tokio::time::sleep(after.unwrap_or(Duration::from_secs(1))).await,
                Class::Unknown | Class::NotSent | Class::Conflict => {
                    tokio::time::sleep(Duration::from_secs(u64::from(attempt))).await;
                }
                Class::Gone | Class::NamespaceTerminating => break,
                Class::Refused | Class::Expired | Class::Unauthorized | Class::Fenced => {
                    tracing::warn!(%error, "an event was refused");
                    break;
                }
            }
        }
        self.dropped.inc();
    }

    async fn send(&self, write: &Write) -> Result<(), Error> {
        if write.seen {
            let key = Key::new(write.event.regarding.namespace(), write.name.as_str());
            self.client.merge_patch(&EVENTS, &key, None, &write.patch()).await?;
        } else {
            self.client.create(&EVENTS, write.event.regarding.namespace(), &write.body()).await?;
        }
        Ok(())
    }
}

impl Write {
    fn body(&self) -> Value {
        let Happened { component, regarding, note, at } = &self.event;
        let (namespace, last) = (regarding.namespace(), seconds(*at));
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": self.name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": regarding.resource.api_version(),
                "kind": regarding.resource.kind,
                "namespace": &*regarding.key.namespace,
                "name": &*regarding.key.name,
                "uid": regarding.uid,
            },
            "type": if note.warning { "Warning" } else { "Normal" },
            "reason": note.reason,
            "message": note.message,
            "source": {"component": &**component},
            "reportingComponent": &**component,
            "reportingInstance": "",
            "firstTimestamp": seconds(self.first),
            "lastTimestamp": last,
            "count": self.count,
        })
    }

    fn patch(&self) -> Value {
        let last = seconds(self.event.at);
        json!({"count": self.count, "lastTimestamp": last, "message": self.event.note.message})
    }
}

/// `metav1.Time` has whole seconds.
fn seconds(time: Timestamp) -> String {
    trysail_core::condition::whole_seconds(time).to_string()
}
