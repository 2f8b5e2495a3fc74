//! DaemonSets under everything that users, nodes and networks do.
//!
//! Deliberate bugs, and the tests that they do not get past (with `::`: in `src/daemonset`):
//!
//! | bug | caught by |
//! |---|---|
//! | nodes under way do not count towards `maxUnavailable` | `max_unavailable::what_is_under_way_counts` and five others |
//! | a verdict on a node is kept though the node changed | `per_node::only_what_changed_is_judged` |
//! | failed pods are replaced at once | `failed_pods::each_failure_doubles_the_wait_up_to_fifteen_minutes`, `per_node::the_next_failure_waits` |
//! | `NoExecute` taints are not looked at | `placement::taints_keep_away_or_drive_out_unless_tolerated` |
//! | the automatic tolerations are not taken into account | `placement::taints_keep_away_or_drive_out_unless_tolerated` |
//! | `nodeSelector` is not looked at | `placement::node_name_and_selector` |
//! | of two records of a template one goes before its pods have the other's label | `history::of_two_records_of_one_template_the_latest_stays_and_its_pods_with_it` |
//! | pods are deleted whatever their uid | the audit, in `per_node::of_several_pods_the_oldest_stays` and eighteen others |
//! | two pods may stay on a node | `per_node::of_several_pods_the_oldest_stays` |
//! | with a surge, the old pod goes when the new one is ready, not available | `max_surge::the_old_pod_goes_when_it_is_not_needed_any_more` |
//! | an update goes on while nodes are not in order | `max_surge::the_old_pod_goes_when_it_is_not_needed_any_more`, `max_unavailable::a_silent_node_counts_until_it_has_had_its_chance` |
//! | pods of a node that is down cost nothing | `max_unavailable::pods_on_flapping_nodes_are_within_the_budget_and_come_last` |
//! | a pod of a node that was never seen is deleted at once | `per_node::unbound_pods_of_gone_nodes_are_deleted` |
//! | a name is used again at once | `slots::a_name_is_not_used_again_at_once` |
//! | one that is being deleted makes pods | `plan::a_daemon_set_that_goes_makes_no_pods` |
//! | a node that goes silent or comes back is no news | `placement::a_change_that_changes_no_verdict_wakes_nobody` |
//! | the end of `minReadySeconds` is no reason to look | `plan::it_looks_again_when_a_pod_becomes_available` |

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use trysail_core::{
    Face, Key, Resource,
    resource::{CONTROLLER_REVISIONS, NODES, PODS},
};
use trysail_testkit::{
    Cluster,
    cluster::Writer,
    fixtures::{self, NAMESPACE},
    invariants::{Change, Monitor, is_deletion},
    kinds,
    manager::Registration,
    property::{NodeStep, Step, Subject, calm, exhaust, hostile, play, stormy},
};

const NODE_COUNT: usize = 5;

fn key() -> Key {
    Key::new(NAMESPACE, "web")
}

fn node(place: usize) -> String {
    format!("n{}", place % NODE_COUNT)
}

/// A DaemonSet `web` on five nodes, every other one of which has a fast disk.
#[derive(Clone, Debug)]
struct Daemons {
    face: Face,
    /// `spec.updateStrategy.rollingUpdate`.
    rolling: Value,
    min_ready: i32,
    /// Tolerates every taint.
    is_tolerant: bool,
    /// Judges the budgets at every write.
    is_strict: bool,
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    Image(u8),
    MinReady(i32),
    /// Unavailable, surge: one of the two is zero.
    Budget(i32, i32),
    ByHand(bool),
    FastDisksOnly(bool),
    History(i32),
    Taint(usize, bool),
    Disk(usize, bool),
    /// The set is deleted and made again at once, its pods are orphaned or not.
    MakeAgain(bool),
}

impl Daemons {
    fn resource(&self) -> Resource {
        Resource::daemon_sets(self.face)
    }

