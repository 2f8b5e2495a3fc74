//! How the process sees the cluster: late, with gaps, and twice.

use serde_json::json;
use trysail_core::{Face, Resource, resource::PODS};
use trysail_testkit::{Cluster, Manager, cluster::Writer, fixtures, kinds};

use crate::{create, key};

fn pods(cluster: &Cluster) -> usize {
    cluster.list(PODS).len()
}

fn stage(replicas: i32) -> (Cluster, Manager) {
    let mut cluster = Cluster::default();
    let sets = Resource::replica_sets(Face::Crd);
    create(&mut cluster, sets, fixtures::replica_set(Face::Crd, "web", replicas, "v1"));
    let manager = Manager::with(vec![kinds::replica_sets(Face::Crd)], &cluster);
    (cluster, manager)
}

fn scale(cluster: &mut Cluster, replicas: i32) {
    let patch = json!({"spec": {"replicas": replicas}});
    let sets = Resource::replica_sets(Face::Crd);
    cluster.patch(sets, &key("web"), (None, 0), None, &patch, Writer::Other).unwrap();
}

/// One resource may be late while another one is not.
#[test]
fn views_are_late_each_on_its_own() {
    let (mut cluster, mut manager) = stage(1);
    assert!(manager.settle(&mut cluster));
    manager.set_lag_of(Resource::replica_sets(Face::Crd), 1);
    scale(&mut cluster, 3);
    assert!(manager.settle(&mut cluster));
    assert_eq!(pods(&cluster), 1);
    manager.set_lag_of(Resource::replica_sets(Face::Crd), 0);
    assert!(manager.settle(&mut cluster));
    assert_eq!(pods(&cluster), 3);
}

/// What happened while the watch was cut shows in the list that follows.
#[test]
fn a_gap_ends_with_a_list() {
    let (mut cluster, mut manager) = stage(2);
    assert!(manager.settle(&mut cluster));
    manager.miss_events(PODS, 2);
    let first = cluster.list(PODS)[0].clone();
    let name = first["metadata"]["name"].as_str().unwrap();
    cluster.delete(PODS, &key(name), None, Writer::Other).unwrap();
    assert!(manager.settle(&mut cluster));
    assert_eq!(pods(&cluster), 1, "the second event of the gap is still to come");
    cluster.create(PODS, fixtures::pod("other", "none"), Writer::Other).unwrap();
    assert!(manager.settle(&mut cluster));
    assert_eq!(pods(&cluster), 3);
}

#[test]
fn an_event_that_comes_twice_changes_nothing() {
    let (mut cluster, mut manager) = stage(3);
    assert!(manager.settle(&mut cluster));
    let revision = cluster.revision();
    manager.repeat_events(PODS, 3);
    assert!(manager.settle(&mut cluster));
    assert_eq!((cluster.revision(), pods(&cluster)), (revision, 3));
}

/// At rest nothing is due; what is refused, held or overtaken is.
#[test]
fn the_backlog_says_what_is_open() {
    let (mut cluster, mut manager) = stage(2);
    cluster.policy.pod_quota = Some(1);
    assert!(manager.settle(&mut cluster));
    assert!(manager.backlog(&cluster).iter().any(|line| line.contains("refused: exceeded quota")));
    cluster.policy.pod_quota = None;
    cluster.advance(jiff::SignedDuration::from_secs(40));
    assert!(manager.settle(&mut cluster));
    assert_eq!((manager.backlog(&cluster), pods(&cluster)), (Vec::new(), 2));
}

/// Requests that never arrive and replies that get lost lead to the same pods.
#[test]
fn what_is_lost_is_made_up_for() {
    for after in 0..3 {
        let (mut cluster, mut manager) = stage(3);
        manager.faults.lose_request_after = Some(after);
        assert!(manager.settle(&mut cluster));
        assert_eq!(cluster.created(PODS), 3);
        let (mut cluster, mut manager) = stage(3);
        manager.faults.lose_reply_after = Some(after);
        assert!(manager.settle(&mut cluster));
        assert_eq!(cluster.created(PODS), 3);
    }
}
