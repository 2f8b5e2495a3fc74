//! Pods come, talk and go.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::{Namespace, Node, ip};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Another test's child process may hold the last round's socket for the moment between its fork and its exec.
fn listen(address: &str) -> TcpListener {
    let deadline = std::time::Instant::now() + TIMEOUT;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Connects from one namespace to a listener in another. `Some`: whom the listener saw.
pub(crate) fn talk(server: (&Namespace, &str), client: (&Namespace, &str)) -> Option<String> {
    let listener = server.0.run(|| listen(server.1));
    std::thread::scope(|scope| {
        let seen = scope.spawn(|| {
            listener.set_nonblocking(true).unwrap();
            let deadline = std::time::Instant::now() + TIMEOUT;
            loop {
                if let Ok((mut stream, from)) = listener.accept() {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                    let mut byte = [0];
                    let echoed = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
                    return echoed.ok().map(|()| from.ip().to_string());
                }
                if std::time::Instant::now() > deadline {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let heard = client.0.run(|| {
            let mut stream = TcpStream::connect_timeout(&client.1.parse().unwrap(), TIMEOUT).ok()?;
            stream.set_read_timeout(Some(TIMEOUT)).ok()?;
            stream.write_all(b"x").ok()?;
            stream.read_exact(&mut [0]).ok()
        });
        let seen = seen.join().unwrap();
        heard.and(seen)
    })
}

/// Two pods of a node see each other's own addresses, in both families, and nothing of them stays.
#[test]
fn pods_of_a_node_talk_and_leave_nothing() {
    let node = Node::new();
    let conf = node.conf();
    let baseline = node.remains();
    let (one, two) = (Namespace::new(), Namespace::new());
    let (first, second) = (node.add("c1", &one, &conf), node.add("c2", &two, &conf));
    for (index, wildcard) in [(0, "0.0.0.0:80"), (1, "[::]:80")] {
        let target = ip(&second, index);
        let target = if index == 0 { format!("{target}:80") } else { format!("[{target}]:80") };
        assert_eq!(talk((&two, wildcard), (&one, &target)), Some(ip(&first, index)), "to {target}");
        // A kubelet's probe.
        assert!(talk((&two, wildcard), (&node.net, &target)).is_some(), "from the node to {target}");
    }
    node.check("c1", &one, &conf, &first).ok();
    node.del("c1", &one, &conf);
    node.del("c1", &one, &conf);
    node.check("c2", &two, &conf, &second).ok();
    let gone = node.check("c1", &one, &conf, &first).error();
    assert_eq!(gone.0, 104, "{}", gone.1);
    // The runtime has removed the namespace, and its cache is lost.
    drop(two);
    node.call("DEL", "c2", "", &conf).ok();
    assert_eq!(node.remains(), baseline);
}

/// Two nodes on one wire, each with a route to the other's pods: everybody sees the pods' own addresses, although both
/// nodes masquerade what leaves the cluster.
#[test]
fn pods_of_two_nodes_talk_without_translation() {
    let (left, right) = (Node::new(), Node::new());
    left.net.sh(&format!("ip link add eth1 type veth peer name eth1 netns {}", right.net.pid()));
    for (node, own, other) in [(&left, 1, 2), (&right, 2, 1)] {
        node.net.sh(&format!(
            "sysctl -qw net.ipv6.conf.eth1.accept_dad=0 && ip addr add 192.168.8.{own}/24 dev eth1 && ip addr add fd88::{own}/64 dev eth1 nodad && ip link set eth1 up \
             && ip route add 10.244.{other}.0/24 via 192.168.8.{other} && ip route add fd00:{other}::/64 via fd88::{other}"
        ));
    }
    let conf = |node: &Node, own: u8| {
        let mut conf = node.conf();
        conf["ipam"] = json!({ "ranges": [
            [{ "subnet": format!("10.244.{own}.0/24") }], [{ "subnet": format!("fd00:{own}::/64") }] ] });
        conf["masquerade"] =
            json!({ "exclude": ["10.244.0.0/16", "fd00::/16", "192.168.8.0/24", "fd88::/64"] });
        conf
    };
    let (one, two) = (Namespace::new(), Namespace::new());
    let first = left.add("c1", &one, &conf(&left, 1));
    let second = right.add("c1", &two, &conf(&right, 2));
    let (v4, v6) = (format!("{}:80", ip(&second, 0)), format!("[{}]:80", ip(&second, 1)));
    assert_eq!(talk((&two, "0.0.0.0:80"), (&one, &v4)), Some(ip(&first, 0)));
    assert_eq!(talk((&two, "[::]:80"), (&one, &v6)), Some(ip(&first, 1)));
    assert_eq!(talk((&two, "0.0.0.0:80"), (&left.net, &v4)).as_deref(), Some("192.168.8.1"), "from a node");
    assert_eq!(talk((&left.net, "0.0.0.0:81"), (&two, "192.168.8.1:81")), Some(ip(&second, 0)), "to a node");
}

/// Names, addresses and routes, exactly as each version of the specification writes them.
#[test]
fn the_result_is_of_the_version_that_was_asked_for() {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (node, pod) = (Node::new(), Namespace::new());
        let mut conf = node.conf();
        conf["cniVersion"] = json!(version);
        let result = node.add("c1", &pod, &conf);
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0]["address"], "10.244.1.2/32");
        assert_eq!(result["ips"][0]["interface"], 1);
        assert_eq!(result["ips"][0]["version"], if version < "1.0.0" { json!("4") } else { Value::Null });
        assert_eq!(
            result["interfaces"][1]["mtu"],
            if version == "1.1.0" { json!(1450) } else { Value::Null }
        );
        assert_eq!(result["interfaces"][1]["sandbox"], pod.path());
        assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]));
        let mac = result["interfaces"][1]["mac"].as_str().unwrap();
        assert!(pod.sh("ip link show eth0").contains(mac));
    }
}

