//! Controllers whose decisions are values: observe, plan, audit, apply, one key at a time.
//!
//! Decided here: what is remembered between two looks, what a refusal means for the next one, and when that
//! is. Not decided here: anything about the objects.

use std::{fmt, sync::Arc, time::Duration};

use trysail_core::{
    Action, Key, Object, Plan, Resource, Timestamp, Uid, View,
    plan::{Context, Planner, Violation},
};

use super::{
    engine::{DEFAULT_WORKERS, Engine, Outcome, Work},
    memory::{Attempt, Memories},
    ready::Ready,
    route::{self, Route},
};
use crate::{
    apply::{self, Applier, Next},
    events::{Recorder, Regarding},
    gate::{Gate, Passage},
    informer::{Event, Handle},
    manager::{Prepared, Runnable, Services},
    metrics::ControllerMetrics,
    queue::{Cause, Item, Queue, QueueConfig},
    store::Store,
};

/// A plan that asks for a moment in the past is looked at again after this time: a planner's slip must not
/// become a hot loop.
const SOONEST: Duration = Duration::from_millis(5);
/// A conflict says that somebody was faster. After this many failures in a row that explains nothing any more (a
/// namespace or subresource that does not exist, say): it is told as a failure.
const CONFLICTS: u32 = 5;

type Observe<P> =
    Box<dyn Fn(&Key, Context<<P as Planner>::Memory>) -> Option<<P as Planner>::Snapshot> + Send + Sync>;
type Incarnation = Box<dyn Fn(&Key) -> Option<Uid> + Send + Sync>;
type OnViolation = Box<dyn Fn(&Key, &Violation) -> Vec<Action> + Send + Sync>;

/// What a planned controller watches, and how it reads.
pub struct Wiring<P: Planner> {
    resource: Resource,
    routes: Vec<Box<dyn Route<Key>>>,
    uid: Incarnation,
    observe: Observe<P>,
    on_violation: Option<OnViolation>,
}

impl<P: Planner> Wiring<P> {
    /// Objects of `primary` are what is reconciled; `observe` reads everything that is decided upon, `None`
    /// when the object is gone.
    pub fn new<T: Object>(
        primary: &Handle<T>,
        observe: impl Fn(&Key, Context<P::Memory>) -> Option<P::Snapshot> + Send + Sync + 'static,
    ) -> Self {
        let store: Arc<Store<T>> = Arc::clone(primary.store());
        Self {
            resource: *primary.resource(),
            routes: vec![route::own(primary.clone())],
            uid: Box::new(move |key| store.get(key).map(|object| object.uid())),
            observe: Box::new(observe),
            on_violation: None,
        }
    }

    /// As [`Wiring::new`], but of the objects of `primary` only those are looked at that `keys` adds: for a
    /// controller that minds few of many.
    pub fn of_some<T: Object>(
        primary: &Handle<T>,
        keys: impl Fn(&Event<T>, &mut dyn FnMut(Key)) + Send + Sync + 'static,
        observe: impl Fn(&Key, Context<P::Memory>) -> Option<P::Snapshot> + Send + Sync + 'static,
    ) -> Self {
        let routes = vec![route::events(primary.clone(), keys)];
        Self { routes, ..Self::new(primary, observe) }
    }

    /// Changes of these objects reconcile the keys that `keys` names for them as they are, and as they were.
    #[must_use]
    pub fn watch<T: Object>(
        mut self,
        handle: &Handle<T>,
        keys: impl Fn(&T) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self {
        self.routes.push(route::mapped(handle.clone(), keys));
        self
    }

    /// Events of these objects reconcile the keys that `keys` adds: for controllers that let most of them pass.
    #[must_use]
    pub fn watch_events<T: Object>(
        mut self,
        handle: &Handle<T>,
        keys: impl Fn(&Event<T>, &mut dyn FnMut(Key)) + Send + Sync + 'static,
    ) -> Self {
        self.routes.push(route::events(handle.clone(), keys));
        self
    }

    /// What is applied instead of a plan that the audit dropped: a condition that says so.
    #[must_use]
    pub fn on_violation(
        mut self,
        actions: impl Fn(&Key, &Violation) -> Vec<Action> + Send + Sync + 'static,
    ) -> Self {
        self.on_violation = Some(Box::new(actions));
        self
    }
}

impl<P: Planner> fmt::Debug for Wiring<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wiring({})", self.resource)
    }
}

type Wire<P> = Box<dyn FnOnce(&Services) -> Wiring<P> + Send>;

/// A controller that carries out a planner's plans.
#[must_use = "a controller does nothing without a manager"]
pub struct PlanController<P: Planner> {
    planner: P,
    name: &'static str,
    workers: usize,
    queue: QueueConfig,
    wire: Wire<P>,
}

