//! Jobs: whatever pods, users and networks do, each finished pod is counted once, none is made after the end, and the
//! end comes. A fault at every action, then properties.
//!
//! Deliberate bugs, and the tests that they do not get past (with `::`: in `src/job` and `src/ttl_after_finished`):
//!
//! | bug | caught by |
//! |---|---|
//! | finished pods are counted by their phase alone | `a_job_with_a_fault_at_every_action` |
//! | finalizers go before the status is written | `tracking::finished_pods_are_recorded_before_they_are_let_go`, and the audit in fourteen others |
//! | pods are deleted whatever their uid | the audit, in `parallelism::fewer_pods_are_wanted` and six others |
//! | `backoffLimitPerIndex` is not checked | `completion_index::the_failures_of_an_index_are_inherited`, `outcome::the_first_criterion_decides` |
//! | what was said (`FailureTarget`, `SuccessCriteriaMet`) is forgotten | `outcome::the_first_criterion_decides` |
//! | uncounted pods leave the list while their finalizer is on | `tracking::finished_pods_are_recorded_before_they_are_let_go`, `outcome::a_failed_job_ends_in_two_steps` |
//! | a pod in the list is listed again | the same two |
//! | a pod whose Job is not in view is let go without asking | `a_new_leader_that_sees_pods_before_their_job_lets_none_go_uncounted`, `orphans::pods_of_a_gone_job_are_let_go` |
//! | both steps of the end are said at once | `parallelism::zero_pods_are_wanted`, and the audit |
//! | pods that are too many keep their finalizer, and fail | `parallelism::fewer_pods_are_wanted`, `parallelism::a_suspended_job_has_no_pods` |
//! | the failed pod of an index goes before its successor is there | `completion_index::the_failures_of_an_index_are_inherited` |
//! | the back-off starts anew with the process | `backoff::a_restart_keeps_the_back_off` |
//! | `podReplacementPolicy: Failed` replaces what terminates | `parallelism::a_terminating_pod_is_replaced_when_the_policy_says` |
//! | pods are adopted without the finalizer | `claim::adoption_and_release_each_take_two_steps` |
//! | the deadline is no reason to look | `outcome::a_deadline_is_a_wake_up` |
//! | failures that a policy ignores count | `outcome::pods_count_once_towards_a_limit_and_ignored_ones_never` |
//! | the end is said while pods still terminate | `outcome::a_pod_that_takes_its_time_delays_the_end` |
//! | a recorded pod is counted when it is taken from its Job, finalizer or not | `tracking::a_recorded_pod_that_is_taken_from_us_is_not_counted_yet` |
//! | a finished Job is deleted unconfirmed | `ttl_after_finished::a_finished_job_goes_when_its_time_is_up` |

use jiff::SignedDuration;
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Value, json};
use trysail_core::{Face, Key, Resource, resource::PODS};
use trysail_testkit::{
    Cluster,
    cluster::{Exit, Writer},
    fixtures::{self, NAMESPACE},
    kinds,
    manager::{Manager, Registration},
    property::{Step, Subject, calm, exhaust, hostile, play, stormy},
};

/// A Job called `pi`, and its users.
#[derive(Clone, Debug)]
struct Jobs {
    face: Face,
    spec: Value,
    /// The exit code of its pods in the end, and after how many ticks.
    exit: Option<(i64, u32)>,
}

/// What users do.
#[derive(Clone, Debug)]
enum User {
    Patch(Value),
    /// Of an Indexed Job, both at once.
    Elastic(i32),
    Delete,
    /// The pod of that place loses …
    Owner(usize),
    Selected(usize),
    Finalizers(usize),
}

impl Jobs {
    fn key() -> Key {
        Key::new(NAMESPACE, "pi")
    }

    fn resource(&self) -> Resource {
        Resource::jobs(self.face)
    }

    fn pod(cluster: &Cluster, place: usize) -> Option<Key> {
        let pods = cluster.list(PODS);
        let pod = pods.get(place.checked_rem(pods.len())?)?;
        Some(Key::new(NAMESPACE, pod["metadata"]["name"].as_str()?))
    }

