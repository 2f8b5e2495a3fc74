//! StatefulSets: whatever users, pods and networks do, an ordered set never moves two pods, a partition is kept, and in
//! the end all is as wanted: also after a revision that never worked.
//!
//! Deliberate bugs, and the tests that they do not get past (`plan::` is in `src/statefulset`):
//!
//! | bug | caught by |
//! |---|---|
//! | the partition is not checked for replacements | `plan::a_rolling_update_goes_down_to_its_partition` |
//! | the partition is not checked for new pods | `plan::a_partition_means_the_same_for_new_pods` |
//! | revisions are compared by their bytes | `plan::a_revision_is_found_by_what_it_means` |
//! | pods are deleted whatever their uid | the audit, in `plan::ordered_pods_come_and_go_one_by_one` and ten others |
//! | a pod comes although the one before it is not ready | `plan::a_broken_revision_does_not_block_its_own_fix` |
//! | a pod that goes gives its ordinal free | the audit, in `plan::ordered_pods_come_and_go_one_by_one` and six others |
//! | the lowest ordinal goes first | `plan::ordered_pods_come_and_go_one_by_one`, `plan::ordinals_start_where_the_user_says` |
//! | `currentRevision` moves before all pods are updated | `plan::a_complete_update_becomes_the_current_revision` |
//! | the end of `minReadySeconds` is no reason to look | `plan::min_ready_seconds_are_waited_for` |
//! | `whenScaled` is not looked at | `claim_retention::the_table`, `plan::claims_go_with_whom_the_policy_says` |
//! | a pod is made while its claim goes | `plan::a_pod_waits_for_claims_that_are_on_their_way_out` |
//! | a claim that goes with a former pod is taken for good | `plan::a_pod_waits_for_claims_that_are_on_their_way_out` |
//! | a pending pod's lost claim does not come back | `plan::a_pending_pod_gets_its_lost_claims_back` |
//! | a broken pod goes while another is on its way | `plan::a_broken_revision_does_not_block_its_own_fix` |
//! | what is unavailable does not count towards `maxUnavailable` | `plan::max_unavailable_is_a_budget` |
//! | the history loses records that pods were made from | `plan::old_revisions_go_beyond_the_limit` |

use std::{collections::BTreeMap, ops::Range};

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use trysail_core::{
    Face, Key, Resource,
    resource::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS},
};
use trysail_testkit::{
    Cluster, Manager,
    cluster::Writer,
    fixtures::NAMESPACE,
    invariants::{Change, Monitor, controller_of, find, is_deletion},
    kinds,
    manager::Registration,
    property::{Step, Subject, calm, exhaust, hostile, play, stormy},
};

/// A StatefulSet `db` and its users.
#[derive(Clone, Debug)]
struct StatefulSets {
    face: Face,
    spec: Value,
}

#[derive(Clone, Debug)]
enum User {
    Scale(i32),
    /// Of the images v0 to v3 the last two never get ready.
    Image(u8),
    Partition(i32),
    Start(i32),
    MinReady(i32),
    OnDelete(bool),
    /// The claim of that place is deleted.
    DeleteClaim(usize),
    /// The pod of that place loses the label of its ordinal.
    Strip(usize),
    /// The set is deleted and made again at once, its pods are orphaned or not.
    MakeAgain(bool),
}

fn user() -> impl Strategy<Value = User> {
    prop_oneof![
        3 => (0..5i32).prop_map(User::Scale),
        4 => (0..4u8).prop_map(User::Image),
        2 => (0..5i32).prop_map(User::Partition),
        1 => (0..3i32).prop_map(User::Start),
        1 => (0..3i32).prop_map(User::MinReady),
        1 => any::<bool>().prop_map(User::OnDelete),
        1 => any::<usize>().prop_map(User::DeleteClaim),
        1 => any::<usize>().prop_map(User::Strip),
        1 => any::<bool>().prop_map(User::MakeAgain),
    ]
}

/// What moves neither the range nor the partition.
fn user_of_a_partition() -> impl Strategy<Value = User> {
    prop_oneof![
        4 => (0..4u8).prop_map(User::Image),
        1 => (0..3i32).prop_map(User::MinReady),
        1 => Just(User::OnDelete(true)),
        1 => any::<usize>().prop_map(User::Strip),
    ]
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "main", "image": image}]}})
}

fn spec(replicas: i32, policy: &str) -> Value {
    json!({
        "replicas": replicas,
        "serviceName": "peers",
        "podManagementPolicy": policy,
        "selector": {"matchLabels": {"app": "db"}},
        "template": template("v0"),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    })
}

