//! Whatever users, pods and networks do: invariants hold at every write, and in the end all is as wanted.

use jiff::SignedDuration;
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use trysail_core::{Face, Key, Resource, resource::PODS};
use trysail_testkit::{
    Cluster, Manager,
    cluster::Writer,
    fixtures::{self, NAMESPACE},
    manager::Faults,
};

/// Enough for a rollout of six pods, one at a time, with `minReadySeconds`, after the last disturbance.
const MAX_TICKS: usize = 300;

#[derive(Clone, Debug)]
enum Op {
    Round,
    Tick,
    Scale(i32),
    Image(u8),
    Paused(bool),
    Undo,
    Surge(i32, i32),
    Annotate(u8),
    Lag(usize),
    Crash,
    CrashAfter(u32),
    LoseReply(u32),
    Quota(Option<usize>),
    /// The pod of that place (modulo how many there are) …
    Fail(usize),
    Unready(usize),
    Delete(usize),
    Relabel(usize),
    EraseAnnotations,
    /// The ReplicaSet of that place …
    ScaleSet(usize, i32),
    RelabelSet(usize),
    DeleteSet(usize),
    /// Of another strategy from now on.
    Recreate(bool),
    MinReady(i32),
    /// Pods of this image do not get ready.
    Broken(u8),
}

/// What users do, and time.
fn calm() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Round),
        6 => Just(Op::Tick),
        2 => (0..6i32).prop_map(Op::Scale),
        3 => (0..4u8).prop_map(Op::Image),
        1 => any::<bool>().prop_map(Op::Paused),
        1 => Just(Op::Undo),
        1 => (0..3i32, 0..3i32).prop_map(|(surge, unavailable)| Op::Surge(surge, unavailable)),
        1 => (0..3u8).prop_map(Op::Annotate),
        1 => (0..4u8).prop_map(Op::Broken),
        1 => any::<bool>().prop_map(Op::Recreate),
    ]
}

/// The same with a network and a process that fail.
fn stormy() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => calm(),
        2 => (0..8usize).prop_map(Op::Lag),
        1 => Just(Op::Crash),
        2 => (0..6u32).prop_map(Op::CrashAfter),
        2 => (0..6u32).prop_map(Op::LoseReply),
    ]
}

/// The same with pods that fall ill and a cluster that refuses.
fn hostile() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => stormy(),
        1 => proptest::option::of(0..6usize).prop_map(Op::Quota),
        2 => any::<usize>().prop_map(Op::Fail),
        1 => any::<usize>().prop_map(Op::Unready),
        2 => any::<usize>().prop_map(Op::Delete),
        1 => any::<usize>().prop_map(Op::Relabel),
        1 => Just(Op::EraseAnnotations),
    ]
}

/// The same with somebody who edits ReplicaSets behind the Deployment's back.
fn meddling() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => hostile(),
        2 => (any::<usize>(), 0..9i32).prop_map(|(place, replicas)| Op::ScaleSet(place, replicas)),
        1 => any::<usize>().prop_map(Op::RelabelSet),
        1 => any::<usize>().prop_map(Op::DeleteSet),
        1 => (0..3i32).prop_map(Op::MinReady),
    ]
}

#[derive(Clone, Debug)]
struct Start {
    face: Face,
    replicas: i32,
    spec: Value,
}

fn start() -> impl Strategy<Value = Start> {
    let rolling = (0..3i32, 0..3i32).prop_map(|(surge, unavailable)| {
        let unavailable = if surge + unavailable == 0 { 1 } else { unavailable };
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
    });
    let strategy = prop_oneof![
        3 => rolling,
        1 => Just(json!({"type": "Recreate"})),
        1 => Just(json!({"type": "RollingUpdate"})),
    ];
    (any::<bool>(), 0..6i32, strategy, 0..3i32, 0..3i32).prop_map(
        |(is_native, replicas, strategy, min_ready, history)| Start {
            face: if is_native { Face::Native } else { Face::Crd },
            replicas,
            spec: json!({"strategy": strategy, "minReadySeconds": min_ready, "revisionHistoryLimit": history}),
        },
    )
}

struct World {
    cluster: Cluster,
    managers: Vec<Manager>,
    resource: Resource,
    key: Key,
    /// Somebody edits ReplicaSets: how many pods there are is no longer only our doing.
    is_meddled: bool,
}

impl World {
    fn deployment(start: &Start) -> Self {
        let manifest = fixtures::deployment(start.face, "web", start.replicas, "v0");
        let mut world = Self::of(start.face, 0, manifest);
        world.patch(&json!({"spec": start.spec}));
        world
    }

