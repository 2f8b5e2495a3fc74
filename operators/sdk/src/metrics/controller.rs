//! `controller_runtime_*`.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// controller-runtime's buckets for `reconcile_time_seconds`.
const RECONCILE_BUCKETS: [f64; 40] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25,
    1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0,
    50.0, 60.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Controller {
    controller: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControllerResult {
    controller: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ActionResult {
    controller: String,
    reason: &'static str,
    result: &'static str,
}

/// How a reconcile ended: the `result` label of `controller_runtime_reconcile_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconcileResult {
    /// Nothing more to do until something happens.
    Success,
    /// It failed and is retried with backoff.
    Error,
    /// It is to run again at once.
    Requeue,
    /// It is to run again later.
    RequeueAfter,
}

impl ReconcileResult {
    const ALL: [Self; 4] = [Self::Success, Self::Error, Self::Requeue, Self::RequeueAfter];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Requeue => "requeue",
            Self::RequeueAfter => "requeue_after",
        }
    }
}

type Histograms = Family<Controller, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(super) struct ControllerFamilies {
    reconcile: Family<ControllerResult, Counter>,
    errors: Family<Controller, Counter>,
    terminal: Family<Controller, Counter>,
    panics: Family<Controller, Counter>,
    timeouts: Family<Controller, Counter>,
    rejected_plans: Family<Controller, Counter>,
    actions: Family<ActionResult, Counter>,
    time: Histograms,
    max_concurrent: Family<Controller, Gauge>,
    active: Family<Controller, Gauge>,
}

impl ControllerFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            reconcile: Family::default(),
            errors: Family::default(),
            terminal: Family::default(),
            panics: Family::default(),
            timeouts: Family::default(),
            rejected_plans: Family::default(),
            actions: Family::default(),
            time: Family::new_with_constructor(|| Histogram::new(RECONCILE_BUCKETS)),
            max_concurrent: Family::default(),
            active: Family::default(),
        };
        let mut counter = |name: &str, help: &str, family: &Family<Controller, Counter>| {
            registry.register(format!("controller_runtime_{name}"), help, family.clone());
        };
        counter("reconcile_errors", "Reconciles that failed", &families.errors);
        counter(
            "terminal_reconcile_errors",
            "Reconciles that failed for good and are not retried",
            &families.terminal,
        );
        counter("reconcile_panics", "Reconciles that panicked", &families.panics);
        counter("reconcile_timeouts", "Reconciles that ran out of time", &families.timeouts);
        counter("rejected_plans", "Plans dropped because they broke an invariant", &families.rejected_plans);
        registry.register(
            "trysail_actions",
            "Actions of plans by reason and result",
            families.actions.clone(),
        );
        registry.register("controller_runtime_reconcile", "Reconciles by result", families.reconcile.clone());
        registry.register(
            "controller_runtime_reconcile_time_seconds",
            "How long reconciles took",
            families.time.clone(),
        );
        registry.register(
            "controller_runtime_max_concurrent_reconciles",
            "How many reconciles may run at a time",
            families.max_concurrent.clone(),
        );
        registry.register(
            "controller_runtime_active_workers",
            "How many reconciles run now",
            families.active.clone(),
        );
        families
    }

    pub(super) fn of(&self, name: &str) -> ControllerMetrics {
        let labels = Controller { controller: name.to_owned() };
        let results = ReconcileResult::ALL.map(|result| {
            let labels = ControllerResult { controller: name.to_owned(), result: result.as_str() };
            self.reconcile.get_or_create_owned(&labels)
        });
        ControllerMetrics {
            name: name.to_owned(),
            actions: self.actions.clone(),
            results,
            errors: self.errors.get_or_create_owned(&labels),
            terminal: self.terminal.get_or_create_owned(&labels),
            panics: self.panics.get_or_create_owned(&labels),
            timeouts: self.timeouts.get_or_create_owned(&labels),
            rejected_plans: self.rejected_plans.get_or_create_owned(&labels),
            time: self.time.get_or_create_owned(&labels),
            max_concurrent: self.max_concurrent.get_or_create_owned(&labels),
            active: self.active.get_or_create_owned(&labels),
        }
    }
}

/// The metrics of one controller, looked up once.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    name: String,
    actions: Family<ActionResult, Counter>,
    results: [Counter; 4],
    errors: Counter,
    terminal: Counter,
    panics: Counter,
    timeouts: Counter,
    rejected_plans: Counter,
    time: Histogram,
    max_concurrent: Gauge,
    active: Gauge,
}

impl ControllerMetrics {
    /// A reconcile ended.
    pub fn finished(&self, result: ReconcileResult, took: Duration) {
        self.results[result as usize].inc();
        if result == ReconcileResult::Error {
            self.errors.inc();
        }
        self.time.observe(took.as_secs_f64());
    }

    /// A reconcile failed for good.
    pub fn terminal_error(&self) {
        self.terminal.inc();
    }

    /// A reconcile panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// A reconcile ran out of time.
    pub fn timed_out(&self) {
        self.timeouts.inc();
    }

    /// The audit dropped a plan.
    pub fn plan_rejected(&self) {
        self.rejected_plans.inc();
    }

    /// An action of a plan ended.
    pub fn action(&self, reason: &'static str, result: &'static str) {
        let labels = ActionResult { controller: self.name.clone(), reason, result };
        self.actions.get_or_create(&labels).inc();
    }

    /// The concurrency limit.
    pub fn max_concurrent(&self, workers: usize) {
        self.max_concurrent.set(workers as i64);
    }

    /// Counts a running reconcile until the guard is dropped, whatever way it ends.
    #[must_use = "the worker counts as active for as long as the guard lives"]
    pub fn active(&self) -> ActiveWorker {
        self.active.inc();
        ActiveWorker(self.active.clone())
    }
}

/// See [`ControllerMetrics::active`].
#[derive(Debug)]
pub struct ActiveWorker(Gauge);

impl Drop for ActiveWorker {
    fn drop(&mut self) {
        self.0.dec();
    }
}
