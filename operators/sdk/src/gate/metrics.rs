//! What gates count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    controller: &'static str,
}

/// Gauges of all gates of a process.
#[derive(Clone, Debug, Default)]
pub struct GateMetrics {
    held: Family<Of, Gauge>,
    stuck: Family<Of, Gauge>,
}

impl GateMetrics {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "trysail_gate_held_keys",
            "Keys that wait until a store shows our own writes",
            self.held.clone(),
        );
        registry.register(
            "trysail_gate_stuck_keys",
            "Keys that have waited for more than 30 s: a watch is broken",
            self.stuck.clone(),
        );
    }

    pub(super) fn held(&self, controller: &'static str, keys: usize) {
        self.held.get_or_create(&Of { controller }).set(keys as i64);
    }

    pub(super) fn stuck(&self, controller: &'static str, keys: usize) {
        self.stuck.get_or_create(&Of { controller }).set(keys as i64);
    }
}