fn any_set() -> impl Strategy<Value = StatefulSets> {
    let retention = || prop_oneof![Just("Retain"), Just("Delete")];
    (any::<bool>(), 0..5i32, any::<bool>(), retention(), retention(), 0..4i32, 0..3i32, any::<bool>())
        .prop_map(|(is_native, replicas, is_parallel, deleted, scaled, unavailable, history, has_claims)| {
            let mut spec = spec(replicas, if is_parallel { "Parallel" } else { "OrderedReady" });
            if has_claims {
                let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
                spec["volumeClaimTemplates"] = json!([claim]);
            }
            if is_parallel && unavailable > 0 {
                spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = unavailable.into();
            }
            spec["revisionHistoryLimit"] = history.into();
            spec["persistentVolumeClaimRetentionPolicy"] =
                json!({"whenDeleted": deleted, "whenScaled": scaled});
            StatefulSets { face: if is_native { Face::Native } else { Face::Crd }, spec }
        })
}

impl StatefulSets {
    fn resource(&self) -> Resource {
        Resource::stateful_sets(self.face)
    }

    fn key() -> Key {
        Key::new(NAMESPACE, "db")
    }

    fn patch(&self, cluster: &mut Cluster, patch: &Value) {
        cluster.patch(self.resource(), &Self::key(), (None, 0), None, patch, Writer::Other).unwrap();
    }
}

fn at(cluster: &Cluster, resource: Resource, place: usize) -> Option<Key> {
    let objects = cluster.list(resource);
    let object = objects.get(place.checked_rem(objects.len())?)?;
    Some(Key::new(NAMESPACE, object["metadata"]["name"].as_str()?))
}

impl Subject for StatefulSets {
    type Step = User;

    fn controllers(&self) -> Vec<Registration> {
        vec![kinds::stateful_sets(self.face)]
    }

    fn set_up(&self, cluster: &mut Cluster) {
        cluster.kubelet.broken_images = ["v2", "v3"].map(str::to_owned).into();
        let resource = self.resource();
        let manifest = json!({"apiVersion": resource.api_version(), "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": NAMESPACE}, "spec": self.spec});
        cluster.create(resource, manifest, Writer::Other).unwrap();
    }

    fn step(&self, cluster: &mut Cluster, step: &User) {
        let set = cluster.get(self.resource(), &Self::key()).unwrap();
        let rolls = set["spec"]["updateStrategy"]["type"] == "RollingUpdate";
        match step {
            User::Scale(replicas) => self.patch(cluster, &json!({"spec": {"replicas": replicas}})),
            User::Image(image) => {
                self.patch(cluster, &json!({"spec": {"template": template(&format!("v{image}"))}}));
            }
            User::Partition(partition) if rolls => {
                let rolling = json!({"rollingUpdate": {"partition": partition}});
                self.patch(cluster, &json!({"spec": {"updateStrategy": rolling}}));
            }
            User::Partition(_) => {}
            User::Start(start) => self.patch(cluster, &json!({"spec": {"ordinals": {"start": start}}})),
            User::MinReady(seconds) => self.patch(cluster, &json!({"spec": {"minReadySeconds": seconds}})),
            User::OnDelete(true) => {
                let strategy = json!({"type": "OnDelete", "rollingUpdate": null});
                self.patch(cluster, &json!({"spec": {"updateStrategy": strategy}}));
            }
            User::OnDelete(false) => {
                let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
                self.patch(cluster, &json!({"spec": {"updateStrategy": strategy}}));
            }
            User::MakeAgain(orphan) => cluster.make_again(self.resource(), &Self::key(), *orphan),
            User::DeleteClaim(place) => {
                if let Some(claim) = at(cluster, PERSISTENT_VOLUME_CLAIMS, *place) {
                    let _ = cluster.delete(PERSISTENT_VOLUME_CLAIMS, &claim, None, Writer::Other);
                }
            }
            User::Strip(place) => {
                if let Some(pod) = at(cluster, PODS, *place) {
                    let patch = json!({"metadata": {"labels": {"apps.kubernetes.io/pod-index": null}}});
                    cluster.patch(PODS, &pod, (None, 0), None, &patch, Writer::Other).unwrap();
                }
            }
        }
    }

    /// The user wants something that can be had. Images that do not work still do not.
    fn heal(&self, cluster: &mut Cluster) {
        cluster.kubelet.broken_images = ["v2", "v3"].map(str::to_owned).into();
        self.step(cluster, &User::OnDelete(false));
        self.step(cluster, &User::Image(9));
        for pod in cluster.list(PODS) {
            if pod["metadata"]["labels"]["app"] == "other" {
                let key = Key::new(NAMESPACE, pod["metadata"]["name"].as_str().unwrap());
                cluster.delete_by_force(&key);
            }
        }
    }

    fn is_as_wanted(&self, cluster: &Cluster) -> Result<(), String> {
        let set = cluster.get(self.resource(), &Self::key()).unwrap();
        let (spec, status) = (&set["spec"], &set["status"]);
        let range = range(&set);
        let wanted = range.end - range.start;
        let pods = cluster.list(PODS);
        let names: Vec<&str> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
        if names != range.map(|ordinal| format!("db-{ordinal}")).collect::<Vec<_>>() {
            return Err(format!("there are {names:?}"));
        }
        let revision = &status["updateRevision"];
        let is_right = |pod: &Value| {
            let labels = &pod["metadata"]["labels"];
            !is_moving(pod)
                && pod["spec"]["containers"][0]["image"] == "v9"
                && pod["spec"]["hostname"] == pod["metadata"]["name"]
                && labels["controller-revision-hash"] == *revision
                && labels["apps.kubernetes.io/pod-index"].is_string()
        };
        if let Some(wrong) = pods.iter().find(|pod| !is_right(pod)) {
            return Err(format!("this is not right: {wrong}"));
        }
        let counts = ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"];
        let is_counted = counts.iter().all(|name| status[name].as_i64().unwrap_or(0) == wanted);
        let is_complete = status["currentRevision"] == *revision;
        let is_seen = status["observedGeneration"] == set["metadata"]["generation"];
        let kept = cluster.list(CONTROLLER_REVISIONS).len() as i64;
        let is_short = kept <= 1 + spec["revisionHistoryLimit"].as_i64().unwrap_or(10);
        if is_counted && is_complete && is_seen && is_short {
            Ok(())
        } else {
            Err(format!("{kept} revisions, {status}"))
        }
    }

    fn monitors(&self) -> Vec<Box<dyn Monitor>> {
        vec![Box::new(OneMoves), Box::<Partitions>::default(), Box::new(ClaimsStay)]
    }

    /// An ordered rollout of four pods, with back-off after failures.
    fn patience(&self) -> usize {
        400
    }
}

