//! The controllers under test, in one process: views that may lag, the gate that waits for own writes, the
//! planners, and the execution of their plans. It stands for the SDK's runtime and follows the same rules.

mod apply;
mod cache;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use trysail_core::{
    Face, Key, Resource, Uid,
    plan::{Action, Context, EventNote, Plan, Planner, Refusal},
    pod::Pod,
    resource::PODS,
};
use trysail_workloads::{
    deployment::{self, DeploymentPlanner},
    replicaset::{self, ReplicaSetPlanner},
    views::{Deployment, ReplicaSet},
};

pub use cache::{Cache, Reversed};

use crate::cluster::Cluster;

/// How often [`Manager::settle`] looks at everything before it gives up: a rollout of ten pods takes about
/// thirty rounds.
const MAX_ROUNDS: usize = 400;

/// What goes wrong while plans are carried out. Countdowns are in actions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The process dies right after so many further actions.
    pub crash_after: Option<u32>,
    /// The reply to the action after so many further ones is lost, although it was carried out.
    pub lose_reply_after: Option<u32>,
}

/// What is known per key of one controller.
#[derive(Debug)]
pub(crate) struct Loop<P: Planner> {
    planner: P,
    memory: BTreeMap<Uid, P::Memory>,
    refusals: BTreeMap<Uid, Refusal>,
    /// Which revision each resource must have been seen at before the key is looked at again.
    gates: BTreeMap<Uid, BTreeMap<Resource, u64>>,
    wake_at: BTreeMap<Key, Timestamp>,
}

impl<P: Planner> Loop<P> {
    fn new(planner: P) -> Self {
        Self {
            planner,
            memory: BTreeMap::new(),
            refusals: BTreeMap::new(),
            gates: BTreeMap::new(),
            wake_at: BTreeMap::new(),
        }
    }

    fn context(&self, uid: &Uid, now: Timestamp) -> Context<P::Memory> {
        Context {
            now,
            memory: self.memory.get(uid).cloned().unwrap_or_default(),
            refusal: self.refusals.get(uid).cloned(),
        }
    }
}

/// One manager process.
#[derive(Debug)]
pub struct Manager {
    face: Face,
    /// What goes wrong.
    pub faults: Faults,
    /// Without the gate, a key is looked at although its own writes are not in view yet.
    pub is_gated: bool,
    /// Deployments as this process sees them.
    pub deployments: Cache<Deployment>,
    /// ReplicaSets as this process sees them.
    pub sets: Cache<ReplicaSet>,
    /// ReplicationControllers as this process sees them.
    pub controllers: Cache<ReplicaSet>,
    /// Pods as this process sees them.
    pub pods: Cache<Pod>,
    /// What was done and told since it was last taken.
    pub journal: Vec<String>,
    deployment: Loop<DeploymentPlanner>,
    set: Loop<ReplicaSetPlanner>,
    controller: Loop<ReplicaSetPlanner>,
}

impl Manager {
    /// A process that starts now: its views are complete.
    pub fn start(face: Face, cluster: &Cluster) -> Self {
        let [deployments, sets, controllers] = Cluster::resources(face);
        Self {
            face,
            faults: Faults::default(),
            is_gated: true,
            deployments: Cache::list(deployments, cluster),
            sets: Cache::list(sets, cluster),
            controllers: Cache::list(controllers, cluster),
            pods: Cache::list(PODS, cluster),
            journal: Vec::new(),
            deployment: Loop::new(DeploymentPlanner::new(face)),
            set: Loop::new(ReplicaSetPlanner::replica_sets(face)),
            controller: Loop::new(ReplicaSetPlanner::replication_controllers(face)),
        }
    }

    /// The process dies and starts anew: memory is lost, views are complete again.
    pub fn crash(&mut self, cluster: &Cluster) {
        let lags = [self.deployments.lag, self.sets.lag, self.controllers.lag, self.pods.lag];
        let journal = std::mem::take(&mut self.journal);
        let is_gated = self.is_gated;
        *self = Self { is_gated, journal, ..Self::start(self.face, cluster) };
        [self.deployments.lag, self.sets.lag, self.controllers.lag, self.pods.lag] = lags;
    }

    /// Every view lags so many events behind from now on.
    pub fn set_lag(&mut self, events: usize) {
        self.deployments.lag = events;
        self.sets.lag = events;
        self.controllers.lag = events;
        self.pods.lag = events;
    }

    /// Looks at every key once. Answers how many actions took effect.
    pub fn round(&mut self, cluster: &mut Cluster) -> usize {
        self.catch_up(cluster);
        let mut done = 0;
        for (key, uid) in self.deployments.keys() {
            done += self.look_at_deployment(cluster, &key, &uid);
        }
        for (key, uid) in self.sets.keys() {
            done += self.look_at_set(cluster, &key, &uid);
        }
        for (key, uid) in self.controllers.keys() {
            done += self.look_at_controller(cluster, &key, &uid);
        }
        done
    }

    /// Rounds until nothing is left to do at this moment; short waits (coalesced statuses) are slept through.
    /// Answers whether that came to an end.
    pub fn settle(&mut self, cluster: &mut Cluster) -> bool {
        for _ in 0..MAX_ROUNDS {
            if self.round(cluster) > 0 {
                continue;
            }
            match self.next_wake(cluster.now) {
                Some(at) => cluster.now = at,
                None => return true,
            }
        }
        false
    }