impl<P: Planner> PlanController<P> {
    /// `wire` starts the informers that the planner needs and says how they are read.
    pub fn new(planner: P, wire: impl FnOnce(&Services) -> Wiring<P> + Send + 'static) -> Self {
        let name = planner.name();
        Self { planner, name, workers: DEFAULT_WORKERS, queue: QueueConfig::default(), wire: Box::new(wire) }
    }

    /// Another name than the planner's, for a process that runs the planner twice.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// How many keys are worked on at the same time.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How failing and busy keys are delayed.
    pub fn queue(mut self, config: QueueConfig) -> Self {
        self.queue = config;
        self
    }
}

impl<P: Planner> fmt::Debug for PlanController<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanController({})", self.name)
    }
}

impl<P: Planner> Runnable for PlanController<P> {
    fn name(&self) -> &str {
        self.name
    }

    fn prepare(self: Box<Self>, services: &Services) -> Box<dyn Prepared> {
        let Self { planner, name, workers, queue, wire } = *self;
        let Wiring { resource, routes, uid, observe, on_violation } = wire(services);
        let queue: Queue<Key> = Queue::with_config(name, &services.metrics, queue);
        let woken = queue.clone();
        let gate =
            Gate::new(name, &services.informers, &services.client, services.gates.clone(), move |key| {
                woken.release(&key, Cause::Request("own writes are in the store"));
            });
        let metrics = services.metrics.controller(name);
        let work = PlannedWork {
            planner,
            resource,
            uid,
            observe,
            on_violation,
            memories: Memories::default(),
            gate,
            applier: services.applier.clone(),
            recorder: services.events.recorder(name),
            metrics: metrics.clone(),
        };
        let engine = Engine { name: name.into(), queue, metrics, work, timeout: None };
        Box::new(Ready { engine: Arc::new(engine), routes, workers })
    }
}

struct PlannedWork<P: Planner> {
    planner: P,
    resource: Resource,
    uid: Incarnation,
    observe: Observe<P>,
    on_violation: Option<OnViolation>,
    memories: Memories<P::Memory>,
    gate: Gate,
    applier: Applier,
    recorder: Recorder,
    metrics: ControllerMetrics,
}

/// What the synchronous half of a look comes to.
enum Decision<M> {
    Gone,
    /// Another incarnation appeared while its objects were read.
    Changed,
    Plan {
        plan: Plan<M>,
        uid: Uid,
        attempt: Attempt,
        now: Timestamp,
    },
    Rejected {
        violation: Violation,
    },
}

impl<P: Planner> Work<Key> for PlannedWork<P> {
    async fn look(&self, item: &Item<Key>) -> Outcome {
        let key = &item.key;
        if let Passage::Waiting(waiting) = self.gate.check(key) {
            tracing::debug!(?waiting, "held at the gate");
            return Outcome::Held;
        }
        match self.decide(key) {
            Decision::Gone => {
                self.memories.forget(key);
                Outcome::Done
            }
            Decision::Changed => Outcome::Again,
            Decision::Plan { plan, uid, attempt, now } => self.carry_out(item, uid, plan, attempt, now).await,
            Decision::Rejected { violation } => self.reject(key, &violation).await,
        }
    }
}

impl<P: Planner> PlannedWork<P> {
    fn decide(&self, key: &Key) -> Decision<P::Memory> {
        let Some(uid) = (self.uid)(key) else { return Decision::Gone };
        let now = Timestamp::now();
        let (memory, refusal) = self.memories.recall(key, &uid);
        let attempt = Attempt::at(refusal.as_ref(), now);
        let Some(snapshot) = (self.observe)(key, Context { now, memory, refusal }) else {
            return Decision::Gone;
        };
        if (self.uid)(key).as_ref() != Some(&uid) {
            return Decision::Changed;
        }
        let plan = self.planner.plan(&snapshot);
        match self.planner.audit(&snapshot, &plan) {
            Ok(()) => Decision::Plan { plan, uid, attempt, now },
            Err(violation) => {
                tracing::error!(%violation, %plan, "a plan was dropped");
                Decision::Rejected { violation }
            }
        }
    }