    fn patch(&self, cluster: &mut Cluster, patch: &Value) {
        cluster.patch(self.resource(), &key(), (None, 0), None, patch, Writer::Other).unwrap();
    }
}

impl Subject for Daemons {
    type Step = Edit;

    fn controllers(&self) -> Vec<Registration> {
        vec![kinds::daemon_sets(self.face)]
    }

    fn set_up(&self, cluster: &mut Cluster) {
        for place in 0..NODE_COUNT {
            let labels = if place % 2 == 0 { json!({"disk": "ssd"}) } else { json!({}) };
            cluster.add_node(&node(place), &labels).unwrap();
        }
        let mut set = fixtures::daemon_set(self.face, "web", "v0");
        set["spec"]["minReadySeconds"] = self.min_ready.into();
        set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": self.rolling});
        if self.is_tolerant {
            set["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        }
        cluster.create(self.resource(), set, Writer::Other).unwrap();
    }

    fn step(&self, cluster: &mut Cluster, step: &Edit) {
        match *step {
            Edit::Image(image) => {
                let containers = json!([{"name": "main", "image": format!("v{image}")}]);
                self.patch(cluster, &json!({"spec": {"template": {"spec": {"containers": containers}}}}));
            }
            Edit::MinReady(seconds) => self.patch(cluster, &json!({"spec": {"minReadySeconds": seconds}})),
            Edit::Budget(unavailable, surge) => {
                let rolling = json!({"maxUnavailable": unavailable, "maxSurge": surge});
                let strategy = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
                self.patch(cluster, &json!({"spec": {"updateStrategy": strategy}}));
            }
            Edit::ByHand(true) => {
                let strategy = json!({"type": "OnDelete", "rollingUpdate": null});
                self.patch(cluster, &json!({"spec": {"updateStrategy": strategy}}));
            }
            Edit::ByHand(false) => {
                let strategy = json!({"type": "RollingUpdate", "rollingUpdate": self.rolling});
                self.patch(cluster, &json!({"spec": {"updateStrategy": strategy}}));
            }
            Edit::FastDisksOnly(yes) => {
                let selector = if yes { json!({"disk": "ssd"}) } else { Value::Null };
                self.patch(cluster, &json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}));
            }
            Edit::History(limit) => self.patch(cluster, &json!({"spec": {"revisionHistoryLimit": limit}})),
            Edit::MakeAgain(orphan) => cluster.make_again(self.resource(), &key(), orphan),
            Edit::Taint(place, yes) => cluster.taint(&node(place), "gpu", "", yes.then_some("NoExecute")),
            Edit::Disk(place, yes) => {
                cluster.label_node(&node(place), "disk", &if yes { json!("ssd") } else { Value::Null });
            }
        }
    }

    fn heal(&self, cluster: &mut Cluster) {
        self.step(cluster, &Edit::ByHand(false));
        for place in 0..NODE_COUNT {
            cluster.taint(&node(place), "gpu", "", None);
        }
        // What was made unready by hand stays so.
        for pod in cluster.list(PODS) {
            let pod = Key::new(NAMESPACE, pod["metadata"]["name"].as_str().unwrap());
            if cluster.get(PODS, &pod).is_some_and(|pod| pod["status"]["phase"] == "Running") {
                cluster.make_ready(&pod, true);
            }
        }
    }

