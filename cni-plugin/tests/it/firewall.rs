//! Masquerading, host ports, pinned sources, and the table itself as nft sees it.

use serde_json::{Value, json};

use crate::attach::talk;
use crate::sandbox::{Namespace, Node, ip};

/// A network behind the node, which knows no pods.
fn outside(node: &Node) -> Namespace {
    let outside = Namespace::new();
    node.net.sh(&format!(
        "ip link add up0 type veth peer name out0 netns {} && sysctl -qw net.ipv6.conf.up0.accept_dad=0 && ip link set up0 up \
         && ip addr add 192.168.7.1/24 dev up0 && ip addr add fd77::1/64 dev up0 nodad && ip route add default via 192.168.7.2",
        outside.pid()
    ));
    outside.sh("sysctl -qw net.ipv6.conf.out0.accept_dad=0 && ip addr add 192.168.7.2/24 dev out0 && ip addr add fd77::2/64 dev out0 nodad && ip link set out0 up && ip link set lo up");
    outside
}

fn with_port(node: &Node, mapping: &Value) -> Value {
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "portMappings": [mapping] });
    conf
}

/// Out of the cluster with the node's address, to excluded destinations with the pod's own.
#[test]
fn only_what_leaves_the_cluster_is_masqueraded() {
    let (node, pod) = (Node::new(), Namespace::new());
    let outside = outside(&node);
    outside.sh("ip route add 10.244.0.0/16 via 192.168.7.1");
    let mut conf = node.conf();
    let result = node.add("c1", &pod, &conf);
    let seen = || talk((&outside, "0.0.0.0:80"), (&pod, "192.168.7.2:80"));
    assert_eq!(seen().as_deref(), Some("192.168.7.1"));
    // The next pod brings a changed configuration, which counts for all at once.
    conf["masquerade"] = json!({ "exclude": ["192.168.0.0/16"] });
    let other = Namespace::new();
    node.add("c2", &other, &conf);
    assert_eq!(seen(), Some(ip(&result, 0)));
}

/// From outside, from the node's loopback, from the pod itself; and not for traffic that is meant for others.
#[test]
fn host_ports_lead_to_the_pod_from_everywhere() {
    let (node, pod, neighbour) = (Node::new(), Namespace::new(), Namespace::new());
    let outside = outside(&node);
    let conf = with_port(&node, &json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }));
    let result = node.add("c1", &pod, &conf);
    let other = node.add("c2", &neighbour, &node.conf());
    let at = |client: &Namespace, target: &str| talk((&pod, "0.0.0.0:80"), (client, target));
    assert_eq!(at(&outside, "192.168.7.1:8080").as_deref(), Some("192.168.7.2"), "the client's own address");
    assert!(at(&node.net, "192.168.7.1:8080").is_some(), "from the node");
    assert!(at(&node.net, "127.0.0.1:8080").is_some(), "from the node's loopback");
    assert!(at(&pod, "192.168.7.1:8080").is_some(), "hairpin");
    assert_eq!(at(&neighbour, "192.168.7.1:8080"), Some(ip(&other, 0)), "from a neighbour");
    let v6 = talk((&pod, "[::]:80"), (&outside, "[fd77::1]:8080"));
    assert_eq!(v6.as_deref(), Some("fd77::2"));
    // The same port of another machine is that machine's.
    assert!(talk((&outside, "0.0.0.0:8080"), (&neighbour, "192.168.7.2:8080")).is_some());
    node.check("c1", &pod, &conf, &result).ok();
    // Taken.
    let third = Namespace::new();
    let refused = node.call("ADD", "c3", &third.path(), &conf).error();
    assert_eq!(refused.0, 101);
    assert!(refused.1.contains("8080/tcp already leads to pod shop/pod-c1"), "{}", refused.1);
    node.del("c1", &pod, &conf);
    assert!(at(&outside, "192.168.7.1:8080").is_none());
    node.add("c3", &third, &conf);
}

/// The conformance spec's three pods on one port number.
#[test]
fn one_port_number_serves_several_addresses_and_protocols() {
    let node = Node::new();
    let outside = outside(&node);
    let pods: Vec<Namespace> = (0..3).map(|_| Namespace::new()).collect();
    for (index, (host_ip, protocol)) in
        [("127.0.0.1", "tcp"), ("192.168.7.1", "tcp"), ("192.168.7.1", "udp")].into_iter().enumerate()
    {
        let mapping =
            json!({ "hostPort": 54323, "containerPort": 80, "protocol": protocol, "hostIP": host_ip });
        node.add(&format!("c{index}"), &pods[index], &with_port(&node, &mapping));
    }
    let at =
        |server: &Namespace, client: &Namespace, target: &str| talk((server, "0.0.0.0:80"), (client, target));
    assert!(at(&pods[0], &node.net, "127.0.0.1:54323").is_some());
    assert!(at(&pods[1], &outside, "192.168.7.1:54323").is_some());
    assert!(at(&pods[0], &outside, "192.168.7.1:54323").is_none());
}