    fn edit_pod(cluster: &mut Cluster, place: usize, metadata: &Value) {
        if let Some(key) = Self::pod(cluster, place) {
            let patch = json!({"metadata": metadata});
            drop(cluster.patch(PODS, &key, (None, 0), None, &patch, Writer::Other));
        }
    }
}

impl Subject for Jobs {
    type Step = User;

    fn controllers(&self) -> Vec<Registration> {
        vec![kinds::jobs(self.face), kinds::pods_of_gone_jobs(self.face)]
    }

    fn set_up(&self, cluster: &mut Cluster) {
        let mut manifest = fixtures::job(self.face, "pi", "v1");
        let spec = manifest["spec"].as_object_mut().unwrap();
        spec.extend(self.spec.as_object().unwrap().clone());
        if let Some((code, after)) = self.exit {
            cluster.kubelet.exits.insert("v1".to_owned(), Exit { after, code });
        }
        cluster.create(self.resource(), manifest, Writer::Other).unwrap();
    }

    fn step(&self, cluster: &mut Cluster, step: &User) {
        // What the server refuses, it refuses.
        match step {
            User::Patch(patch) => {
                drop(cluster.patch(self.resource(), &Self::key(), (None, 0), None, patch, Writer::Other));
            }
            User::Elastic(size) => {
                let job = cluster.get(self.resource(), &Self::key());
                // What was said holds, whatever is asked for later.
                let is_open = job.is_some_and(|job| !said(&job, "SuccessCriteriaMet"));
                if self.spec["completionMode"] == "Indexed" && is_open {
                    let patch = json!({"spec": {"parallelism": size, "completions": size}});
                    drop(cluster.patch(
                        self.resource(),
                        &Self::key(),
                        (None, 0),
                        None,
                        &patch,
                        Writer::Other,
                    ));
                }
            }
            User::Delete => drop(cluster.delete(self.resource(), &Self::key(), None, Writer::Other)),
            User::Owner(place) => Self::edit_pod(cluster, *place, &json!({"ownerReferences": []})),
            User::Selected(place) => {
                let labels = json!({"batch.kubernetes.io/controller-uid": "another"});
                Self::edit_pod(cluster, *place, &json!({"labels": labels}));
            }
            User::Finalizers(place) => Self::edit_pod(cluster, *place, &json!({"finalizers": []})),
        }
    }

    /// Pods succeed from now on, and somebody wants them.
    fn heal(&self, cluster: &mut Cluster) {
        cluster.kubelet.exits.insert("v1".to_owned(), Exit { after: 1, code: 0 });
        let Some(job) = cluster.get(self.resource(), &Self::key()) else { return };
        let parallelism = job["spec"]["parallelism"].as_i64().unwrap_or(1).max(1);
        let mut spec = json!({"suspend": false, "parallelism": parallelism});
        if self.spec["completionMode"] == "Indexed" {
            spec["completions"] = job["spec"]["completions"].clone();
        }
        let patch = json!({"spec": spec});
        cluster.patch(self.resource(), &Self::key(), (None, 0), None, &patch, Writer::Other).unwrap();
    }

    fn is_as_wanted(&self, cluster: &Cluster) -> Result<(), String> {
        let tracked = cluster.list(PODS).into_iter().find(|pod| {
            let finalizers = pod["metadata"]["finalizers"].as_array().into_iter().flatten();
            finalizers.filter_map(Value::as_str).any(|name| name.ends_with("/job-tracking"))
        });
        if let Some(pod) = tracked {
            return Err(format!("a pod is still held: {}", pod["metadata"]));
        }
        let Some(job) = cluster.get(self.resource(), &Self::key()) else { return Ok(()) };
        if !said(&job, "Complete") && !said(&job, "Failed") {
            return Err(format!("neither complete nor failed: {}", job["status"]));
        }
        let wanted = job["spec"]["completions"].as_i64().unwrap_or(1);
        let succeeded = job["status"]["succeeded"].as_i64().unwrap_or(0);
        if said(&job, "Complete") && succeeded < wanted && job["spec"]["successPolicy"].is_null() {
            return Err(format!("complete with {succeeded} of {wanted}"));
        }
        Ok(())
    }

