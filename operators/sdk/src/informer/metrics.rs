//! What informers count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use trysail_core::Resource;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    group: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Because {
    group: &'static str,
    resource: &'static str,
    reason: &'static str,
}

/// Counters and gauges of all informers of a process.
#[derive(Clone, Debug, Default)]
pub struct InformerMetrics {
    objects: Family<Of, Gauge>,
    bytes: Family<Of, Gauge>,
    events: Family<Of, Counter>,
    lists: Family<Of, Counter>,
    undecodable: Family<Of, Counter>,
    ended: Family<Because, Counter>,
}

impl InformerMetrics {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("trysail_store_objects", "Objects held", self.objects.clone());
        registry.register(
            "trysail_store_bytes",
            "Bytes taken by objects and indexes, without what objects share",
            self.bytes.clone(),
        );
        registry.register("trysail_informer_events", "Watch events received", self.events.clone());
        registry.register("trysail_informer_lists", "Lists completed, streamed or paged", self.lists.clone());
        registry.register(
            "trysail_informer_undecodable_objects",
            "Objects skipped because they cannot be decoded",
            self.undecodable.clone(),
        );
        registry.register(
            "trysail_informer_interruptions",
            "Lists and watches that ended, by reason",
            self.ended.clone(),
        );
    }

    pub(super) fn held(&self, resource: &Resource, objects: usize, bytes: usize) {
        let of = Of::new(resource);
        self.objects.get_or_create(&of).set(objects as i64);
        self.bytes.get_or_create(&of).set(bytes as i64);
    }

    pub(super) fn events(&self, resource: &Resource, count: u64) {
        self.events.get_or_create(&Of::new(resource)).inc_by(count);
    }

    pub(super) fn listed(&self, resource: &Resource) {
        self.lists.get_or_create(&Of::new(resource)).inc();
    }

    pub(super) fn undecodable(&self, resource: &Resource) {
        self.undecodable.get_or_create(&Of::new(resource)).inc();
    }

    pub(super) fn ended(&self, resource: &Resource, reason: &'static str) {
        let because = Because { group: resource.group, resource: resource.plural, reason };
        self.ended.get_or_create(&because).inc();
    }

    /// How many lists of that resource were completed.
    pub fn lists_of(&self, resource: &Resource) -> u64 {
        self.lists.get_or_create(&Of::new(resource)).get()
    }

    /// How many objects of that resource were skipped.
    pub fn undecodable_of(&self, resource: &Resource) -> u64 {
        self.undecodable.get_or_create(&Of::new(resource)).get()
    }
}

impl Of {
    fn new(resource: &Resource) -> Self {
        Self { group: resource.group, resource: resource.plural }
    }
}