    /// The next look that somebody asked for within a second.
    fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let soon = now + SignedDuration::from_secs(1);
        let wakes = [&self.deployment.wake_at, &self.set.wake_at, &self.controller.wake_at];
        wakes.into_iter().flat_map(BTreeMap::values).copied().filter(|at| *at > now && *at <= soon).min()
    }

    fn catch_up(&mut self, cluster: &Cluster) {
        self.deployments.catch_up(cluster);
        self.sets.catch_up(cluster);
        self.controllers.catch_up(cluster);
        self.pods.catch_up(cluster);
    }

    fn seen(&self, resource: Resource) -> u64 {
        match resource {
            PODS => self.pods.seen(),
            _ if resource == self.deployments.resource() => self.deployments.seen(),
            _ if resource == self.sets.resource() => self.sets.seen(),
            _ => self.controllers.seen(),
        }
    }

    fn is_held(&self, gate: Option<&BTreeMap<Resource, u64>>) -> bool {
        let behind = |(resource, revision): (&Resource, &u64)| self.seen(*resource) < *revision;
        self.is_gated && gate.is_some_and(|gate| gate.iter().any(behind))
    }

    fn look_at_deployment(&mut self, cluster: &mut Cluster, key: &Key, uid: &Uid) -> usize {
        if self.is_held(self.deployment.gates.get(uid)) {
            return 0;
        }
        let context = self.deployment.context(uid, cluster.now);
        let Some(snapshot) = deployment::observe(key, context, &self.deployments, &self.sets, &self.pods)
        else {
            return 0;
        };
        let planner = self.deployment.planner;
        let plan = planned(&planner, &snapshot);
        let context = snapshot.context.clone();
        let (deployments, sets) = (self.deployments.reversed(), self.sets.reversed());
        let again = deployment::observe(key, context, &deployments, &sets, &self.pods.reversed());
        same_whatever_the_order(&planner, &plan, again);
        let outcome = self.apply(cluster, &plan);
        outcome.settle_into(&mut self.deployment, key, uid, plan)
    }

    fn look_at_set(&mut self, cluster: &mut Cluster, key: &Key, uid: &Uid) -> usize {
        if self.is_held(self.set.gates.get(uid)) {
            return 0;
        }
        let context = self.set.context(uid, cluster.now);
        let Some(snapshot) = replicaset::observe(key, context, &self.sets, &self.pods) else { return 0 };
        let planner = self.set.planner;
        let plan = planned(&planner, &snapshot);
        let context = snapshot.context.clone();
        let again = replicaset::observe(key, context, &self.sets.reversed(), &self.pods.reversed());
        same_whatever_the_order(&planner, &plan, again);
        let outcome = self.apply(cluster, &plan);
        outcome.settle_into(&mut self.set, key, uid, plan)
    }

    fn look_at_controller(&mut self, cluster: &mut Cluster, key: &Key, uid: &Uid) -> usize {
        if self.is_held(self.controller.gates.get(uid)) {
            return 0;
        }
        let context = self.controller.context(uid, cluster.now);
        let Some(snapshot) = replicaset::observe(key, context, &self.controllers, &self.pods) else {
            return 0;
        };
        let planner = self.controller.planner;
        let plan = planned(&planner, &snapshot);
        let context = snapshot.context.clone();
        let again = replicaset::observe(key, context, &self.controllers.reversed(), &self.pods.reversed());
        same_whatever_the_order(&planner, &plan, again);
        let outcome = self.apply(cluster, &plan);
        outcome.settle_into(&mut self.controller, key, uid, plan)
    }

    /// What each key waits for, in words: the plans of now, without carrying them out.
    pub fn why(&mut self, cluster: &Cluster) -> Vec<(Key, String)> {
        self.catch_up(cluster);
        let mut plans = Vec::new();
        for (key, uid) in self.deployments.keys() {
            let context = self.deployment.context(&uid, cluster.now);
            let snapshot = deployment::observe(&key, context, &self.deployments, &self.sets, &self.pods);
            plans.extend(
                snapshot.map(|snapshot| (key, planned(&self.deployment.planner, &snapshot).to_string())),
            );
        }
        for (key, uid) in self.sets.keys() {
            let context = self.set.context(&uid, cluster.now);
            let snapshot = replicaset::observe(&key, context, &self.sets, &self.pods);
            plans.extend(snapshot.map(|snapshot| (key, planned(&self.set.planner, &snapshot).to_string())));
        }
        plans
    }

    fn tell(&mut self, note: &EventNote, error: &str) {
        let kind = if note.warning { "Warning" } else { "Normal" };
        self.journal.push(format!("event {kind} {}: {}{error}", note.reason, note.message));
    }

    fn note(&mut self, action: &Action) {
        if action.reason != "UpdateStatus" {
            self.journal.push(action.to_string());
        }
    }
}

fn same_whatever_the_order<P: Planner>(planner: &P, plan: &Plan<P::Memory>, again: Option<P::Snapshot>)
where
    P::Memory: std::fmt::Debug,
{
    let again = again.map(|snapshot| planned(planner, &snapshot));
    assert_eq!(Some(plan), again.as_ref(), "the plan depends on the order of the views");
}

/// The plan, audited: a violation is a bug in the planner, never a condition of the test.
fn planned<P: Planner>(planner: &P, snapshot: &P::Snapshot) -> Plan<P::Memory> {
    let plan = planner.plan(snapshot);
    let audited = planner.audit(snapshot, &plan).map_err(|violation| violation.to_string());
    assert_eq!(audited, Ok(()), "{plan}");
    plan
}
