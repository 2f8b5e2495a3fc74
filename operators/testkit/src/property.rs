//! Property tests for any kind: a [`Subject`] says what is set up, what its users do and what is wanted in the
//! end; [`play`] and [`exhaust`] say whether its controllers keep to the rules.
//!
//! What is checked, whatever the steps:
//!
//! - the invariants hold at every write, and no plan is dropped by its audit or depends on the order of views;
//! - the server refuses no patch of a controller: statuses are right transitions, preconditions are there;
//! - when everything works again, all comes to be as wanted;
//! - then a further look at every key finds nothing to do, and nothing is written while time passes;
//! - then a process that starts anew finds nothing to do either: what it forgot was not needed.
//!
//! [`exhaust`] plays one script over and over: with a crash, a lost reply and a lost request at every single
//! action, and with each view late by every small number of events. No run may create more pods than the first.

use std::fmt::Debug;

use jiff::SignedDuration;
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::Value;
use trysail_core::{
    Resource,
    resource::{NODES, PODS},
};

use crate::{
    cluster::{Cluster, Policy, Writer, key_of},
    invariants::Monitor,
    manager::{Faults, Manager, Registration},
};

/// What is tested.
pub trait Subject {
    /// What users do.
    type Step: Clone + Debug;

    /// The controllers of the process.
    fn controllers(&self) -> Vec<Registration>;

    /// What there is before the controllers start.
    fn set_up(&self, cluster: &mut Cluster);

    /// Carries out a step of the users.
    fn step(&self, cluster: &mut Cluster, step: &Self::Step);

    /// Ends what keeps the objects from being as wanted: the harness itself ends faults, policies, broken
    /// images and silent or cordoned nodes.
    fn heal(&self, _cluster: &mut Cluster) {}

    /// What is lacking.
    fn is_as_wanted(&self, cluster: &Cluster) -> Result<(), String>;

    /// Invariants beside those of the testkit.
    fn monitors(&self) -> Vec<Box<dyn Monitor>> {
        Vec::new()
    }

    /// Seconds that convergence may take.
    fn patience(&self) -> usize {
        300
    }

    /// Seconds for which nothing may be written afterwards.
    fn rest(&self) -> usize {
        20
    }
}

/// A step of a user, of the environment, or of what goes wrong.
#[derive(Clone, Debug)]
pub enum Step<S> {
    /// A user does something.
    User(S),
    /// The controllers look at every key that there is a reason to look at.
    Round,
    /// Part of a second passes for everybody but the controllers.
    Tick,
    /// A second passes for everybody, and the controllers come to rest.
    Second,
    /// So many seconds pass at once.
    Pass(u32),
    /// Something happens to the pod of that place, modulo how many there are.
    Pod(usize, PodStep),
    /// Something happens to the node of that place.
    Node(usize, NodeStep),
    /// At most so many pods, from now on.
    Quota(Option<usize>),
    /// Something goes wrong in the process.
    Fault(Fault),
}

/// What happens to pods.
#[derive(Clone, Copy, Debug)]
pub enum PodStep {
    /// Its containers end.
    Exit(i64),
    /// Its node puts it out.
    Evict,
    /// It gets unready.
    Unready,
    /// Somebody deletes it.
    Delete,
    /// Somebody deletes it by force.
    Force,
    /// Somebody gives it another `app`.
    Relabel,
}

/// What happens to nodes.
#[derive(Clone, Copy, Debug)]
pub enum NodeStep {
    /// Its kubelet falls silent.
    Down,
    /// Its kubelet is back.
    Up,
    /// It is cordoned.
    Cordon,
    /// It is uncordoned.
    Uncordon,
    /// It leaves.
    Remove,
}

/// What goes wrong in the process. Resources are places in what it watches.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// All views are late by so many events.
    Lag(usize),
    /// The views of one resource are.
    LagOf(usize, usize),
    /// So many of the next events of a resource never arrive; then it is listed anew.
    Miss(usize, usize),
    /// The last events of a resource arrive again.
    Repeat(usize, usize),
    /// Everything is listed anew.
    Relist,
    /// The process dies.
    Crash,
    /// The process dies after so many actions.
    CrashAfter(u32),
    /// A reply is lost after so many actions.
    LoseReply(u32),
    /// A request is lost after so many actions.
    LoseRequest(u32),
}

/// What users do, and time.
pub fn calm<S: Clone + Debug + 'static>(user: impl Strategy<Value = S> + 'static) -> BoxedStrategy<Step<S>> {
    prop_oneof![
        5 => user.prop_map(Step::User),
        5 => Just(Step::Round),
        5 => Just(Step::Tick),
        1 => (1..90u32).prop_map(Step::Pass),
    ]
    .boxed()
}

