//! Deployments and sets of replicas: whatever users, pods and networks do, invariants hold at every write, and in the
//! end all is as wanted.

use jiff::SignedDuration;
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use trysail_core::{Face, Key, Resource, resource::PODS};
use trysail_testkit::{
    Cluster, Manager,
    cluster::{Writer, key_of},
    fixtures::{self, NAMESPACE},
    kinds,
    manager::Registration,
    property::{Step, Subject, as_wanted, calm, exhaust, hostile, play, stormy},
};

#[derive(Clone, Debug)]
enum User {
    Scale(i32),
    Image(u8),
    Paused(bool),
    Undo,
    Surge(i32, i32),
    Annotate(u8),
    /// Of another strategy from now on.
    Recreate(bool),
    MinReady(i32),
    /// Pods of this image do not get ready.
    Broken(u8),
    /// The books that a Deployment keeps on its ReplicaSets are wrong.
    BreakBooks,
    /// The ReplicaSet of that place (modulo how many there are) …
    ScaleSet(usize, i32),
    RelabelSet(usize),
    DeleteSet(usize),
}

fn user() -> impl Strategy<Value = User> {
    prop_oneof![
        2 => (0..6i32).prop_map(User::Scale),
        3 => (0..4u8).prop_map(User::Image),
        1 => any::<bool>().prop_map(User::Paused),
        1 => Just(User::Undo),
        1 => (0..3i32, 0..3i32).prop_map(|(surge, unavailable)| User::Surge(surge, unavailable)),
        1 => (0..3u8).prop_map(User::Annotate),
        1 => (0..4u8).prop_map(User::Broken),
        1 => any::<bool>().prop_map(User::Recreate),
    ]
}

fn careless() -> impl Strategy<Value = User> {
    prop_oneof![11 => user(), 1 => Just(User::BreakBooks)]
}

/// Edits ReplicaSets behind the Deployment's back.
fn meddler() -> impl Strategy<Value = User> {
    prop_oneof![
        12 => careless(),
        4 => (any::<usize>(), 0..9i32).prop_map(|(place, replicas)| User::ScaleSet(place, replicas)),
        2 => any::<usize>().prop_map(User::RelabelSet),
        2 => any::<usize>().prop_map(User::DeleteSet),
        2 => (0..3i32).prop_map(User::MinReady),
    ]
}

/// What makes sense without a Deployment.
fn user_of_a_set() -> impl Strategy<Value = User> {
    prop_oneof![
        2 => (0..6i32).prop_map(User::Scale),
        3 => (0..4u8).prop_map(User::Image),
        1 => (0..4u8).prop_map(User::Broken),
        1 => (0..3i32).prop_map(User::MinReady),
    ]
}

/// A Deployment, a ReplicaSet or a ReplicationController `web`, and its users.
#[derive(Clone, Debug)]
struct Replicas {
    face: Face,
    resource: Resource,
    manifest: Value,
    /// Somebody edits ReplicaSets: how many pods there are is no longer our doing alone.
    is_meddled: bool,
}

impl Replicas {
    fn new(face: Face, resource: Resource, manifest: Value) -> Self {
        Self { face, resource, manifest, is_meddled: false }
    }

    fn key() -> Key {
        Key::new(NAMESPACE, "web")
    }

    fn is_deployment(&self) -> bool {
        self.resource.plural == "deployments"
    }

    fn patch(&self, cluster: &mut Cluster, patch: &Value) {
        cluster.patch(self.resource, &Self::key(), (None, 0), None, patch, Writer::Other).unwrap();
    }

    fn sets(&self) -> Resource {
        Resource::replica_sets(self.face)
    }

    fn set(&self, cluster: &Cluster, place: usize) -> Option<Key> {
        let sets = cluster.list(self.sets());
        sets.get(place.checked_rem(sets.len())?).map(|set| key_of(set))
    }

    fn patch_set(&self, cluster: &mut Cluster, place: usize, patch: &Value) {
        if let Some(set) = self.set(cluster, place) {
            cluster.patch(self.sets(), &set, (None, 0), None, patch, Writer::Other).unwrap();
        }
    }

    /// Only where the strategy has these fields.
    fn surge(&self, cluster: &mut Cluster, surge: i32, unavailable: i32) {
        let held = cluster.get(self.resource, &Self::key()).unwrap();
        if held["spec"]["strategy"]["type"] == "RollingUpdate" && surge + unavailable > 0 {
            let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
            self.patch(cluster, &json!({"spec": {"strategy": {"rollingUpdate": rolling}}}));
        }
    }
}

impl Subject for Replicas {
    type Step = User;

    fn controllers(&self) -> Vec<Registration> {
        let face = self.face;
        vec![kinds::deployments(face), kinds::replica_sets(face), kinds::replication_controllers(face)]
    }

    fn set_up(&self, cluster: &mut Cluster) {
        cluster.invariants.is_meddled = self.is_meddled;
        cluster.create(self.resource, self.manifest.clone(), Writer::Other).unwrap();
        if !self.is_deployment() {
            cluster.create(PODS, fixtures::pod("stray", "web"), Writer::Other).unwrap();
        }
    }

