//! One controller of the process: what it watches, what it remembers per key, and one look at a key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    rc::Rc,
};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use trysail_core::{
    Key, Object, Resource, Uid,
    plan::{Context, Plan, Planner, Refusal},
};

use super::{
    Desk,
    cache::{Cached, Feed},
    informers::Informers,
    memory::{self, Attempt, Verdict},
};
use crate::cluster::Cluster;

/// How a kind is entered: its planner, its resource, and how it is observed.
///
/// ```text
/// let planner = ReplicaSetPlanner::replica_sets(face);
/// Registration::new(planner, planner.resource, |sets: Cached<ReplicaSet>, informers| {
///     let pods = informers.of::<Pod>(PODS);
///     move |key, context| observe(key, context, &sets, &pods)
/// })
/// ```
#[derive(Clone)]
pub struct Registration {
    name: &'static str,
    start: Rc<Start>,
}

type Start = dyn Fn(&mut Informers) -> Box<dyn Controller>;

impl Registration {
    /// Every object of `resource` is a key; `wire` names the other views and answers the function that reads
    /// them all.
    pub fn new<P, T, O>(
        planner: P,
        resource: Resource,
        wire: impl Fn(Cached<T>, &mut Informers) -> O + 'static,
    ) -> Self
    where
        P: Planner + Clone,
        P::Memory: fmt::Debug,
        T: DeserializeOwned + Object,
        O: Fn(&Key, Context<P::Memory>) -> Option<P::Snapshot> + 'static,
    {
        let name = planner.name();
        let start = move |informers: &mut Informers| -> Box<dyn Controller> {
            let primary = informers.of::<T>(resource);
            let observe = wire(primary.clone(), informers);
            Box::new(Loop {
                planner: planner.clone(),
                primary: Rc::new(primary),
                reads: informers.take_used(),
                observe: Box::new(observe),
                keys: BTreeMap::new(),
            })
        };
        Self { name, start: Rc::new(start) }
    }

    pub(super) fn start(&self, informers: &mut Informers) -> Box<dyn Controller> {
        (self.start)(informers)
    }

    /// The planner's name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({})", self.name)
    }
}

/// What came of a look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// How many actions took effect, and whether the planner is told news at once.
    pub(super) done: usize,
    /// The process died.
    pub(super) crashed: bool,
}

