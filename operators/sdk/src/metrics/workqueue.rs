//! `workqueue_*`.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Distinct values of the `priority` label per queue, as in controller-runtime; the rest shares `other`.
const MAX_PRIORITIES: usize = 25;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Queue {
    name: String,
    controller: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueuePriority {
    name: String,
    controller: String,
    priority: String,
}

type Seconds = Gauge<f64, AtomicU64>;
type Histograms = Family<Queue, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(super) struct WorkqueueFamilies {
    depth: Family<QueuePriority, Gauge>,
    adds: Family<Queue, Counter>,
    retries: Family<Queue, Counter>,
    waited: Histograms,
    worked: Histograms,
    unfinished: Family<Queue, Seconds>,
    longest: Family<Queue, Seconds>,
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(10e-9, 10.0, 12))
}

impl WorkqueueFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            depth: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            waited: Family::new_with_constructor(histogram),
            worked: Family::new_with_constructor(histogram),
            unfinished: Family::default(),
            longest: Family::default(),
        };
        registry.register(
            "workqueue_depth",
            "Keys that are ready and wait for a worker",
            families.depth.clone(),
        );
        registry.register("workqueue_adds", "Adds", families.adds.clone());
        registry.register("workqueue_retries", "Adds after a failure", families.retries.clone());
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long keys waited for a worker",
            families.waited.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long workers took",
            families.worked.clone(),
        );
        registry.register(
            "workqueue_unfinished_work_seconds",
            "How long the running workers have taken so far, in sum",
            families.unfinished.clone(),
        );
        registry.register(
            "workqueue_longest_running_processor_seconds",
            "How long the longest running worker has taken so far",
            families.longest.clone(),
        );
        families
    }

    pub(super) fn of(&self, name: &str) -> WorkqueueMetrics {
        let labels = Queue { name: name.to_owned(), controller: name.to_owned() };
        let metrics = WorkqueueMetrics {
            name: name.to_owned(),
            depth: self.depth.clone(),
            priorities: Arc::default(),
            adds: self.adds.get_or_create_owned(&labels),
            retries: self.retries.get_or_create_owned(&labels),
            waited: self.waited.get_or_create_owned(&labels),
            worked: self.worked.get_or_create_owned(&labels),
            unfinished: self.unfinished.get_or_create_owned(&labels),
            longest: self.longest.get_or_create_owned(&labels),
        };
        // A series that appears with its first key breaks `rate` and `absent`.
        metrics.depth(0, 0);
        metrics
    }
}

/// The metrics of one queue, looked up once.
#[derive(Clone, Debug)]
pub struct WorkqueueMetrics {
    name: String,
    depth: Family<QueuePriority, Gauge>,
    priorities: Arc<Mutex<BTreeSet<i32>>>,
    adds: Counter,
    retries: Counter,
    waited: Histogram,
    worked: Histogram,
    unfinished: Seconds,
    longest: Seconds,
}

impl WorkqueueMetrics {
    /// How many keys of that priority are ready.
    pub fn depth(&self, priority: i32, keys: usize) {
        let mut known = super::lock(&self.priorities);
        let listed = known.contains(&priority) || (known.len() < MAX_PRIORITIES && known.insert(priority));
        drop(known);
        let priority = if listed { priority.to_string() } else { "other".to_owned() };
        let labels = QueuePriority { name: self.name.clone(), controller: self.name.clone(), priority };
        self.depth.get_or_create(&labels).set(keys as i64);
    }

    pub(crate) fn added(&self) {
        self.adds.inc();
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.waited.observe(time.as_secs_f64());
    }

    pub(crate) fn worked(&self, time: Duration) {
        self.worked.observe(time.as_secs_f64());
    }

    pub(crate) fn running(&self, sum: Duration, longest: Duration) {
        self.unfinished.set(sum.as_secs_f64());
        self.longest.set(longest.as_secs_f64());
    }
}