/// What a runtime retries, and what it gets wrong.
#[test]
fn repeated_calls_are_told_apart() {
    let (node, pod, other) = (Node::new(), Namespace::new(), Namespace::new());
    let conf = node.conf();
    node.add("c1", &pod, &conf);
    let before = node.remains();
    let twice = node.call("ADD", "c1", &pod.path(), &conf).error();
    assert_eq!(twice.0, 106, "{}", twice.1);
    // Another attachment wants the same name in the same namespace.
    assert_eq!(node.call("ADD", "c9", &pod.path(), &conf).error().0, 106);
    assert_eq!(node.remains(), before);
    // A path that was reused: the namespace of another pod must keep its interface.
    node.add("c2", &other, &conf);
    node.del("c1", &other, &conf);
    assert!(other.sh("ip link show eth0").contains("eth0"));
    let links = node.net.sh("ip -br link | grep -c ^tsv");
    assert_eq!(links.trim(), "1");
}

/// Somebody renamed the link: the record and the pod's end still lead to it.
#[test]
fn a_renamed_link_is_found() {
    let (node, pod) = (Node::new(), Namespace::new());
    let conf = node.conf();
    let baseline = node.remains();
    node.add("c1", &pod, &conf);
    node.net
        .sh("l=$(ip -br link | grep -o '^tsv[a-z0-9]*'); ip link set $l down; ip link set $l name stray0");
    node.del("c1", &pod, &conf);
    assert_eq!(node.remains(), baseline);
}

/// Every leak that can be made by hand, and an attachment that must survive.
#[test]
fn gc_removes_what_is_not_alive() {
    let node = Node::new();
    let conf = node.conf();
    let mut pods: Vec<Namespace> = (0..4).map(|_| Namespace::new()).collect();
    let keep = node.add("keep", &pods[0], &conf);
    let baseline = node.remains();
    node.add("dead", &pods[1], &conf);
    node.add("lost", &pods[2], &conf);
    // A link of ours that no record names, and elements of nobody.
    node.net.sh("ip link add tsvaaaaaaaaaaaa type veth peer name x0");
    node.net.sh("nft add element inet trysail-cni masqueraded4 { 10.244.1.99 }");
    let mut other = conf.clone();
    other["name"] = json!("others");
    other["ipam"]["ranges"] = json!([[{ "subnet": "10.9.9.0/24" }]]);
    node.add("elsewhere", &pods[3], &other);
    node.gc(&["keep"], &conf).ok();
    // Another network's attachment is not in the list, and not concerned.
    assert!(pods[3].sh("ip -4 addr show eth0").contains("10.9.9.2"));
    node.del("elsewhere", &pods[3], &other);
    assert_eq!(node.remains(), baseline);
    node.check("keep", &pods[0], &conf, &keep).ok();
    // Without a list, only what is surely dead: here the namespace is.
    let gone = pods.pop().unwrap();
    node.add("gone", &gone, &conf);
    drop(gone);
    node.call("GC", "", "", &conf).ok();
    assert_eq!(node.remains(), baseline);
    node.check("keep", &pods[0], &conf, &keep).ok();
}