    fn is_as_wanted(&self, cluster: &Cluster) -> Result<(), String> {
        let set = cluster.get(self.resource(), &key()).unwrap();
        let image = &set["spec"]["template"]["spec"]["containers"][0]["image"];
        let mut wanted = 0;
        for node in cluster.list(NODES) {
            let pods = pods_on(cluster, node["metadata"]["name"].as_str().unwrap());
            let right = |pod: &&Value| pod["spec"]["containers"][0]["image"] == *image && is_ready(pod);
            let expected = usize::from(is_wanted(&set, &node));
            wanted += expected;
            if pods.len() != expected || pods.iter().filter(right).count() != expected {
                return Err(format!(
                    "{expected} pods of {image} wanted on {}: {pods:#?}",
                    node["metadata"]["name"]
                ));
            }
        }
        let count = |name: &str| set["status"][name].as_u64().unwrap_or(0) as usize;
        let counts = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "updatedNumberScheduled",
            "numberReady",
            "numberAvailable",
        ];
        if let Some(wrong) = counts.into_iter().find(|name| count(name) != wanted) {
            return Err(format!("{wrong} is not {wanted}: {}", set["status"]));
        }
        if count("numberMisscheduled") + count("numberUnavailable") > 0 {
            return Err(format!("not in order: {}", set["status"]));
        }
        let limit = set["spec"]["revisionHistoryLimit"].as_u64().unwrap_or(10) as usize;
        match cluster.list(CONTROLLER_REVISIONS).len() {
            held if held <= limit + 1 => Ok(()),
            held => Err(format!("{held} revisions, {limit} to be kept")),
        }
    }

    fn monitors(&self) -> Vec<Box<dyn Monitor>> {
        let budgets = Budgets { resource: self.resource(), taken: BTreeMap::new(), beside: BTreeMap::new() };
        if self.is_strict { vec![Box::new(budgets)] } else { Vec::new() }
    }
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .is_some_and(|list| list.iter().any(|held| held["type"] == "Ready" && held["status"] == "True"))
}

