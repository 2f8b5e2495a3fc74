//! `/metrics`: what every call took and answered, and how full the pools are.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

use crate::driver::Driver;

/// The names of labels are those of the sidecars' and the kubelet's own metrics of CSI calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method_name: &'static str,
    grpc_status_code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

/// From a look at an index to mkfs of a large disk: 1 ms, doubling, to 33 s.
const BUCKETS: u16 = 16;

type Pools = Family<PoolLabels, Gauge>;

/// All figures of one driver.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Histogram, fn() -> Histogram>,
    repairs: Family<PoolLabels, Counter>,
    total: Pools,
    available: Pools,
    owed: Pools,
    volumes: Pools,
    snapshots: Pools,
    damaged: Pools,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || {
            Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, BUCKETS))
        };
        let mut metrics = Self {
            registry: Registry::with_prefix("trysail_csi"),
            calls: Family::new_with_constructor(histogram),
            repairs: Family::default(),
            total: Family::default(),
            available: Family::default(),
            owed: Family::default(),
            volumes: Family::default(),
            snapshots: Family::default(),
            damaged: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register_with_unit(
            "operations",
            "Calls, and how long they took",
            Unit::Seconds,
            metrics.calls.clone(),
        );
        registry.register(
            "repairs",
            "What a start of the driver found and repaired",
            metrics.repairs.clone(),
        );
        for (name, help, family) in [
            ("pool_bytes", "Size of the pool's filesystem", &metrics.total),
            ("pool_available_bytes", "Free bytes of the pool's filesystem", &metrics.available),
            ("pool_owed_bytes", "Bytes that thick volumes may still take", &metrics.owed),
            ("volumes", "Volumes", &metrics.volumes),
            ("snapshots", "Snapshots", &metrics.snapshots),
            ("damaged", "Volumes and snapshots that cannot be used", &metrics.damaged),
        ] {
            registry.register(name, help, family.clone());
        }
        metrics
    }
}

impl Metrics {
    /// One call has ended.
    pub(super) fn called(&self, rpc: &'static str, code: Code, took: Duration) {
        let labels = CallLabels { method_name: rpc, grpc_status_code: format!("{code:?}") };
        self.calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// The start of the driver has repaired something.
    pub fn repaired(&self, pool: &str, count: u64) {
        self.repairs.get_or_create(&PoolLabels { pool: pool.to_owned() }).inc_by(count);
    }

    /// The text that Prometheus reads. Pools are looked at when somebody asks.
    pub(super) fn text(&self, driver: &Arc<Driver>) -> Result<String, std::fmt::Error> {
        for pool in driver.store.pools() {
            let labels = PoolLabels { pool: pool.name.clone() };
            let set = |family: &Pools, value: u64| {
                family.get_or_create(&labels).set(value as i64);
            };
            // A pool that cannot be read shows its last figures; /healthz says what is wrong.
            if let Ok(supply) = driver.store.supply(pool) {
                set(&self.total, supply.space.total);
                set(&self.available, supply.space.available);
                set(&self.owed, supply.owed);
            }
            let index = pool.index();
            set(&self.volumes, index.volumes.len() as u64);
            set(&self.snapshots, index.snapshots.len() as u64);
            set(&self.damaged, index.damaged.len() as u64);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