/// The same with a network and a process that fail.
pub fn stormy<S: Clone + Debug + 'static>(
    user: impl Strategy<Value = S> + 'static,
) -> BoxedStrategy<Step<S>> {
    let fault = prop_oneof![
        2 => (0..6usize).prop_map(Fault::Lag),
        3 => (any::<usize>(), 0..6usize).prop_map(|(place, lag)| Fault::LagOf(place, lag)),
        1 => (any::<usize>(), 1..4usize).prop_map(|(place, events)| Fault::Miss(place, events)),
        1 => (any::<usize>(), 1..6usize).prop_map(|(place, events)| Fault::Repeat(place, events)),
        2 => Just(Fault::Relist),
        1 => Just(Fault::Crash),
        3 => (0..6u32).prop_map(Fault::CrashAfter),
        3 => (0..6u32).prop_map(Fault::LoseReply),
        1 => (0..6u32).prop_map(Fault::LoseRequest),
    ];
    prop_oneof![12 => calm(user), 6 => fault.prop_map(Step::Fault)].boxed()
}

/// The same with pods and nodes that fall ill, and a cluster that refuses.
pub fn hostile<S: Clone + Debug + 'static>(
    user: impl Strategy<Value = S> + 'static,
) -> BoxedStrategy<Step<S>> {
    let pod = prop_oneof![
        2 => (0..3i64).prop_map(PodStep::Exit),
        1 => Just(PodStep::Evict),
        1 => Just(PodStep::Unready),
        2 => Just(PodStep::Delete),
        1 => Just(PodStep::Force),
        1 => Just(PodStep::Relabel),
    ];
    let node = prop_oneof![
        2 => Just(NodeStep::Down),
        3 => Just(NodeStep::Up),
        1 => Just(NodeStep::Cordon),
        1 => Just(NodeStep::Uncordon),
        1 => Just(NodeStep::Remove),
    ];
    prop_oneof![
        14 => stormy(user),
        4 => (any::<usize>(), pod).prop_map(|(place, step)| Step::Pod(place, step)),
        2 => (any::<usize>(), node).prop_map(|(place, step)| Step::Node(place, step)),
        1 => proptest::option::of(0..6usize).prop_map(Step::Quota),
    ]
    .boxed()
}

/// Plays the steps, ends all trouble, and checks everything. For `proptest!`.
pub fn play<S: Subject>(subject: &S, steps: &[Step<S::Step>]) -> Result<(), TestCaseError> {
    World::new(subject).play(steps).map(drop).map_err(TestCaseError::fail)
}

/// Plays a script without a fault, then with every single fault; answers how many runs that were.
pub fn exhaust<S: Subject>(subject: &S, script: &[Step<S::Step>]) -> Result<usize, String> {
    let mut first = World::new(subject);
    let pods = first.play(script)?;
    let actions = first.manager.actions as u32;
    let mut faults = Vec::new();
    for after in 0..actions {
        faults.extend([Fault::CrashAfter(after), Fault::LoseReply(after), Fault::LoseRequest(after)]);
    }
    for place in 0..first.manager.resources().len() {
        faults.extend((1..=4).map(|events| Fault::LagOf(place, events)));
        faults.extend((1..=3).map(|events| Fault::Miss(place, events)));
    }
    faults.extend((1..=4).map(Fault::Lag));
    for fault in &faults {
        let mut world = World::new(subject);
        world.fault(*fault);
        let made = world.play(script).map_err(|problem| format!("with {fault:?}: {problem}"))?;
        if made > pods {
            let story = world.story();
            return Err(format!("with {fault:?}: {made} pods were made instead of {pods}: {story}"));
        }
    }
    Ok(faults.len() + 1)
}

/// A cluster with one process in it.
pub struct World<'a, S: Subject> {
    subject: &'a S,
    /// The cluster.
    pub cluster: Cluster,
    /// The process.
    pub manager: Manager,
    nodes: Vec<(String, Value)>,
    /// So many lines of the journal were judged.
    judged: usize,
}

impl<S: Subject> Debug for World<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("manager", &self.manager).finish_non_exhaustive()
    }
}

impl<'a, S: Subject> World<'a, S> {
    /// As the subject sets it up.
    pub fn new(subject: &'a S) -> Self {
        let mut cluster = Cluster::default();
        for monitor in subject.monitors() {
            cluster.invariants.watch(monitor);
        }
        subject.set_up(&mut cluster);
        let nodes = cluster.list(NODES);
        let nodes = nodes.iter().map(|node| {
            let metadata = &node["metadata"];
            (metadata["name"].as_str().unwrap_or_default().to_owned(), metadata["labels"].clone())
        });
        let nodes = nodes.collect();
        let manager = Manager::with(subject.controllers(), &cluster);
        Self { subject, cluster, manager, nodes, judged: 0 }
    }