/// What an agent does each minute under a runtime that never calls GC: seen twice, and only then.
#[test]
fn pods_whose_namespace_is_gone_are_collected() {
    use trysail_cni::node::Node as Kernel;
    use trysail_cni::store::Store;
    use trysail_cni::verbs::collect_gone;
    let (node, keep, lost) = (Node::new(), Namespace::new(), Namespace::new());
    let conf = node.conf();
    let kept = node.add("keep", &keep, &conf);
    let baseline = node.remains();
    node.add("lost", &lost, &conf);
    let store = Store::new(&node.data_dir());
    let collect = |suspects| {
        node.net.run(|| collect_gone(&mut Kernel::open(&store).unwrap(), &store, &suspects).unwrap())
    };
    let none = std::collections::BTreeSet::new;
    assert_eq!(collect(none()), (none(), 0));
    drop(lost);
    let (suspects, removed) = collect(none());
    assert_eq!((suspects.len(), removed), (1, 0));
    assert_eq!(collect(suspects), (none(), 1));
    assert_eq!(node.remains(), baseline);
    node.check("keep", &keep, &conf, &kept).ok();
}

/// Uninstalled by hand, with pods that are still there.
#[test]
fn cleanup_leaves_the_node_as_it_was() {
    let node = Node::new();
    let pods: Vec<Namespace> = (0..3).map(|_| Namespace::new()).collect();
    let mut conf = node.conf();
    let before = node.net.sh("ip addr; ip route; ip -6 route; ip neigh; nft list ruleset; tc qdisc");
    for (index, pod) in pods.iter().enumerate() {
        conf["runtimeConfig"] = json!({
            "portMappings": [{ "hostPort": 8080 + index, "containerPort": 80, "protocol": "tcp" }],
            "bandwidth": { "egressRate": 1_000_000, "egressBurst": 1_000_000 } });
        node.add(&format!("c{index}"), pod, &conf);
    }
    let mut command = std::process::Command::new(crate::sandbox::PLUGIN);
    command.arg("cleanup").arg(node.data_dir());
    let output = node.net.run(|| command.output().unwrap());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.starts_with("removed 3 attachments"), "{output:?}");
    let after = node.net.sh("ip addr; ip route; ip -6 route; ip neigh; nft list ruleset; tc qdisc");
    assert_eq!(after, before);
    assert_eq!(std::fs::read_dir(node.data_dir()).unwrap().count(), 0);
}

/// Wanted hardware and IP addresses, the way multus asks for them.
#[test]
fn a_pod_may_ask_for_its_addresses() {
    let (node, pod) = (Node::new(), Namespace::new());
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "mac": "02:11:22:33:44:56", "ips": ["fd00:1::77/64", "10.244.1.77"] });
    let result = node.add("c1", &pod, &conf);
    assert_eq!([ip(&result, 0), ip(&result, 1)], ["10.244.1.77", "fd00:1::77"]);
    assert!(pod.sh("ip link show eth0").contains("02:11:22:33:44:56"));
    node.check("c1", &pod, &conf, &result).ok();
}

