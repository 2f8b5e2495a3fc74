//! `leader_election_*`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Lease {
    name: String,
}

/// What leader election reports.
#[derive(Clone, Debug, Default)]
pub struct ElectionMetrics {
    master: Family<Lease, Gauge>,
    slow_path: Family<Lease, Counter>,
}

impl ElectionMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "leader_election_master_status",
            "1 while this process leads, 0 while it does not",
            metrics.master.clone(),
        );
        registry.register(
            "leader_election_slowpath",
            "Renewals that needed a read because a plain update failed",
            metrics.slow_path.clone(),
        );
        metrics
    }

    /// This process took or lost the lead.
    pub fn leading(&self, lease: &str, leads: bool) {
        self.master.get_or_create(&Lease { name: lease.to_owned() }).set(i64::from(leads));
    }

    pub(crate) fn slow_path(&self, lease: &str) {
        self.slow_path.get_or_create(&Lease { name: lease.to_owned() }).inc();
    }
}