    /// Plays the steps, heals, and checks; answers how many pods were ever created.
    pub fn play(&mut self, steps: &[Step<S::Step>]) -> Result<usize, String> {
        for step in steps {
            self.run(step)?;
            self.check()?;
        }
        self.converge()?;
        Ok(self.cluster.created(PODS))
    }

    /// Carries out one step.
    pub fn run(&mut self, step: &Step<S::Step>) -> Result<(), String> {
        match step {
            Step::User(step) => self.subject.step(&mut self.cluster, step),
            Step::Round => drop(self.manager.round(&mut self.cluster)),
            Step::Tick => {
                self.cluster.advance(SignedDuration::from_millis(700));
                self.cluster.actors();
            }
            Step::Second => self.second()?,
            Step::Pass(seconds) => {
                self.cluster.advance(SignedDuration::from_secs((*seconds).into()));
                self.cluster.actors();
            }
            Step::Pod(place, step) => self.pod(*place, *step),
            Step::Node(place, step) => self.node(*place, *step),
            Step::Quota(quota) => self.cluster.policy.pod_quota = *quota,
            Step::Fault(fault) => self.fault(*fault),
        }
        Ok(())
    }

    /// A second passes for everybody, and the controllers come to rest.
    pub fn second(&mut self) -> Result<(), String> {
        self.cluster.advance(SignedDuration::from_secs(1));
        self.cluster.actors();
        if self.manager.settle(&mut self.cluster) {
            return Ok(());
        }
        Err(format!("never comes to rest: {}", self.story()))
    }

    fn pod(&mut self, place: usize, step: PodStep) {
        self.cluster.invariants.pods_fall_ill = true;
        let pods = self.cluster.list(PODS);
        let Some(pod) = place.checked_rem(pods.len()).and_then(|place| pods.get(place)) else { return };
        let key = key_of(pod);
        match step {
            PodStep::Exit(code) => self.cluster.exit(&key, code),
            PodStep::Evict => self.cluster.evict(&key),
            PodStep::Unready => self.cluster.make_ready(&key, false),
            PodStep::Delete => drop(self.cluster.delete(PODS, &key, None, Writer::Other)),
            PodStep::Force => self.cluster.delete_by_force(&key),
            PodStep::Relabel => {
                let patch = serde_json::json!({"metadata": {"labels": {"app": RELEASED}}});
                drop(self.cluster.patch(PODS, &key, (None, 0), None, &patch, Writer::Other));
            }
        }
    }

    fn node(&mut self, place: usize, step: NodeStep) {
        self.cluster.invariants.pods_fall_ill = true;
        let Some((name, _)) = place.checked_rem(self.nodes.len()).and_then(|place| self.nodes.get(place))
        else {
            return;
        };
        match step {
            NodeStep::Down => self.cluster.node_down(name),
            NodeStep::Up => self.cluster.node_up(name),
            NodeStep::Cordon => self.cluster.cordon(name, true),
            NodeStep::Uncordon => self.cluster.cordon(name, false),
            NodeStep::Remove => self.cluster.remove_node(name),
        }
    }

    /// Something goes wrong from here on.
    pub fn fault(&mut self, fault: Fault) {
        let resources = self.manager.resources();
        let at = |place: usize| resources[place % resources.len()];
        self.cluster.invariants.views_lag |=
            matches!(fault, Fault::Lag(_) | Fault::LagOf(..) | Fault::Miss(..) | Fault::Repeat(..));
        match fault {
            Fault::Lag(events) => self.manager.set_lag(events),
            Fault::LagOf(place, events) => self.manager.set_lag_of(at(place), events),
            Fault::Miss(place, events) => self.manager.miss_events(at(place), events),
            Fault::Repeat(place, events) => self.manager.repeat_events(at(place), events),
            Fault::Relist => self.manager.relist(None, &self.cluster),
            Fault::Crash => self.manager.crash(&self.cluster),
            Fault::CrashAfter(actions) => self.manager.faults.crash_after = Some(actions),
            Fault::LoseReply(actions) => self.manager.faults.lose_reply_after = Some(actions),
            Fault::LoseRequest(actions) => self.manager.faults.lose_request_after = Some(actions),
        }
    }