    fn of(face: Face, kind: usize, manifest: Value) -> Self {
        let mut cluster = Cluster::default();
        let resource = Cluster::resources(face)[kind];
        cluster.create(resource, manifest, Writer::Other).unwrap();
        let managers = vec![Manager::start(face, &cluster)];
        Self { cluster, managers, resource, key: Key::new(NAMESPACE, "web"), is_meddled: false }
    }

    fn patch(&mut self, patch: &Value) {
        self.cluster.patch(self.resource, &self.key, (None, 0), None, patch, Writer::Other).unwrap();
    }

    fn pod(&self, place: usize) -> Option<Key> {
        let pods = self.cluster.list(PODS);
        let pod = pods.get(place.checked_rem(pods.len())?)?;
        Some(Key::new(NAMESPACE, pod["metadata"]["name"].as_str()?))
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Round => {
                for manager in &mut self.managers {
                    manager.round(&mut self.cluster);
                }
            }
            Op::Tick => {
                self.cluster.advance(SignedDuration::from_millis(700));
                self.cluster.actors();
            }
            Op::Scale(replicas) => self.patch(&json!({"spec": {"replicas": replicas}})),
            Op::Image(image) => {
                let containers = json!([{"name": "main", "image": format!("v{image}")}]);
                self.patch(&json!({"spec": {"template": {"spec": {"containers": containers}}}}));
            }
            Op::Paused(paused) => self.patch(&json!({"spec": {"paused": paused}})),
            Op::Undo => {
                self.patch(&json!({"metadata": {"annotations": {"deprecated.deployment.rollback.to": "0"}}}));
            }
            Op::Surge(surge, unavailable) => self.surge(*surge, *unavailable),
            Op::Annotate(value) => {
                self.patch(&json!({"metadata": {"annotations": {"team": value.to_string()}}}));
            }
            Op::Lag(events) => {
                self.cluster.invariants.views_lag = true;
                self.managers.iter_mut().for_each(|manager| manager.set_lag(*events));
            }
            Op::Crash => {
                for manager in &mut self.managers {
                    manager.crash(&self.cluster);
                }
            }
            Op::CrashAfter(actions) => self.managers[0].faults.crash_after = Some(*actions),
            Op::LoseReply(actions) => self.managers[0].faults.lose_reply_after = Some(*actions),
            Op::Quota(quota) => self.cluster.policy.pod_quota = *quota,
            Op::Fail(place) => self.with_pod(*place, |cluster, pod| cluster.finish(pod, "Failed")),
            Op::Unready(place) => self.with_pod(*place, |cluster, pod| cluster.make_ready(pod, false)),
            Op::Delete(place) => self.with_pod(*place, |cluster, pod| {
                let _ = cluster.delete(PODS, pod, None, Writer::Other);
            }),
            Op::Relabel(place) => self.with_pod(*place, |cluster, pod| {
                let patch = json!({"metadata": {"labels": {"app": "other"}}});
                let _ = cluster.patch(PODS, pod, (None, 0), None, &patch, Writer::Other);
            }),
            Op::EraseAnnotations => self.erase_annotations(),
            Op::ScaleSet(place, replicas) => {
                self.patch_set(*place, &json!({"spec": {"replicas": replicas}}));
            }
            Op::RelabelSet(place) => {
                self.patch_set(*place, &json!({"metadata": {"labels": {"app": "other"}}}));
            }
            Op::DeleteSet(place) => {
                if let Some(set) = self.set(*place) {
                    let _ = self.cluster.delete(self.sets(), &set, None, Writer::Other);
                }
            }
            Op::Recreate(true) => {
                self.patch(&json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}}));
            }
            Op::Recreate(false) => self.patch(&json!({"spec": {"strategy": {"type": "RollingUpdate"}}})),
            Op::MinReady(seconds) => self.patch(&json!({"spec": {"minReadySeconds": seconds}})),
            Op::Broken(image) => {
                self.cluster.kubelet.broken_images.insert(format!("v{image}"));
            }
        }
    }

    /// Only where the strategy has these fields.
    fn surge(&mut self, surge: i32, unavailable: i32) {
        let held = self.cluster.get(self.resource, &self.key).unwrap();
        if held["spec"]["strategy"]["type"] == "RollingUpdate" && surge + unavailable > 0 {
            let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
            self.patch(&json!({"spec": {"strategy": {"rollingUpdate": rolling}}}));
        }
    }

    fn with_pod(&mut self, place: usize, act: impl FnOnce(&mut Cluster, &Key)) {
        if let Some(pod) = self.pod(place) {
            act(&mut self.cluster, &pod);
        }
    }

    fn sets(&self) -> Resource {
        let face = if self.resource.group == "apps" { Face::Native } else { Face::Crd };
        Cluster::resources(face)[1]
    }

    fn set(&self, place: usize) -> Option<Key> {
        let sets = self.cluster.list(self.sets());
        let set = sets.get(place.checked_rem(sets.len())?)?;
        Some(Key::new(NAMESPACE, set["metadata"]["name"].as_str()?))
    }

    fn patch_set(&mut self, place: usize, patch: &Value) {
        if let Some(set) = self.set(place) {
            self.cluster.patch(self.sets(), &set, (None, 0), None, patch, Writer::Other).unwrap();
        }
    }

    /// Somebody breaks the books that a Deployment keeps on its ReplicaSets.
    fn erase_annotations(&mut self) {
        let sets = self.sets();
        for set in self.cluster.list(sets) {
            let key = Key::new(NAMESPACE, set["metadata"]["name"].as_str().unwrap());
            let wrong =
                json!({"metadata": {"annotations": {"deployment.kubernetes.io/desired-replicas": "77"}}});
            self.cluster.patch(sets, &key, (None, 0), None, &wrong, Writer::Other).unwrap();
        }
    }

    /// Everything works again and nobody interferes any more.
    fn heal(&mut self) {
        self.cluster.policy = trysail_testkit::cluster::Policy::default();
        self.cluster.kubelet.broken_images.clear();
        // What was let go is none of the Deployment's business any more; nor are its pods.
        for set in self.cluster.list(self.sets()) {
            if set["metadata"]["labels"]["app"] == "other" {
                let key = Key::new(NAMESPACE, set["metadata"]["name"].as_str().unwrap());
                self.cluster.delete(self.sets(), &key, None, Writer::Other).unwrap();
            }
        }
        for manager in &mut self.managers {
            manager.set_lag(0);
            manager.faults = Faults::default();
        }
        let pods = self.cluster.list(PODS);
        let names = pods.iter().map(|pod| Key::new(NAMESPACE, pod["metadata"]["name"].as_str().unwrap()));
        for pod in names.collect::<Vec<_>>() {
            if self.cluster.get(PODS, &pod).is_some_and(|pod| pod["status"]["phase"] == "Running") {
                self.cluster.make_ready(&pod, true);
            }
        }
        if self.resource.plural == "deployments" {
            self.patch(&json!({"spec": {"paused": false}}));
        }
    }

    /// Ticks until all is as wanted; then a further look must find nothing to do.
    fn converge(&mut self) -> Result<(), TestCaseError> {
        self.heal();
        for _ in 0..MAX_TICKS {
            self.cluster.advance(SignedDuration::from_secs(1));
            self.cluster.actors();
            for manager in &mut self.managers {
                prop_assert!(
                    manager.settle(&mut self.cluster),
                    "never comes to rest: {:#?}",
                    manager.journal
                );
            }
            if self.is_as_wanted() {
                break;
            }
        }
        let why = self.managers[0].why(&self.cluster);
        prop_assert!(self.is_as_wanted(), "{why:#?}\n{:#?}", self.managers[0].journal);
        for manager in &mut self.managers {
            prop_assert!(manager.settle(&mut self.cluster));
            prop_assert_eq!(manager.round(&mut self.cluster), 0, "{:?}", manager.why(&self.cluster));
        }
        Ok(())
    }

    fn is_as_wanted(&self) -> bool {
        let object = self.cluster.get(self.resource, &self.key).unwrap();
        let wanted = object["spec"]["replicas"].as_u64().unwrap() as usize;
        let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
        let status = &object["status"];
        let pods = self.cluster.list(PODS);
        let active = pods.iter().filter(|pod| {
            let metadata = &pod["metadata"];
            metadata["deletionTimestamp"].is_null()
                && metadata["labels"]["app"] == "web"
                && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        });
        let active: Vec<_> = active.collect();
        let count = |name: &str| status[name].as_u64().unwrap_or(0) as usize;
        let is_current = self.resource.plural != "deployments"
            || active.iter().all(|pod| pod["spec"]["containers"][0]["image"] == *image);
        active.len() == wanted
            && is_current
            && count("replicas") == wanted
            && count("availableReplicas") == wanted
            && object["metadata"]["generation"] == status["observedGeneration"]
            && !pods.iter().any(|pod| pod["metadata"]["deletionTimestamp"].is_string())
    }

    fn no_violation(&self) -> Result<(), TestCaseError> {
        let violations = self.cluster.invariants.violations();
        prop_assert!(
            self.is_meddled || violations.is_empty(),
            "{violations:#?}\n{:#?}",
            self.managers[0].journal
        );
        // The simulated server validates statuses as upstream does: a planned one must never be refused.
        let refused = self.managers.iter().flat_map(|manager| &manager.journal);
        let refused: Vec<_> = refused.filter(|line| line.starts_with("refused patch")).collect();
        prop_assert!(refused.is_empty(), "{refused:#?}");
        Ok(())
    }
}