    /// The longest back-off that these limits lead to, and a little.
    fn patience(&self) -> usize {
        900
    }
}

fn said(job: &Value, kind: &str) -> bool {
    let conditions = job["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|held| held["type"] == kind && held["status"] == "True")
}

fn spec() -> impl Strategy<Value = Value> {
    let policy = json!({"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}},
    ]});
    let per_index = (0..3i32, option::of(0..3i32), any::<bool>());
    let limits = (0..4i32, option::of(Just(policy)), any::<bool>(), option::of(40..90i32));
    let indexed = (any::<bool>(), option::of(per_index), option::of(1..4i32));
    ((0..5i32, option::weighted(0.8, 0..5i32)), limits, indexed).prop_map(
        |(
            (parallelism, completions),
            (backoff, policy, failed_only, deadline),
            (is_indexed, per_index, enough),
        )| {
            let mut spec = json!({"parallelism": parallelism, "backoffLimit": backoff,
                "activeDeadlineSeconds": deadline});
            if let Some(policy) = &policy {
                spec["podFailurePolicy"] = policy.clone();
            }
            if failed_only || policy.is_some() {
                spec["podReplacementPolicy"] = "Failed".into();
            }
            if let Some(completions) = completions {
                spec["completions"] = completions.into();
            }
            if let (true, Some(completions)) = (is_indexed, completions) {
                spec["completionMode"] = "Indexed".into();
                if let Some((limit, most, by_rule)) = per_index {
                    spec["backoffLimitPerIndex"] = limit.into();
                    spec["backoffLimit"] = i32::MAX.into();
                    spec["maxFailedIndexes"] = most.filter(|most| *most <= completions).into();
                    if by_rule && policy.is_some() {
                        spec["podFailurePolicy"]["rules"][1]["action"] = "FailIndex".into();
                    }
                }
                if let Some(enough) = enough.filter(|enough| *enough <= completions) {
                    spec["successPolicy"] = json!({"rules": [{"succeededCount": enough}]});
                }
            }
            spec
        },
    )
}

fn jobs() -> impl Strategy<Value = Jobs> {
    let exit = option::of((prop_oneof![3 => Just(0i64), 1 => Just(1), 1 => Just(2)], 1..4u32));
    (any::<bool>(), spec(), exit).prop_map(|(is_native, spec, exit)| Jobs {
        face: if is_native { Face::Native } else { Face::Crd },
        spec,
        exit,
    })
}

fn users() -> impl Strategy<Value = User> {
    prop_oneof![
        4 => (0..5i32).prop_map(|size| User::Patch(json!({"spec": {"parallelism": size}}))),
        3 => any::<bool>().prop_map(|suspend| User::Patch(json!({"spec": {"suspend": suspend}}))),
        2 => (0..6i32).prop_map(User::Elastic),
        1 => Just(User::Delete),
    ]
}