fn is_available(pod: &Value, min_ready: i64, now: Timestamp) -> bool {
    let list = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = list.iter().find(|held| held["type"] == "Ready" && held["status"] == "True");
    ready.is_some_and(|held| {
        min_ready == 0 || time(&held["lastTransitionTime"]) + SignedDuration::from_secs(min_ready) <= now
    })
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

fn is_living(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
        && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn node_of(pod: &Value) -> String {
    let target = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                  /nodeSelectorTerms/0/matchFields/0/values/0";
    let name = pod["spec"]["nodeName"].as_str().or_else(|| pod.pointer(target).and_then(Value::as_str));
    name.unwrap_or_default().to_owned()
}

/// Living pods of the set.
fn pods_on(cluster: &Cluster, node: &str) -> Vec<Value> {
    let pods = cluster.list(PODS).into_iter();
    let ours = |pod: &Value| {
        pod["metadata"]["labels"]["app"] == "web" && !pod["metadata"]["ownerReferences"].is_null()
    };
    pods.map(|pod| (*pod).clone()).filter(|pod| is_living(pod) && ours(pod) && node_of(pod) == node).collect()
}

/// Judged in another way than the planner does: by what these tests use.
fn is_wanted(set: &Value, node: &Value) -> bool {
    let pods = &set["spec"]["template"]["spec"];
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let is_tolerant = pods["tolerations"].is_array();
    let is_kept_away = taints.iter().any(|taint| {
        taint["key"] == "gpu"
            || taint["key"] == "node.kubernetes.io/unreachable" && taint["effect"] == "NoSchedule"
    });
    (is_tolerant || !is_kept_away)
        && (pods["nodeSelector"]["disk"].is_null() || node["metadata"]["labels"]["disk"] == "ssd")
}

/// What an update takes from users at any moment, whatever the nodes do: a node whose pod it deleted counts until
/// it has an available one again, a successor beside a ready pod until it is available.
#[derive(Debug)]
struct Budgets {
    resource: Resource,
    taken: BTreeMap<String, Timestamp>,
    beside: BTreeMap<String, Timestamp>,
}

impl Monitor for Budgets {
    fn judge(&mut self, cluster: &Cluster, change: &Change<'_>, found: &mut Vec<String>) {
        let Some(set) = cluster.get(self.resource, &key()) else { return };
        let spec = &set["spec"];
        let min_ready = spec["minReadySeconds"].as_i64().unwrap_or(0);
        let available = |node: &str, of: &dyn Fn(&Value) -> bool| {
            pods_on(cluster, node).iter().any(|pod| of(pod) && is_available(pod, min_ready, cluster.now))
        };
        let is_new = |pod: &Value| {
            pod["spec"]["containers"][0]["image"] == spec["template"]["spec"]["containers"][0]["image"]
        };
        let node_object = |node: &str| cluster.get(NODES, &Key::new("", node));
        let counts = |node: &str, since: Timestamp| {
            let Some(object) = node_object(node) else { return false };
            let is_silent = object["status"]["conditions"][0]["status"] != "True"
                && cluster.now >= since + SignedDuration::from_secs(60);
            is_wanted(&set, &object) && !is_silent
        };
        // What came meanwhile and is outdated again serves as soon as it is ready: it will not be waited for. Nor
        // will it be when its node fell silent after it came, for nobody can tell which of the two is the cause.
        let is_past = |node: &str| {
            let ready = node_object(node).map(|held| held["status"]["conditions"][0].clone());
            let silent_since =
                ready.filter(|held| held["status"] != "True").map(|held| time(&held["lastTransitionTime"]));
            pods_on(cluster, node).iter().filter(|pod| !is_new(pod) && is_living(pod)).any(|pod| {
                let came = time(&pod["metadata"]["creationTimestamp"]);
                is_ready(pod) || silent_since.is_some_and(|since| came < since)
            })
        };
        self.taken
            .retain(|node, since| counts(node, *since) && !available(node, &|_| true) && !is_past(node));
        self.beside.retain(|node, since| {
            counts(node, *since) && !available(node, &is_new) && pods_on(cluster, node).len() > 1
        });
        if change.resource != PODS || change.writer != Writer::Controller {
            return;
        }
        let rolling = &spec["updateStrategy"]["rollingUpdate"];
        let bound = |name: &str| rolling[name].as_u64().unwrap_or(0) as usize;
        let (unavailable, surge) = (bound("maxUnavailable"), bound("maxSurge"));
        match (change.before, change.after) {
            (Some(pod), after) if is_deletion(pod, after) && is_living(pod) && !is_new(pod) => {
                let node = node_of(pod);
                let is_up = node_object(&node)
                    .is_some_and(|held| held["status"]["conditions"][0]["status"] == "True");
                if !counts(&node, cluster.now) || (is_up && !is_ready(pod)) {
                    return;
                }
                if surge > 0 {
                    if is_ready(pod) && !pods_on(cluster, &node).iter().any(is_ready) {
                        found.push(format!("{node}: the only ready pod was taken"));
                    }
                } else {
                    self.taken.insert(node, cluster.now);
                }
            }
            (None, Some(pod)) => {
                let node = node_of(pod);
                let is_ready_there =
                    pods_on(cluster, &node).iter().any(|held| !is_new(held) && is_ready(held));
                if is_ready_there && counts(&node, cluster.now) {
                    self.beside.insert(node, cluster.now);
                }
            }
            _ => {}
        }
        if surge == 0 && self.taken.len() > unavailable {
            found.push(format!("{:?} were taken, {unavailable} allowed", self.taken));
        }
        if surge > 0 && self.beside.len() > surge {
            found.push(format!("{:?} have a successor, {surge} allowed", self.beside));
        }
    }
}

fn subject() -> impl Strategy<Value = Daemons> {
    let rolling = prop_oneof![
        3 => (1..3i32).prop_map(|unavailable| json!({"maxUnavailable": unavailable, "maxSurge": 0})),
        2 => (1..3i32).prop_map(|surge| json!({"maxUnavailable": 0, "maxSurge": surge})),
    ];
    (any::<bool>(), rolling, 0..3i32, any::<bool>()).prop_map(
        |(is_native, rolling, min_ready, is_tolerant)| {
            let face = if is_native { Face::Native } else { Face::Crd };
            Daemons { face, rolling, min_ready, is_tolerant, is_strict: false }
        },
    )
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => (0..4u8).prop_map(Edit::Image),
        1 => (0..3i32).prop_map(Edit::MinReady),
        1 => (1..4i32).prop_map(|count| Edit::Budget(count, 0)),
        1 => (1..4i32).prop_map(|count| Edit::Budget(0, count)),
        1 => any::<bool>().prop_map(Edit::ByHand),
        2 => any::<bool>().prop_map(Edit::FastDisksOnly),
        1 => (0..3i32).prop_map(Edit::History),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(place, yes)| Edit::Taint(place, yes)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(place, yes)| Edit::Disk(place, yes)),
        1 => any::<bool>().prop_map(Edit::MakeAgain),
    ]
}