fn play(world: &mut World, ops: &[Op]) -> Result<(), TestCaseError> {
    for op in ops {
        world.run(op);
        world.no_violation()?;
    }
    world.converge()?;
    world.no_violation()
}

/// A few hundred schedules each; `PROPTEST_CASES=20000` for a night's run.
fn config() -> ProptestConfig {
    // proptest reads the variable itself; its own default of 256 is what remains otherwise.
    ProptestConfig::default()
}

proptest! {
    #![proptest_config(config())]

    /// Users edit at any moment: no overshoot, no lost availability, and it converges to a fixpoint.
    #[test]
    fn a_deployment_follows_its_users(start in start(), ops in vec(calm(), 1..60)) {
        play(&mut World::deployment(&start), &ops)?;
    }

    /// Late views, crashes after any action and lost replies change nothing of that.
    #[test]
    fn a_deployment_survives_crashes_and_stale_views(start in start(), ops in vec(stormy(), 1..80)) {
        play(&mut World::deployment(&start), &ops)?;
    }

    /// Pods that fall ill, quotas and broken books on top: still no pod too many.
    #[test]
    fn a_deployment_survives_a_hostile_cluster(start in start(), ops in vec(hostile(), 1..80)) {
        let mut world = World::deployment(&start);
        world.cluster.invariants.pods_fall_ill = true;
        play(&mut world, &ops)?;
    }
}