fn range(set: &Value) -> Range<i64> {
    let start = set["spec"]["ordinals"]["start"].as_i64().unwrap_or(0);
    start..start + set["spec"]["replicas"].as_i64().unwrap_or(1)
}

fn ordinal(pod: &Value) -> i64 {
    pod["metadata"]["name"].as_str().unwrap().strip_prefix("db-").unwrap().parse().unwrap()
}

fn goes(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

/// Terminating, or not ready.
fn is_moving(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let is_ready = conditions
        .is_some_and(|list| list.iter().any(|held| held["type"] == "Ready" && held["status"] == "True"));
    goes(pod) || !is_ready || pod["status"]["phase"] != "Running"
}

/// OrderedReady: no pod is deleted while another is terminating, and none that serves while another is on its way. A
/// pod is made whatever those after it do; those before it are the testkit's business.
#[derive(Debug)]
struct OneMoves;

impl Monitor for OneMoves {
    fn judge(&mut self, cluster: &Cluster, change: &Change<'_>, found: &mut Vec<String>) {
        if change.resource != PODS || change.writer != Writer::Controller || change.is_excused {
            return;
        }
        let Some(pod) = change.before.filter(|before| is_deletion(before, change.after)) else { return };
        let Some(owner) = controller_of(pod, "StatefulSet") else { return };
        let Some(set) = find(cluster, Resource::stateful_sets, owner) else { return };
        let rolling = &set["spec"]["updateStrategy"]["rollingUpdate"];
        if set["spec"]["podManagementPolicy"] == "Parallel" || rolling["maxUnavailable"].is_number() {
            return;
        }
        let range = range(&set);
        for other in cluster.list(PODS) {
            let is_other = other["metadata"]["name"] != pod["metadata"]["name"]
                && controller_of(&other, "StatefulSet") == Some(owner);
            let is_in_the_way =
                goes(&other) || (range.contains(&ordinal(&other)) && is_moving(&other) && !is_moving(pod));
            if is_other && is_in_the_way {
                found.push(format!("db-{} taken while db-{} is on its way", ordinal(pod), ordinal(&other)));
            }
        }
    }
}

/// No update takes a running pod below the lowest partition, nor any under OnDelete.
#[derive(Debug, Default)]
struct Partitions {
    /// The first ordinal that may be taken, and the ordinals that were always wanted.
    bounds: BTreeMap<String, (i64, Range<i64>)>,
}

impl Monitor for Partitions {
    fn judge(&mut self, _: &Cluster, change: &Change<'_>, found: &mut Vec<String>) {
        if change.resource.plural == "statefulsets" {
            for set in change.before.into_iter().chain(change.after) {
                let strategy = &set["spec"]["updateStrategy"];
                let range = range(set);
                let partition = strategy["rollingUpdate"]["partition"].as_i64().unwrap_or(0);
                let first = if strategy["type"] == "OnDelete" {
                    i64::MAX
                } else {
                    range.start.saturating_add(partition)
                };
                let uid = set["metadata"]["uid"].as_str().unwrap().to_owned();
                let held = self.bounds.entry(uid).or_insert((first, range.clone()));
                *held = (held.0.min(first), held.1.start.max(range.start)..held.1.end.min(range.end));
            }
        }
        let (PODS, Writer::Controller, Some(pod)) = (change.resource, change.writer, change.before) else {
            return;
        };
        let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let bounds = controller_of(pod, "StatefulSet").and_then(|owner| self.bounds.get(owner));
        let Some((first, wanted)) = bounds.filter(|_| is_deletion(pod, change.after) && !has_ended) else {
            return;
        };
        if wanted.contains(&ordinal(pod)) && ordinal(pod) < *first {
            found.push(format!("db-{} taken below the partition {first}", ordinal(pod)));
        }
    }
}

/// The controller never deletes a claim: data go when the garbage collector finds their owner gone.
#[derive(Debug)]
struct ClaimsStay;

impl Monitor for ClaimsStay {
    fn judge(&mut self, _: &Cluster, change: &Change<'_>, found: &mut Vec<String>) {
        let is_ours = change.resource == PERSISTENT_VOLUME_CLAIMS && change.writer == Writer::Controller;
        if is_ours && change.before.is_some_and(|before| is_deletion(before, change.after)) {
            found.push("a claim deleted".to_owned());
        }
    }
}

proptest! {
    /// Users edit at any moment, broken images included.
    #[test]
    fn a_stateful_set_follows_its_users(set in any_set(), steps in vec(calm(user()), 1..60)) {
        play(&set, &steps)?;
    }

    /// Late views, each on its own, crashes after any action, lost replies and lost events change nothing of that.
    #[test]
    fn a_stateful_set_survives_crashes_and_stale_views(set in any_set(), steps in vec(stormy(user()), 1..80)) {
        play(&set, &steps)?;
    }

    /// Pods that fall ill or are deleted, quotas on top.
    #[test]
    fn a_stateful_set_survives_a_hostile_cluster(set in any_set(), steps in vec(hostile(user()), 1..80)) {
        play(&set, &steps)?;
    }

    /// With a standing partition, in any storm; [`Partitions`] judges.
    #[test]
    fn a_partition_is_respected(
        set in any_set(), first in 0..3i32, partition in 1..5i32, steps in vec(stormy(user_of_a_partition()), 1..60),
    ) {
        let mut set = set;
        set.spec["replicas"] = 4.into();
        set.spec["ordinals"] = json!({"start": first});
        set.spec["updateStrategy"]["rollingUpdate"]["partition"] = partition.into();
        let rest = std::iter::repeat_n(Step::Second, 20);
        play(&set, &rest.chain(steps).collect::<Vec<_>>())?;
    }
}

/// A crash, a lost reply and a lost request at every action of a set's life, and late views of each resource.
#[test]
fn a_stateful_set_with_a_fault_at_every_action() {
    let seconds = |count: usize| std::iter::repeat_n(Step::Second, count);
    for (face, policy) in [(Face::Crd, "OrderedReady"), (Face::Native, "Parallel")] {
        let mut spec = spec(2, policy);
        spec["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {}}]);
        spec["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
        let script: Vec<Step<User>> = seconds(8)
            .chain([Step::User(User::Image(1))])
            .chain(seconds(12))
            .chain([Step::User(User::Scale(1))])
            .chain(seconds(4))
            .chain([Step::User(User::Scale(3))])
            .chain(seconds(12))
            .collect();
        let runs = exhaust(&StatefulSets { face, spec }, &script).unwrap();
        assert!(runs > 60, "{runs}");
    }
}

/// Two leaders for a while, each with views of its own: names make the second create harmless.
#[test]
fn two_managers_make_no_second_pod() {
    for lag in 0..6 {
        let set = StatefulSets { face: Face::Crd, spec: spec(3, "Parallel") };
        let mut cluster = Cluster::default();
        set.set_up(&mut cluster);
        let mut managers = [0, lag].map(|lag| {
            let mut manager = Manager::with(set.controllers(), &cluster);
            manager.set_lag(lag);
            manager
        });
        for _ in 0..10 {
            for manager in &mut managers {
                manager.round(&mut cluster);
            }
            cluster.actors();
        }
        assert_eq!((cluster.created(PODS), cluster.list(CONTROLLER_REVISIONS).len()), (3, 1), "{lag}");
    }
}