/// Updates, while nodes fall silent and come back.
fn flaps() -> impl Strategy<Value = Step<Edit>> {
    let flap = prop_oneof![2 => Just(NodeStep::Down), 3 => Just(NodeStep::Up)];
    prop_oneof![
        12 => calm((0..4u8).prop_map(Edit::Image)),
        4 => Just(Step::Second),
        5 => (any::<usize>(), flap).prop_map(|(place, step)| Step::Node(place, step)),
    ]
}

proptest! {
    #[test]
    fn a_daemon_set_follows_its_users(subject in subject(), steps in vec(calm(edits()), 1..50)) {
        play(&subject, &steps)?;
    }

    /// Late views of each resource on its own, crashes after any action, lost replies.
    #[test]
    fn a_daemon_set_survives_crashes_and_stale_views(subject in subject(), steps in vec(stormy(edits()), 1..60)) {
        play(&subject, &steps)?;
    }

    #[test]
    fn a_daemon_set_survives_a_hostile_cluster(subject in subject(), steps in vec(hostile(edits()), 1..60)) {
        play(&subject, &steps)?;
    }

    /// Not one node more than allowed is without its pod because of an update, at any write.
    #[test]
    fn budgets_hold_while_nodes_flap(subject in subject(), steps in vec(flaps(), 1..80)) {
        play(&Daemons { is_strict: true, ..subject }, &steps)?;
    }
}

fn seconds(count: usize) -> impl Iterator<Item = Step<Edit>> {
    std::iter::repeat_n(Step::Second, count)
}

fn edit(edit: Edit) -> impl Iterator<Item = Step<Edit>> {
    std::iter::once(Step::User(edit))
}

#[test]
fn an_update_with_a_fault_at_every_action() {
    // One edit each: how far an update is when the next one comes may depend on the fault.
    for change in [Edit::Image(1), Edit::FastDisksOnly(true)] {
        let script: Vec<_> = seconds(4).chain(edit(change)).chain(seconds(12)).collect();
        for (face, rolling) in [
            (Face::Native, json!({"maxUnavailable": 2, "maxSurge": 0})),
            (Face::Crd, json!({"maxUnavailable": 0, "maxSurge": 2})),
        ] {
            let subject = Daemons { face, rolling, min_ready: 1, is_tolerant: false, is_strict: false };
            let runs = exhaust(&subject, &script).unwrap();
            assert!(runs > 80, "{runs}");
        }
    }
}

/// A rollback must restart no pod that has the template already.
#[test]
fn a_rollback_restarts_only_what_was_updated() {
    let rolling = json!({"maxUnavailable": 1, "maxSurge": 0});
    let subject = Daemons { face: Face::Native, rolling, min_ready: 0, is_tolerant: false, is_strict: true };
    let mut world = trysail_testkit::property::World::new(&subject);
    world.cluster.kubelet.broken_images.insert("v1".to_owned());
    let script = seconds(4).chain(edit(Edit::Image(1))).chain(seconds(9)).chain(edit(Edit::Image(0)));
    let script: Vec<_> = script.chain(seconds(9)).collect();
    let made = world.play(&script).unwrap();
    assert_eq!(made, NODE_COUNT + 2, "one broken pod and its successor");
    assert_eq!(world.cluster.list(CONTROLLER_REVISIONS).len(), 2);
}