    /// Everything works again and nobody interferes any more.
    fn heal(&mut self) {
        self.cluster.policy = Policy::default();
        self.cluster.kubelet.broken_images.clear();
        for (name, labels) in &self.nodes {
            // A node that left joins again.
            let _ = self.cluster.add_node(name, labels);
            self.cluster.node_up(name);
            self.cluster.cordon(name, false);
        }
        // What was let go keeps names that somebody may need.
        for pod in self.cluster.list(PODS) {
            if pod["metadata"]["labels"]["app"] == RELEASED {
                drop(self.cluster.delete(PODS, &key_of(&pod), None, Writer::Other));
            }
        }
        self.subject.heal(&mut self.cluster);
        self.manager.faults = Faults::default();
        self.manager.set_lag(0);
        self.manager.relist(None, &self.cluster);
    }

    /// Ends all trouble; then everything has to come to be as wanted, and to stay so without a write.
    pub fn converge(&mut self) -> Result<(), String> {
        /// Seconds without an event, of anybody.
        const QUIET: usize = 5;
        self.heal();
        let mut quiet = 0;
        let mut lacking = Err("never looked".to_owned());
        for _ in 0..self.subject.patience() {
            let revision = self.cluster.revision();
            self.second()?;
            self.check()?;
            quiet = if self.cluster.revision() == revision { quiet + 1 } else { 0 };
            lacking = self.subject.is_as_wanted(&self.cluster);
            if lacking.is_ok() && quiet >= QUIET {
                break;
            }
        }
        lacking.map_err(|lacking| format!("{lacking}: {}", self.story()))?;
        self.is_at_rest("at rest")?;
        self.manager.crash(&self.cluster);
        self.is_at_rest("after a restart at rest")
    }

    /// Nothing is left to do, and nothing is done.
    fn is_at_rest(&mut self, when: &str) -> Result<(), String> {
        let writes = self.cluster.controller_writes();
        self.manager.nudge();
        if !self.manager.settle(&mut self.cluster) {
            return Err(format!("{when}: never comes to rest: {}", self.story()));
        }
        for _ in 0..self.subject.rest() {
            self.second()?;
        }
        let written = self.cluster.controller_writes() - writes;
        let backlog = self.manager.backlog(&self.cluster);
        if written > 0 || !backlog.is_empty() {
            return Err(format!("{when}: {written} writes, {backlog:?}: {}", self.story()));
        }
        self.subject.is_as_wanted(&self.cluster).map_err(|lacking| format!("{when}: {lacking}"))?;
        self.check()
    }

    /// No invariant is broken, and no patch was refused: what a plan writes is right.
    pub fn check(&mut self) -> Result<(), String> {
        let violations = self.cluster.invariants.violations();
        let mut new = self.manager.journal.iter().skip(self.judged);
        let refused = new.find(|line| line.starts_with("refused patch"));
        let found = violations.first().or(refused).cloned();
        self.judged = self.manager.journal.len();
        found.map_or(Ok(()), |found| Err(format!("{found}: {}", self.story())))
    }

    /// What was done and what is waited for, for people.
    fn story(&self) -> String {
        /// The last lines tell most.
        const LINES: usize = 60;
        let journal = &self.manager.journal;
        let plans = self.manager.plans(&self.cluster);
        format!("{plans:#?}\n{:#?}", &journal[journal.len().saturating_sub(LINES)..])
    }
}

/// The `app` of pods that nobody selects any more.
const RELEASED: &str = "other";

/// What a workload of any kind lacks of being as its spec wants it, by its own status.
pub fn as_wanted(cluster: &Cluster, resource: Resource, object: &Value) -> Result<(), String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |name: &str| status[name].as_i64().unwrap_or(0);
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let has = |kind: &str| {
        conditions.clone().any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    let is_seen = status["observedGeneration"] == object["metadata"]["generation"];
    let is_there = match resource.plural {
        "daemonsets" => {
            let nodes = cluster.list(NODES).len() as i64;
            let names = ["desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"];
            is_seen && names.iter().all(|name| count(name) == nodes) && count("numberMisscheduled") == 0
        }
        "jobs" => has("Complete") || has("Failed") || (spec["suspend"] == true && has("Suspended")),
        "cronjobs" => spec["suspend"] == true,
        _ => {
            let wanted = spec["replicas"].as_i64().unwrap_or(1);
            let is_updated = !matches!(resource.plural, "deployments" | "statefulsets")
                || count("updatedReplicas") == wanted;
            is_seen && is_updated && count("replicas") == wanted && count("availableReplicas") == wanted
        }
    };
    if is_there { Ok(()) } else { Err(format!("{resource} {}: {spec} is {status}", key_of(object))) }
}
