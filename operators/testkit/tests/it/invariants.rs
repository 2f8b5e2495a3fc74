//! Each invariant is broken on purpose: a judge that never speaks is none.

use serde_json::{Value, json};
use trysail_core::{Face, Resource, resource::PODS};
use trysail_testkit::{Cluster, cluster::Writer, fixtures};

use crate::{controlled_by, create, key, pod};

const TRACKING: &str = "batch.kubernetes.io/job-tracking";

fn make(cluster: &mut Cluster, name: &str, spec: &Value, metadata: &Value) {
    cluster.create(PODS, pod(name, spec, metadata), Writer::Controller).unwrap();
}

fn write(cluster: &mut Cluster, resource: Resource, name: &str, subresource: Option<&str>, body: &Value) {
    cluster.patch(resource, &key(name), (None, 0), subresource, body, Writer::Controller).unwrap();
}

/// What was found, and no more.
fn found(cluster: &Cluster, words: &[&str]) {
    let violations = cluster.invariants.violations();
    let is_expected = violations.len() == words.len()
        && words.iter().zip(violations).all(|(word, violation)| violation.contains(word));
    assert!(is_expected, "{words:?}: {violations:#?}");
}

#[test]
fn ordinals_are_taken_once_in_order_and_within_the_range() {
    let mut cluster = Cluster::default();
    let set = create(
        &mut cluster,
        Resource::stateful_sets(Face::Crd),
        fixtures::stateful_set(Face::Crd, "db", 3, "v1"),
    );
    let owned = json!({"ownerReferences": controlled_by(&set)});
    make(&mut cluster, "db-0", &json!({}), &owned);
    found(&cluster, &[]);
    make(&mut cluster, "db-1", &json!({}), &owned);
    found(&cluster, &["db-1: created before ordinal 0 is ready"]);
    cluster.make_ready(&key("db-0"), true);
    cluster.make_ready(&key("db-1"), true);
    make(&mut cluster, "db-2", &json!({}), &owned);
    cluster.make_ready(&key("db-2"), true);
    make(&mut cluster, "db-3", &json!({}), &owned);
    make(&mut cluster, "db-00", &json!({}), &owned);
    let violations = cluster.invariants.violations().join("\n");
    assert!(violations.contains("db-3: created outside of 0..3"), "{violations}");
    assert!(violations.contains("db-00: a second pod of ordinal 0"), "{violations}");
}

#[test]
fn a_node_has_one_pod_of_a_daemon_set_or_two_in_a_surge() {
    for (surge, allowed) in [(0, 1), (1, 2)] {
        let mut cluster = Cluster::default();
        let mut manifest = fixtures::daemon_set(Face::Native, "agent", "v1");
        manifest["spec"]["updateStrategy"]["rollingUpdate"] =
            json!({"maxSurge": surge, "maxUnavailable": 1 - surge});
        let set = create(&mut cluster, Resource::daemon_sets(Face::Native), manifest);
        let owned = json!({"ownerReferences": controlled_by(&set)});
        let on = json!({"nodeName": "w1"});
        for number in 0..allowed {
            make(&mut cluster, &format!("agent-{number}"), &on, &owned);
        }
        // One that is on its way out does not count.
        cluster.delete(PODS, &key("agent-0"), None, Writer::Other).unwrap();
        make(&mut cluster, "agent-new", &on, &owned);
        make(&mut cluster, "agent-far", &json!({"nodeName": "w2"}), &owned);
        found(&cluster, &[]);
        make(&mut cluster, "agent-more", &on, &owned);
        found(&cluster, &["pods of agent on w1"]);
    }
}

struct Counted {
    cluster: Cluster,
    jobs: Resource,
    uid: String,
}

/// A Job with a pod that has succeeded.
fn counted() -> Counted {
    let mut cluster = Cluster::default();
    let jobs = Resource::jobs(Face::Native);
    let mut manifest = fixtures::job(Face::Native, "sum", "v1");
    manifest["spec"]["completions"] = 2.into();
    let job = create(&mut cluster, jobs, manifest);
    let metadata = json!({"ownerReferences": controlled_by(&job), "finalizers": [TRACKING]});
    make(&mut cluster, "sum-a", &json!({"restartPolicy": "Never"}), &metadata);
    cluster.exit(&key("sum-a"), 0);
    let uid = cluster.get(PODS, &key("sum-a")).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    Counted { cluster, jobs, uid }
}

impl Counted {
    fn status(&mut self, uncounted: &[&str], succeeded: i64) {
        let status = json!({"uncountedTerminatedPods": {"succeeded": uncounted}, "succeeded": succeeded});
        write(&mut self.cluster, self.jobs, "sum", Some("status"), &json!({"status": status}));
    }

    fn release(&mut self) {
        write(&mut self.cluster, PODS, "sum-a", None, &json!({"metadata": {"finalizers": []}}));
    }
}

#[test]
fn listed_released_counted_is_the_right_order() {
    let mut right = counted();
    let uid = right.uid.clone();
    right.status(&[&uid], 0);
    right.release();
    right.status(&[], 1);
    found(&right.cluster, &[]);
    right.status(&[&uid], 1);
    found(&right.cluster, &["a second time"]);
}

#[test]
fn a_pod_that_is_released_before_it_is_listed_is_lost() {
    let mut wrong = counted();
    wrong.release();
    found(&wrong.cluster, &["taken off before it was counted"]);
}

#[test]
fn a_pod_that_is_counted_before_it_is_released_may_be_counted_twice() {
    let mut wrong = counted();
    let uid = wrong.uid.clone();
    wrong.status(&[&uid], 0);
    wrong.status(&[], 1);
    found(&wrong.cluster, &["while its finalizer is on"]);
}

#[test]
fn counters_grow_by_what_was_listed() {
    let mut wrong = counted();
    wrong.status(&[], 1);
    found(&wrong.cluster, &["grew by 1 though 0 pods left"]);
    let mut unfinished = counted();
    unfinished.status(&["nobody"], 0);
    found(&unfinished.cluster, &["which it has not"]);
}

#[test]
fn a_decided_job_gets_no_pod() {
    let mut cluster = Cluster::default();
    let jobs = Resource::jobs(Face::Crd);
    let job = create(&mut cluster, jobs, fixtures::job(Face::Crd, "sum", "v1"));
    let owned = json!({"ownerReferences": controlled_by(&job)});
    make(&mut cluster, "sum-a", &json!({}), &owned);
    found(&cluster, &[]);
    let met = json!([{"type": "FailureTarget", "status": "True"}]);
    write(&mut cluster, jobs, "sum", Some("status"), &json!({"status": {"conditions": met}}));
    make(&mut cluster, "sum-b", &json!({}), &owned);
    found(&cluster, &["sum-b: created after its Job has FailureTarget"]);
}

#[test]
fn a_forbidding_cron_job_has_one_job() {
    let mut cluster = Cluster::default();
    let mut manifest = fixtures::cron_job(Face::Crd, "tick", "* * * * *", "v1");
    manifest["spec"]["concurrencyPolicy"] = "Forbid".into();
    let cron = create(&mut cluster, Resource::cron_jobs(Face::Crd), manifest);
    let mut made = |name: &str| {
        let mut job = fixtures::job(Face::Crd, name, "v1");
        job["metadata"]["ownerReferences"] = controlled_by(&cron);
        cluster.create(Resource::jobs(Face::Crd), job, Writer::Controller).unwrap();
        cluster.invariants.violations().len()
    };
    assert_eq!((made("tick-1"), made("tick-2")), (0, 1));
}