/// A controller of any kind.
pub(super) trait Controller {
    fn name(&self) -> &'static str;
    fn keys(&self) -> Vec<(Key, Uid)>;
    /// Forgets what is gone.
    fn tidy(&mut self);
    /// Looks at a key if there is a reason to: something was delivered, its time has come, or it was left open.
    fn look(&mut self, desk: &mut Desk<'_>, cluster: &mut Cluster, key: &Key, uid: &Uid) -> Look;
    /// Every key is due.
    fn nudge(&mut self);
    /// Moments at which keys ask to be looked at.
    fn wakes(&self) -> Vec<Timestamp>;
    /// Plans without carrying out.
    fn why(&self, key: &Key, uid: &Uid, now: Timestamp) -> Option<String>;
    /// Why a key would be looked at, or held, at this moment.
    fn backlog(&self, desk: &Desk<'_>, now: Timestamp) -> Vec<String>;
}

type Observe<P> = dyn Fn(&Key, Context<<P as Planner>::Memory>) -> Option<<P as Planner>::Snapshot>;

/// A planner with what the runtime remembers for it.
struct Loop<P: Planner> {
    planner: P,
    primary: Rc<dyn Feed>,
    reads: Vec<Rc<dyn Feed>>,
    observe: Box<Observe<P>>,
    keys: BTreeMap<Uid, Held<P::Memory>>,
}

/// What is remembered of one incarnation.
#[derive(Debug, Default)]
struct Held<M> {
    memory: M,
    refusal: Option<Refusal>,
    /// How many looks in a row the server refused something of.
    failures: u32,
    /// Which revision each resource must have been seen at before the key is looked at again.
    gate: BTreeMap<Resource, u64>,
    wake_at: Option<Timestamp>,
    /// How many deliveries there had been at the last look; `None` when something was left open.
    looked: Option<u64>,
}

impl<P: Planner> Loop<P>
where
    P::Memory: fmt::Debug,
{
    fn context(&self, uid: &Uid, now: Timestamp) -> Context<P::Memory> {
        let held = self.keys.get(uid);
        let memory = held.map(|held| held.memory.clone()).unwrap_or_default();
        Context { now, memory, refusal: held.and_then(|held| held.refusal.clone()) }
    }

    fn deliveries(&self) -> u64 {
        self.reads.iter().map(|feed| feed.changes()).sum()
    }

    fn is_due(&self, uid: &Uid, now: Timestamp) -> bool {
        let Some(held) = self.keys.get(uid) else { return true };
        held.looked != Some(self.deliveries()) || held.wake_at.is_some_and(|at| at <= now)
    }

    /// The plan, audited: a violation is a bug in the planner, never a condition of the test.
    fn planned(&self, snapshot: &P::Snapshot) -> Plan<P::Memory> {
        let plan = self.planner.plan(snapshot);
        let audited = self.planner.audit(snapshot, &plan).map_err(|violation| violation.to_string());
        assert_eq!(audited, Ok(()), "{plan}");
        plan
    }
}

impl<P: Planner> Controller for Loop<P>
where
    P::Memory: fmt::Debug,
{
    fn name(&self) -> &'static str {
        self.planner.name()
    }

    fn keys(&self) -> Vec<(Key, Uid)> {
        self.primary.keys()
    }

    fn tidy(&mut self) {
        let living: BTreeSet<Uid> = self.primary.keys().into_iter().map(|(_, uid)| uid).collect();
        self.keys.retain(|uid, _| living.contains(uid));
    }

    fn look(&mut self, desk: &mut Desk<'_>, cluster: &mut Cluster, key: &Key, uid: &Uid) -> Look {
        let is_held = self.keys.get(uid).is_some_and(|held| desk.is_behind(&held.gate));
        if is_held || !self.is_due(uid, cluster.now) {
            return Look::default();
        }
        let context = self.context(uid, cluster.now);
        let attempt = Attempt::at(context.refusal.as_ref(), cluster.now);
        let Some(snapshot) = (self.observe)(key, context.clone()) else {
            // Nothing that this controller decides about any more: that is looked at, too.
            let deliveries = self.deliveries();
            if let Some(held) = self.keys.get_mut(uid) {
                (held.looked, held.wake_at) = (Some(deliveries), None);
            }
            return Look::default();
        };
        let plan = self.planned(&snapshot);
        let again = desk.informers.reversed(|| (self.observe)(key, context));
        let again = again.map(|snapshot| self.planned(&snapshot));
        assert_eq!(Some(&plan), again.as_ref(), "the plan depends on the order of the views");

        let deliveries = self.deliveries();
        let outcome = desk.apply(cluster, &plan);
        if outcome.crashed {
            return Look { done: outcome.done, crashed: true };
        }
        let held = self.keys.entry(uid.clone()).or_default();
        let is_done = outcome.reports.iter().all(|report| report.verdict == Verdict::Done);
        held.memory = plan.memory_when_done.filter(|_| is_done).unwrap_or(plan.memory);
        for (resource, revision) in outcome.gate {
            let at = held.gate.entry(resource).or_insert(0);
            *at = revision.max(*at);
        }
        let judged = memory::judge(held.refusal.take(), attempt, &outcome.reports, cluster.now);
        held.refusal = judged.refusal;
        let retry_at = held.refusal.as_ref().map(|refusal| refusal.retry_at);
        // A status that is refused is no refusal that the planner hears of, but a failure like any other.
        let is_refused = outcome.reports.iter().any(|report| matches!(report.verdict, Verdict::Refused(_)));
        held.failures = if is_refused { held.failures.saturating_add(1) } else { 0 };
        let back_off = (is_refused && retry_at.is_none()).then(|| cluster.now + memory::delay(held.failures));
        held.wake_at = [plan.requeue_at, retry_at, back_off].into_iter().flatten().min();
        held.looked = (!outcome.is_open && !judged.look_again).then_some(deliveries);
        Look { done: outcome.done + usize::from(judged.look_again), crashed: false }
    }

    fn nudge(&mut self) {
        self.keys.values_mut().for_each(|held| held.looked = None);
    }

    fn wakes(&self) -> Vec<Timestamp> {
        self.keys.values().filter_map(|held| held.wake_at).collect()
    }

    fn why(&self, key: &Key, uid: &Uid, now: Timestamp) -> Option<String> {
        let snapshot = (self.observe)(key, self.context(uid, now))?;
        Some(self.planned(&snapshot).to_string())
    }

    fn backlog(&self, desk: &Desk<'_>, now: Timestamp) -> Vec<String> {
        let mut backlog = Vec::new();
        for (key, uid) in self.primary.keys() {
            let Some(held) = self.keys.get(&uid) else { continue };
            let refused = held.refusal.as_ref().map(|refusal| format!("refused: {}", refusal.message));
            let behind = desk.is_behind(&held.gate).then(|| "own writes are not in view".to_owned());
            let due = self.is_due(&uid, now).then(|| "due".to_owned());
            let reasons = [refused, behind, due].into_iter().flatten();
            backlog.extend(reasons.map(|reason| format!("{} {key}: {reason}", self.name())));
        }
        backlog
    }
}