    async fn carry_out(
        &self,
        item: &Item<Key>,
        uid: Uid,
        plan: Plan<P::Memory>,
        attempt: Attempt,
        now: Timestamp,
    ) -> Outcome {
        let key = &item.key;
        if !plan.is_idle() {
            tracing::debug!(%plan, "planned");
        }
        let regarding = Regarding { resource: self.resource, key: key.clone(), uid };
        for event in plan.events {
            self.recorder.record(&regarding, event);
        }
        self.memories.remember(key, &regarding.uid, plan.memory);
        let applied = self.apply(key, &regarding.uid, plan.waves).await;
        if let Some(memory) = plan.memory_when_done.filter(|_| applied.is_success()) {
            self.memories.remember(key, &regarding.uid, memory);
        }
        self.tell(&regarding, &applied);
        let judged = self.memories.judge(key, &regarding.uid, attempt, &applied, Timestamp::now());
        match applied.next() {
            // The planner is told of the refusal at once, so that its condition is written.
            _ if judged.look_again => Outcome::Again,
            Next::Wait => {
                let times = [plan.requeue_at, judged.retry_at];
                times.into_iter().flatten().min().map_or(Outcome::Done, |at| Outcome::After(until(now, at)))
            }
            Next::LookAgain if item.failures >= CONFLICTS => Outcome::Failed(failures(&applied)),
            Next::LookAgain | Next::Stop => Outcome::Retry,
            Next::BackOff { at_least } => match at_least {
                Some(delay) => Outcome::Later(delay),
                None => Outcome::Failed(failures(&applied)),
            },
        }
    }

    /// A namespace that takes no more objects is asked once: every pod that ends there wakes its owner.
    async fn apply(&self, key: &Key, uid: &Uid, waves: Vec<Vec<Action>>) -> apply::Outcome {
        if self.memories.is_closed(key, uid) {
            return apply::apply(&self.applier.in_closed_namespace(), &self.gate, key, waves).await;
        }
        let applied = apply::apply(&self.applier, &self.gate, key, waves).await;
        if applied.reports.iter().any(|report| report.verdict == apply::Verdict::NamespaceTerminating) {
            self.memories.close(key, uid);
        }
        applied
    }

    fn tell(&self, regarding: &Regarding, applied: &apply::Outcome) {
        for report in &applied.reports {
            self.metrics.action(report.action.reason, word(&report.verdict));
            let note = match &report.verdict {
                apply::Verdict::Done => report.action.on_success.clone(),
                apply::Verdict::Refused { message } => report.action.on_failure.clone().map(|mut note| {
                    if !note.message.is_empty() {
                        note.message.push_str(": ");
                    }
                    note.message.push_str(message);
                    note
                }),
                _ => None,
            };
            if let Some(note) = note {
                self.recorder.record(regarding, note);
            }
        }
    }

    /// A plan that breaks an invariant is our own bug: it stops a test, and costs a user one object's progress.
    async fn reject(&self, key: &Key, violation: &Violation) -> Outcome {
        self.metrics.plan_rejected();
        panic_in_tests(violation);
        if let Some(actions) = &self.on_violation {
            let told = apply::apply(&self.applier, &self.gate, key, vec![actions(key, violation)]).await;
            if !told.is_success() {
                tracing::warn!(errors = failures(&told), "the dropped plan could not be told in a condition");
            }
        }
        Outcome::Failed(violation.to_string())
    }
}

/// Caught like any panic, so it costs that key alone; but a test that sees it fails.
#[expect(clippy::panic, clippy::manual_assert, reason = "a test must not pass over a broken invariant")]
fn panic_in_tests(violation: &Violation) {
    if cfg!(debug_assertions) {
        panic!("{violation}");
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default().max(SOONEST)
}

/// The `result` label of an action.
fn word(verdict: &apply::Verdict) -> &'static str {
    match verdict {
        apply::Verdict::Done => "done",
        apply::Verdict::Conflict { .. } => "conflict",
        apply::Verdict::NameTaken { .. } => "name_taken",
        apply::Verdict::NamespaceTerminating => "namespace_terminating",
        apply::Verdict::Refused { .. } => "refused",
        apply::Verdict::Throttled { .. } => "throttled",
        apply::Verdict::Unknown { .. } => "unknown",
        apply::Verdict::Failed { .. } => "failed",
        apply::Verdict::Fenced => "fenced",
        apply::Verdict::Skipped => "skipped",
    }
}

/// What went wrong, as one line.
fn failures(applied: &apply::Outcome) -> String {
    let failed = applied.reports.iter().filter_map(|report| {
        let why = match &report.verdict {
            apply::Verdict::Done | apply::Verdict::Skipped => return None,
            apply::Verdict::Conflict { message }
            | apply::Verdict::Refused { message }
            | apply::Verdict::Unknown { message }
            | apply::Verdict::Failed { message } => message.clone(),
            apply::Verdict::NameTaken { name } => format!("{name} belongs to another controller"),
            apply::Verdict::NamespaceTerminating => "the namespace is being deleted".to_owned(),
            apply::Verdict::Throttled { .. } => "the API server is busy".to_owned(),
            apply::Verdict::Fenced => "this process does not lead".to_owned(),
        };
        Some(format!("{}: {why}", report.action.reason))
    });
    failed.collect::<Vec<_>>().join("; ")
}