/// A client that never pauses: its flow was decided before the pod came, again when the pod went, and must follow.
#[test]
fn udp_clients_follow_the_port() {
    use std::net::UdpSocket;
    use std::time::Duration;
    let (node, first, second) = (Node::new(), Namespace::new(), Namespace::new());
    let outside = outside(&node);
    let conf = with_port(&node, &json!({ "hostPort": 5353, "containerPort": 53, "protocol": "udp" }));
    let client = outside.run(|| UdpSocket::bind("192.168.7.2:4000").unwrap());
    let send = || {
        // An earlier ICMP error is reported by the next call.
        let _ =
            client.send_to(b"x", "192.168.7.1:5353").or_else(|_| client.send_to(b"x", "192.168.7.1:5353"));
    };
    let hears = |pod: &Namespace| {
        let server = pod.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        (0..5).any(|_| {
            send();
            server.recv(&mut [0; 8]).is_ok()
        })
    };
    send();
    node.add("c1", &first, &conf);
    assert!(hears(&first), "the flow of before the pod");
    node.del("c1", &first, &conf);
    send();
    node.add("c2", &second, &conf);
    assert!(hears(&second), "the flow of the pod before");
}

/// A pod speaks with its own addresses or not at all, and does not reach the node's loopback.
#[test]
fn a_pod_cannot_pretend() {
    let (node, pod, victim) = (Node::new(), Namespace::new(), Namespace::new());
    let conf = with_port(&node, &json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }));
    node.add("c1", &pod, &conf);
    node.add("c2", &victim, &node.conf());
    let to_node = || talk((&node.net, "0.0.0.0:99"), (&pod, "10.0.0.1:99"));
    assert!(to_node().is_some());
    pod.sh("ip addr add 10.244.1.3/32 dev eth0 && ip route replace default via 169.254.1.1 dev eth0 src 10.244.1.3");
    assert!(to_node().is_none(), "the neighbour's address");
    pod.sh("ip route replace default via 169.254.1.1 dev eth0 src 10.244.1.2");
    assert!(to_node().is_some());
    // The node's link lets replies of 127.0.0.1 in; a pod's own packets to it must not pass.
    pod.sh("ip link set lo down; ip route add 127.0.0.0/8 via 169.254.1.1 dev eth0 onlink src 10.244.1.2; \
         sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1");
    assert!(talk((&node.net, "127.0.0.1:98"), (&pod, "127.0.0.1:98")).is_none());
}

/// Somebody flushed the ruleset: the next pod's ADD brings everything back, for the older pods too.
#[test]
fn a_flushed_ruleset_comes_back() {
    let (node, one, two) = (Node::new(), Namespace::new(), Namespace::new());
    let conf = with_port(&node, &json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }));
    let first = node.add("c1", &one, &conf);
    node.net.sh("nft flush ruleset");
    assert_eq!(node.check("c1", &one, &conf, &first).error().0, 104);
    node.add("c2", &two, &node.conf());
    node.check("c1", &one, &conf, &first).ok();
    node.net.sh("nft flush ruleset");
    node.del("c1", &one, &conf);
    node.del("c2", &two, &conf);
}

/// The kernel has the rules that nft would have made of this text: every expression of ours, byte for byte, as far as
/// nft can read it back.
#[test]
fn nft_reads_the_table_as_it_was_meant() {
    let (node, pod) = (Node::new(), Namespace::new());
    let mut conf = node.conf();
    conf["masquerade"] = json!({ "exclude": ["10.244.0.0/16", "fd00::/16"] });
    conf["runtimeConfig"] = json!({ "portMappings": [
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "127.0.0.1" },
        { "hostPort": 54, "containerPort": 5354, "protocol": "sctp", "hostIP": "fd77::1" } ] });
    node.add("c1", &pod, &conf);
    let link = node.net.sh("ip -br link | grep -o '^tsv[a-z0-9]*'");
    let reference = Namespace::new();
    let text = include_str!("table.nft").replace("LINK", link.trim());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("table.nft");
    std::fs::write(&file, text).unwrap();
    reference.sh(&format!("nft -f {}", file.display()));
    let list = |namespace: &Namespace| {
        let mut table = namespace.sh("nft -s list table inet trysail-cni").replace('\t', "  ");
        table = table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        table
    };
    assert_eq!(list(&node.net), list(&reference));
    // And below nft's own reading: the expressions as the kernel has them.
    let debug = |namespace: &Namespace| {
        let text = namespace.sh("nft --debug=netlink list table inet trysail-cni 2>&1");
        let expressions = text.lines().filter(|line| line.starts_with("  [ "));
        expressions.map(str::trim_end).collect::<Vec<_>>().join("\n")
    };
    let expected = debug(&reference);
    assert!(expected.lines().count() > 60, "{expected}");
    assert_eq!(debug(&node.net), expected);
}