/// The bridge for both values of the setting that decides about its ports; pods reach each other and the node.
#[test]
fn pods_on_a_bridge_talk_whatever_the_sysctl_says() {
    for netfilter in ["0", "1"] {
        let (node, one, two) = (Node::new(), Namespace::new(), Namespace::new());
        node.net.sh(&format!("echo {netfilter} > /proc/sys/net/bridge/bridge-nf-call-iptables"));
        let mut conf = node.conf();
        conf["mode"] = json!("bridge");
        let (first, second) = (node.add("c1", &one, &conf), node.add("c2", &two, &conf));
        let prefix = if netfilter == "0" { "/32" } else { "/24" };
        assert!(first["ips"][0]["address"].as_str().unwrap().ends_with(prefix));
        for (wildcard, index) in [("0.0.0.0:80", 0), ("[::]:80", 1)] {
            let target = match ip(&second, index) {
                v6 if v6.contains(':') => format!("[{v6}]:80"),
                v4 => format!("{v4}:80"),
            };
            let seen = talk((&two, wildcard), (&one, &target));
            assert_eq!(seen, Some(ip(&first, index)), "netfilter {netfilter}, {target}");
            assert!(talk((&two, wildcard), (&node.net, &target)).is_some(), "{netfilter} node to {target}");
        }
        node.check("c1", &one, &conf, &first).ok();
        node.call("STATUS", "", "", &conf).ok();
        node.net.sh("f=/proc/sys/net/bridge/bridge-nf-call-iptables; echo $((1 - $(cat $f))) > $f");
        let status = node.call("STATUS", "", "", &conf).error();
        assert_eq!(status.0, 50, "{}", status.1);
        node.del("c1", &one, &conf);
        node.del("c2", &two, &conf);
        assert_eq!(node.remains().trim(), "trysail0", "the bridge stays for the next pod");
    }
}

/// containerd's other plugin.
#[test]
fn the_program_is_also_loopback() {
    let (node, pod) = (Node::new(), Namespace::new());
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("loopback");
    std::os::unix::fs::symlink(crate::sandbox::PLUGIN, &program).unwrap();
    let call = |verb: &str, netns: &str| {
        let mut command = std::process::Command::new(&program);
        crate::sandbox::with_environment(&mut command, verb, "c1", netns);
        let conf = json!({ "cniVersion": "1.0.0", "name": "lo", "type": "loopback" });
        crate::sandbox::Answer::read(&node.run(command, &conf))
    };
    assert_eq!(call("CHECK", &pod.path()).error().0, 104);
    let result = call("ADD", &pod.path()).ok();
    assert_eq!(result["ips"][0]["address"], "127.0.0.1/8");
    assert!(pod.sh("ip link show lo").contains("LOWER_UP"));
    call("CHECK", &pod.path()).ok();
    call("DEL", &pod.path()).ok();
    assert!(!pod.sh("ip link show lo").contains("LOWER_UP"));
    call("DEL", "").ok();
    call("DEL", "/proc/nowhere").ok();
}

/// Limits are on the node's links, and go with the pod.
#[test]
fn bandwidth_is_limited_in_both_directions() {
    let (node, pod) = (Node::new(), Namespace::new());
    let mut conf = node.conf();
    let baseline = node.remains();
    conf["runtimeConfig"] = json!({ "bandwidth": {
        "ingressRate": 8_000_000, "ingressBurst": 4_294_967_295_u64,
        "egressRate": 16_000_000, "egressBurst": 34_359_738_359_u64 } });
    let result = node.add("c1", &pod, &conf);
    let queues = node.net.sh("tc qdisc show");
    assert!(
        queues.contains("tbf") && queues.contains("rate 8Mbit") && queues.contains("rate 16Mbit"),
        "{queues}"
    );
    assert!(talk((&pod, "0.0.0.0:80"), (&node.net, &format!("{}:80", ip(&result, 0)))).is_some());
    // The reply went through the shaping device.
    assert!(!node.net.sh("tc -s qdisc show | grep -A1 16Mbit").contains("Sent 0 bytes"));
    node.check("c1", &pod, &conf, &result).ok();
    node.net.sh("tc qdisc del dev $(ip -br link | grep -o '^tsi[a-z0-9]*') root");
    assert_eq!(node.check("c1", &pod, &conf, &result).error().0, 104);
    node.del("c1", &pod, &conf);
    assert_eq!(node.remains(), baseline);
}