proptest! {
    #![proptest_config(config())]

    /// ReplicaSets resized, relabelled and deleted by others, strategies changed in mid-rollout, images that never
    /// get ready: every plan passes the audit, and in the end all is as wanted.
    #[test]
    fn a_deployment_survives_meddlers(start in start(), ops in vec(meddling(), 1..80)) {
        let mut world = World::deployment(&start);
        world.is_meddled = true;
        play(&mut world, &ops)?;
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    ReplicaSet,
    ReplicationController,
}

/// Ops that make sense without a Deployment.
fn of_a_set(op: &Op) -> bool {
    !matches!(
        op,
        Op::Paused(_) | Op::Undo | Op::Surge(..) | Op::EraseAnnotations | Op::Annotate(_) | Op::Recreate(_)
    )
}

fn set_world(kind: Kind, is_native: bool, replicas: i32) -> World {
    let face = if is_native { Face::Native } else { Face::Crd };
    let mut world = match kind {
        Kind::ReplicaSet => World::of(face, 1, fixtures::replica_set(face, "web", replicas, "v0")),
        Kind::ReplicationController => {
            World::of(face, 2, fixtures::replication_controller(face, "web", replicas, "v0"))
        }
    };
    world.cluster.create(PODS, fixtures::pod("stray", "web"), Writer::Other).unwrap();
    world
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::ReplicaSet), Just(Kind::ReplicationController)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_replica_set_survives_a_hostile_cluster(
        kind in kind(), is_native: bool, replicas in 0..7i32, ops in vec(hostile(), 1..80),
    ) {
        let ops: Vec<Op> = ops.into_iter().filter(of_a_set).collect();
        play(&mut set_world(kind, is_native, replicas), &ops)?;
    }

    /// Without the gate a key is looked at before its own writes are in view. Names that follow from the owner
    /// make the repeated creates harmless as long as the view is a prefix of what happened.
    #[test]
    fn two_leaders_make_no_pod_twice(replicas in 0..7i32, lags in (0..6usize, 0..6usize), rounds in 1..8usize) {
        let mut world = set_world(Kind::ReplicaSet, false, replicas);
        world.managers.push(Manager::start(Face::Crd, &world.cluster));
        world.managers[0].set_lag(lags.0);
        world.managers[1].set_lag(lags.1);
        for _ in 0..rounds {
            world.run(&Op::Round);
            world.no_violation()?;
        }
        world.converge()?;
        world.no_violation()?;
    }
}
