//! Metrics under the names that controller-runtime and client-go give them, so that dashboards and alerts
//! written for Go operators work.
//!
//! The registry is a value: two managers in one process (or two tests) never see each other's numbers.

mod controller;
mod election;
mod process;
mod workqueue;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{encoding::text, registry::Registry};

use self::{controller::ControllerFamilies, workqueue::WorkqueueFamilies};
pub use self::{
    controller::{ControllerMetrics, ReconcileResult},
    election::ElectionMetrics,
    workqueue::WorkqueueMetrics,
};

/// `Content-Type` of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one manager. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    before_scrape: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
    controllers: ControllerFamilies,
    workqueues: WorkqueueFamilies,
    election: ElectionMetrics,
}

impl Metrics {
    /// An empty set.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let controllers = ControllerFamilies::register(&mut registry);
        let workqueues = WorkqueueFamilies::register(&mut registry);
        let election = ElectionMetrics::register(&mut registry);
        registry.register_collector(Box::new(process::ProcessCollector));
        Self(Arc::new(Inner {
            registry: Mutex::new(registry),
            before_scrape: Mutex::new(Vec::new()),
            controllers,
            workqueues,
            election,
        }))
    }

    /// `controller_runtime_*` of one controller.
    pub fn controller(&self, name: &str) -> ControllerMetrics {
        self.0.controllers.of(name)
    }

    /// `workqueue_*` of one queue.
    pub fn workqueue(&self, name: &str) -> WorkqueueMetrics {
        self.0.workqueues.of(name)
    }

    /// `leader_election_*`.
    pub fn election(&self) -> &ElectionMetrics {
        &self.0.election
    }

    /// Registers metrics of your own.
    ///
    /// ```
    /// use prometheus_client::metrics::counter::Counter;
    /// let metrics = trysail_sdk::metrics::Metrics::new();
    /// let sails = Counter::<u64>::default();
    /// metrics.register(|registry| registry.register("sails_set", "Sails that were set", sails.clone()));
    /// sails.inc();
    /// assert!(metrics.encode().contains("sails_set_total 1"));
    /// ```
    pub fn register<R>(&self, with: impl FnOnce(&mut Registry) -> R) -> R {
        with(&mut lock(&self.0.registry))
    }

    /// Calls `update` before each scrape: for gauges that are cheaper to compute than to keep.
    pub fn before_scrape(&self, update: impl Fn() + Send + Sync + 'static) {
        lock(&self.0.before_scrape).push(Box::new(update));
    }

    /// The exposition in OpenMetrics text.
    pub fn encode(&self) -> String {
        for update in lock(&self.0.before_scrape).iter() {
            update();
        }
        let mut text = String::new();
        if text::encode(&mut text, &lock(&self.0.registry)).is_err() {
            // Only a collector's own error can end here; what was written so far is still true.
            tracing::warn!("a metrics collector failed: the exposition is incomplete");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Metrics stay usable after a panic elsewhere: a half-updated gauge is better than none.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Public dashboards query these names to the letter.
    #[test]
    fn names_are_controller_runtimes() {
        let metrics = Metrics::new();
        let controller = metrics.controller("web");
        controller.finished(ReconcileResult::RequeueAfter, std::time::Duration::from_millis(3));
        metrics.workqueue("web").depth(-100, 1);
        metrics.election().leading("trysail-manager", true);
        let text = metrics.encode();
        for line in [
            r#"controller_runtime_reconcile_total{controller="web",result="requeue_after"} 1"#,
            r#"controller_runtime_reconcile_total{controller="web",result="error"} 0"#,
            r#"controller_runtime_reconcile_errors_total{controller="web"} 0"#,
            r#"controller_runtime_terminal_reconcile_errors_total{controller="web"} 0"#,
            r#"controller_runtime_reconcile_panics_total{controller="web"} 0"#,
            r#"controller_runtime_reconcile_timeouts_total{controller="web"} 0"#,
            r#"controller_runtime_reconcile_time_seconds_count{controller="web"} 1"#,
            r#"controller_runtime_max_concurrent_reconciles{controller="web"} 0"#,
            r#"controller_runtime_active_workers{controller="web"} 0"#,
            r#"workqueue_depth{name="web",controller="web",priority="-100"} 1"#,
            r#"workqueue_adds_total{name="web",controller="web"} 0"#,
            r#"workqueue_retries_total{name="web",controller="web"} 0"#,
            r#"workqueue_queue_duration_seconds_count{name="web",controller="web"} 0"#,
            r#"workqueue_work_duration_seconds_count{name="web",controller="web"} 0"#,
            r#"workqueue_unfinished_work_seconds{name="web",controller="web"} 0"#,
            r#"workqueue_longest_running_processor_seconds{name="web",controller="web"} 0"#,
            r#"leader_election_master_status{name="trysail-manager"} 1"#,
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
