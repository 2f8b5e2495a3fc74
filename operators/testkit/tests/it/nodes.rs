//! Nodes and where pods go.

use serde_json::{Value, json};
use trysail_core::{
    Key,
    resource::{NODES, PODS},
};
use trysail_testkit::Cluster;

use crate::{create, key, phase, pod, ticks};

fn nodes(names: &[&str]) -> Cluster {
    let mut cluster = Cluster::default();
    for name in names {
        cluster.add_node(name, &json!({"name": name})).unwrap();
    }
    cluster
}

fn node_of(cluster: &Cluster, name: &str) -> Option<String> {
    cluster.get(PODS, &key(name))?["spec"]["nodeName"].as_str().map(str::to_owned)
}

/// What a DaemonSet's pod says about its node.
fn bound_to(node: &str) -> Value {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let terms = json!([{"matchFields": [field]}]);
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
}

#[test]
fn pods_go_where_their_affinity_says_when_they_may() {
    let mut cluster = nodes(&["w1", "w2", "w3"]);
    create(&mut cluster, PODS, pod("a", &bound_to("w2"), &json!({})));
    create(&mut cluster, PODS, pod("b", &json!({"nodeSelector": {"name": "w3"}}), &json!({})));
    ticks(&mut cluster, 1);
    assert_eq!(node_of(&cluster, "a").as_deref(), Some("w2"));
    assert_eq!(node_of(&cluster, "b").as_deref(), Some("w3"));

    cluster.cordon("w1", true);
    create(&mut cluster, PODS, pod("c", &bound_to("w1"), &json!({})));
    let tolerations =
        json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}]);
    let mut tolerant = bound_to("w1");
    tolerant["tolerations"] = tolerations;
    create(&mut cluster, PODS, pod("d", &tolerant, &json!({})));
    ticks(&mut cluster, 2);
    assert_eq!((node_of(&cluster, "c"), node_of(&cluster, "d").as_deref()), (None, Some("w1")));
    cluster.cordon("w1", false);
    ticks(&mut cluster, 1);
    assert_eq!(node_of(&cluster, "c").as_deref(), Some("w1"));
}

#[test]
fn a_taken_host_port_is_no_place() {
    let mut cluster = nodes(&["w1"]);
    let port = |name: &str| {
        let containers = json!([{"name": "main", "image": "any", "ports": [{"hostPort": 80}]}]);
        pod(name, &json!({"containers": containers}), &json!({}))
    };
    create(&mut cluster, PODS, port("a"));
    create(&mut cluster, PODS, port("b"));
    ticks(&mut cluster, 3);
    assert_eq!((node_of(&cluster, "a").is_some(), node_of(&cluster, "b")), (true, None));
}

/// A silent node: pods count as not ready and have to go, but for those that tolerate it; nothing ends before it
/// is back.
#[test]
fn pods_leave_a_node_that_is_down() {
    let mut cluster = nodes(&["w1"]);
    let unreachable = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists"}]);
    create(&mut cluster, PODS, pod("a", &json!({}), &json!({})));
    create(&mut cluster, PODS, pod("b", &json!({"tolerations": unreachable}), &json!({})));
    ticks(&mut cluster, 5);
    cluster.node_down("w1");
    let is_ready = |cluster: &Cluster, name: &str| {
        cluster.get(PODS, &key(name)).unwrap()["status"]["conditions"][0]["status"] == "True"
    };
    assert!(!is_ready(&cluster, "a") && !is_ready(&cluster, "b"));
    ticks(&mut cluster, 20);
    let is_going =
        |name: &str| cluster.get(PODS, &key(name)).unwrap()["metadata"]["deletionTimestamp"].is_string();
    assert_eq!((is_going("a"), is_going("b")), (true, false));
    cluster.node_up("w1");
    ticks(&mut cluster, 5);
    assert_eq!((phase(&cluster, "a"), is_ready(&cluster, "b")), (None, true));
}

#[test]
fn pods_of_a_node_that_is_gone_fail_and_vanish() {
    let mut cluster = nodes(&["w1", "w2"]);
    create(&mut cluster, PODS, pod("a", &bound_to("w1"), &json!({})));
    create(&mut cluster, PODS, pod("b", &bound_to("w1"), &json!({"finalizers": ["x/job-tracking"]})));
    ticks(&mut cluster, 4);
    cluster.remove_node("w1");
    assert!(cluster.get(NODES, &Key::new("", "w1")).is_none());
    ticks(&mut cluster, 6);
    assert_eq!((phase(&cluster, "a"), phase(&cluster, "b").as_deref()), (None, Some("Failed")));
    let revision = cluster.revision();
    ticks(&mut cluster, 6);
    assert_eq!(cluster.revision(), revision, "what waits for its finalizers is left alone");
}

#[test]
fn a_taint_that_executes_puts_pods_out() {
    let mut cluster = nodes(&["w1"]);
    create(&mut cluster, PODS, pod("a", &json!({}), &json!({})));
    ticks(&mut cluster, 4);
    cluster.taint("w1", "team", "blue", Some("NoExecute"));
    ticks(&mut cluster, 5);
    assert_eq!(phase(&cluster, "a"), None);
    cluster.taint("w1", "team", "", None);
    create(&mut cluster, PODS, pod("b", &json!({}), &json!({})));
    ticks(&mut cluster, 4);
    assert_eq!(phase(&cluster, "b").as_deref(), Some("Running"));
}