fn meddlers() -> impl Strategy<Value = User> {
    prop_oneof![
        6 => users(),
        1 => any::<usize>().prop_map(User::Owner),
        1 => any::<usize>().prop_map(User::Selected),
        1 => any::<usize>().prop_map(User::Finalizers),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn jobs_end_whatever_their_users_do(job in jobs(), steps in vec(calm(users()), 0..40)) {
        play(&job, &steps)?;
    }

    #[test]
    fn finished_pods_are_counted_once_whatever_the_network_does(job in jobs(), steps in vec(stormy(users()), 0..50)) {
        play(&job, &steps)?;
    }

    #[test]
    fn finished_pods_are_counted_once_whatever_fails(job in jobs(), steps in vec(hostile(meddlers()), 0..60)) {
        play(&job, &steps)?;
    }
}

fn seconds(count: usize) -> impl Iterator<Item = Step<User>> {
    std::iter::repeat_n(Step::Second, count)
}

/// After every single action the process dies, or a reply or request is lost; and every view is late by itself.
fn exhausted(spec: &Value, exit: (i64, u32)) -> usize {
    let script: Vec<_> = seconds(12).collect();
    [Face::Crd, Face::Native]
        .into_iter()
        .map(|face| exhaust(&Jobs { face, spec: spec.clone(), exit: Some(exit) }, &script).unwrap())
        .sum()
}

#[test]
fn a_job_with_a_fault_at_every_action() {
    assert!(exhausted(&json!({"parallelism": 2, "completions": 5}), (0, 1)) > 100);
}

#[test]
fn an_indexed_job_with_a_fault_at_every_action() {
    // All at once: whoever sees a success late would rightly begin another index meanwhile.
    let spec = json!({"completionMode": "Indexed", "parallelism": 5, "completions": 5,
        "successPolicy": {"rules": [{"succeededIndexes": "0-3", "succeededCount": 3}]}});
    assert!(exhausted(&spec, (0, 1)) > 100);
}

#[test]
fn a_failing_job_with_a_fault_at_every_action() {
    assert!(exhausted(&json!({"parallelism": 3, "completions": 5, "backoffLimit": 1}), (1, 2)) > 50);
    let spec =
        json!({"completionMode": "Indexed", "parallelism": 2, "completions": 3, "backoffLimitPerIndex": 0});
    assert!(exhausted(&spec, (1, 1)) > 50);
}

#[test]
fn a_job_deleted_while_it_runs_with_a_fault_at_every_action() {
    let script: Vec<_> = seconds(2).chain([Step::User(User::Delete)]).chain(seconds(4)).collect();
    for face in [Face::Crd, Face::Native] {
        let job = Jobs { face, spec: json!({"parallelism": 3, "completions": 9}), exit: None };
        assert!(exhaust(&job, &script).unwrap() > 30);
    }
}

/// A leader takes over whose view of Jobs is behind its view of pods: a living Job looks gone. Its pods finish, and
/// they are counted when the view has caught up.
#[test]
fn a_new_leader_that_sees_pods_before_their_job_lets_none_go_uncounted() {
    let seconds = |cluster: &mut Cluster, manager: &mut Manager| {
        for _ in 0..4 {
            cluster.advance(SignedDuration::from_secs(1));
            cluster.actors();
            assert!(manager.settle(cluster));
        }
    };
    let held = |pod: &Value| pod["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
    for face in [Face::Crd, Face::Native] {
        let mut cluster = Cluster::default();
        let jobs = Jobs { face, spec: json!({"parallelism": 2, "completions": 2}), exit: None };
        let mut next = Manager::with(jobs.controllers(), &cluster);
        next.set_lag_of(jobs.resource(), 100);
        jobs.set_up(&mut cluster);
        let mut leader = Manager::with(jobs.controllers(), &cluster);
        seconds(&mut cluster, &mut leader);
        drop(leader);

        cluster.kubelet.exits.insert("v1".to_owned(), Exit { after: 1, code: 0 });
        seconds(&mut cluster, &mut next);
        let pods = cluster.list(PODS);
        assert_eq!(pods.iter().filter(|pod| pod["status"]["phase"] == "Succeeded" && held(pod)).count(), 2);

        next.set_lag(0);
        seconds(&mut cluster, &mut next);
        let job = cluster.get(jobs.resource(), &Jobs::key()).unwrap();
        assert_eq!(job["status"]["succeeded"], 2, "{}", job["status"]);
        assert!(!cluster.list(PODS).iter().any(|pod| held(pod)));
        assert_eq!(cluster.invariants.violations(), [""; 0]);
    }
}

/// A status write per batch, not per pod: the finalizer is the one write that each pod costs.
#[test]
fn writes_per_finished_pod_are_few() {
    let job =
        Jobs { face: Face::Native, spec: json!({"parallelism": 40, "completions": 400}), exit: Some((0, 1)) };
    let mut world = trysail_testkit::property::World::new(&job);
    let pods = world.play(&[]).unwrap();
    let beyond_creates = world.manager.actions - pods;
    assert_eq!(pods, 400);
    assert!(beyond_creates <= 440, "{beyond_creates} writes for {pods} finished pods");
}