    fn step(&self, cluster: &mut Cluster, step: &User) {
        match step {
            User::Scale(replicas) => self.patch(cluster, &json!({"spec": {"replicas": replicas}})),
            User::Image(image) => {
                let containers = json!([{"name": "main", "image": format!("v{image}")}]);
                self.patch(cluster, &json!({"spec": {"template": {"spec": {"containers": containers}}}}));
            }
            User::Paused(paused) => self.patch(cluster, &json!({"spec": {"paused": paused}})),
            User::Undo => {
                let back = json!({"deprecated.deployment.rollback.to": "0"});
                self.patch(cluster, &json!({"metadata": {"annotations": back}}));
            }
            User::Surge(surge, unavailable) => self.surge(cluster, *surge, *unavailable),
            User::Annotate(value) => {
                self.patch(cluster, &json!({"metadata": {"annotations": {"team": value.to_string()}}}));
            }
            User::Recreate(true) => {
                let strategy = json!({"type": "Recreate", "rollingUpdate": null});
                self.patch(cluster, &json!({"spec": {"strategy": strategy}}));
            }
            User::Recreate(false) => {
                self.patch(cluster, &json!({"spec": {"strategy": {"type": "RollingUpdate"}}}));
            }
            User::MinReady(seconds) => self.patch(cluster, &json!({"spec": {"minReadySeconds": seconds}})),
            User::Broken(image) => drop(cluster.kubelet.broken_images.insert(format!("v{image}"))),
            User::BreakBooks => {
                let wrong = json!({"deployment.kubernetes.io/desired-replicas": "77"});
                for place in 0..cluster.list(self.sets()).len() {
                    self.patch_set(cluster, place, &json!({"metadata": {"annotations": wrong}}));
                }
            }
            User::ScaleSet(place, replicas) => {
                self.patch_set(cluster, *place, &json!({"spec": {"replicas": replicas}}));
            }
            User::RelabelSet(place) => {
                self.patch_set(cluster, *place, &json!({"metadata": {"labels": {"app": "other"}}}));
            }
            User::DeleteSet(place) => {
                if let Some(set) = self.set(cluster, *place) {
                    let _ = cluster.delete(self.sets(), &set, None, Writer::Other);
                }
            }
        }
    }

    fn heal(&self, cluster: &mut Cluster) {
        // What was let go is none of the Deployment's business any more; nor are its pods.
        for set in cluster.list(self.sets()) {
            if set["metadata"]["labels"]["app"] == "other" {
                cluster.delete(self.sets(), &key_of(&set), None, Writer::Other).unwrap();
            }
        }
        for pod in cluster.list(PODS) {
            if pod["status"]["phase"] == "Running" {
                cluster.make_ready(&key_of(&pod), true);
            }
        }
        if self.is_deployment() {
            self.step(cluster, &User::Paused(false));
        }
    }

    fn is_as_wanted(&self, cluster: &Cluster) -> Result<(), String> {
        let object = cluster.get(self.resource, &Self::key()).unwrap();
        as_wanted(cluster, self.resource, &object)?;
        let wanted = object["spec"]["replicas"].as_u64().unwrap() as usize;
        let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
        let pods = cluster.list(PODS);
        if let Some(going) = pods.iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_string()) {
            return Err(format!("{} is still terminating", key_of(going)));
        }
        let has_ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let is_active = |pod: &&Value| pod["metadata"]["labels"]["app"] == "web" && !has_ended(pod);
        let active: Vec<&Value> = pods.iter().map(|pod| &**pod).filter(is_active).collect();
        let is_old = |pod: &&&Value| pod["spec"]["containers"][0]["image"] != *image;
        match active.iter().find(is_old).filter(|_| self.is_deployment()) {
            Some(old) => Err(format!("{} is old", key_of(old))),
            None if active.len() == wanted => Ok(()),
            None => Err(format!("{} pods, {wanted} wanted", active.len())),
        }
    }
}

fn face() -> impl Strategy<Value = Face> {
    any::<bool>().prop_map(|is_native| if is_native { Face::Native } else { Face::Crd })
}

fn deployment() -> impl Strategy<Value = Replicas> {
    let rolling = (0..3i32, 0..3i32).prop_map(|(surge, unavailable)| {
        let unavailable = if surge + unavailable == 0 { 1 } else { unavailable };
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
    });
    let strategy = prop_oneof![
        3 => rolling,
        1 => Just(json!({"type": "Recreate"})),
        1 => Just(json!({"type": "RollingUpdate"})),
    ];
    (face(), 0..6i32, strategy, 0..3i32, 0..3i32).prop_map(
        |(face, replicas, strategy, min_ready, history)| {
            let mut manifest = fixtures::deployment(face, "web", replicas, "v0");
            let spec = &mut manifest["spec"];
            spec["strategy"] = strategy;
            spec["minReadySeconds"] = min_ready.into();
            spec["revisionHistoryLimit"] = history.into();
            Replicas::new(face, Resource::deployments(face), manifest)
        },
    )
}

fn set() -> impl Strategy<Value = Replicas> {
    (any::<bool>(), face(), 0..7i32).prop_map(|(is_controller, face, replicas)| {
        if is_controller {
            let manifest = fixtures::replication_controller(face, "web", replicas, "v0");
            Replicas::new(face, Resource::replication_controllers(face), manifest)
        } else {
            let manifest = fixtures::replica_set(face, "web", replicas, "v0");
            Replicas::new(face, Resource::replica_sets(face), manifest)
        }
    })
}

// A few hundred schedules each; `PROPTEST_CASES=20000` for a night's run.
proptest! {
    /// Users edit at any moment: no overshoot, no lost availability, and it converges to a fixpoint.
    #[test]
    fn a_deployment_follows_its_users(subject in deployment(), steps in vec(calm(user()), 1..60)) {
        play(&subject, &steps)?;
    }

    /// Late views, crashes after any action and lost replies change nothing of that.
    #[test]
    fn a_deployment_survives_crashes_and_stale_views(
        subject in deployment(), steps in vec(stormy(user()), 1..80),
    ) {
        play(&subject, &steps)?;
    }

    /// Pods that fall ill, quotas and broken books on top: still no pod too many.
    #[test]
    fn a_deployment_survives_a_hostile_cluster(
        subject in deployment(), steps in vec(hostile(careless()), 1..80),
    ) {
        play(&subject, &steps)?;
    }

    /// ReplicaSets resized, relabelled and deleted by others, strategies changed in mid-rollout, images that never
    /// get ready: every plan passes the audit, and in the end all is as wanted.
    #[test]
    fn a_deployment_survives_meddlers(subject in deployment(), steps in vec(hostile(meddler()), 1..80)) {
        play(&Replicas { is_meddled: true, ..subject }, &steps)?;
    }

    #[test]
    fn a_replica_set_survives_a_hostile_cluster(
        subject in set(), steps in vec(hostile(user_of_a_set()), 1..80),
    ) {
        play(&subject, &steps)?;
    }

    /// Without the gate a key is looked at before its own writes are in view. Names that follow from the owner
    /// make the repeated creates harmless as long as the view is a prefix of what happened.
    #[test]
    fn two_leaders_make_no_pod_twice(
        replicas in 0..7i32, lags in (0..6usize, 0..6usize), rounds in 1..8usize,
    ) {
        let face = Face::Crd;
        let manifest = fixtures::replica_set(face, "web", replicas, "v0");
        let subject = Replicas::new(face, Resource::replica_sets(face), manifest);
        let mut cluster = Cluster::default();
        subject.set_up(&mut cluster);
        let mut managers = [lags.0, lags.1].map(|lag| {
            let mut manager = Manager::with(subject.controllers(), &cluster);
            manager.set_lag(lag);
            manager
        });
        for _ in 0..rounds {
            for manager in &mut managers {
                manager.round(&mut cluster);
            }
            prop_assert!(cluster.invariants.violations().is_empty(), "{:?}", cluster.invariants.violations());
        }
        for _ in 0..20 {
            if subject.is_as_wanted(&cluster).is_ok() {
                break;
            }
            cluster.advance(SignedDuration::from_secs(1));
            cluster.actors();
            for manager in &mut managers {
                manager.set_lag(0);
                prop_assert!(manager.settle(&mut cluster));
            }
        }
        subject.is_as_wanted(&cluster).map_err(TestCaseError::fail)?;
        prop_assert!(cluster.invariants.violations().is_empty(), "{:?}", cluster.invariants.violations());
    }
}

fn seconds(count: usize) -> impl Iterator<Item = Step<User>> {
    std::iter::repeat_n(Step::Second, count)
}

#[test]
fn a_rollout_with_a_fault_at_every_action() {
    let script: Vec<_> = seconds(4)
        .chain([Step::User(User::Image(2))])
        .chain(seconds(3))
        .chain([Step::User(User::Scale(4))])
        .chain(seconds(9))
        .collect();
    for face in [Face::Crd, Face::Native] {
        let manifest = fixtures::deployment(face, "web", 3, "v1");
        let subject = Replicas::new(face, Resource::deployments(face), manifest);
        let runs = exhaust(&subject, &script).unwrap();
        assert!(runs > 100, "{runs}");
    }
}

#[test]
fn a_replica_set_with_a_fault_at_every_action() {
    let script: Vec<_> = seconds(3)
        .chain([Step::User(User::Scale(5))])
        .chain(seconds(1))
        .chain([Step::User(User::Scale(2))])
        .chain(seconds(2))
        .collect();
    let face = Face::Crd;
    let manifest = fixtures::replica_set(face, "web", 3, "v1");
    let subject = Replicas::new(face, Resource::replica_sets(face), manifest);
    assert!(exhaust(&subject, &script).unwrap() > 50);
}
