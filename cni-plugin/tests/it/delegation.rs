//! Addresses from another plugin, and use behind another plugin.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::attach::talk;
use crate::sandbox::{Answer, Namespace, Node, ip};

/// A plugin that gives out one address, fails when told to, and writes down every call.
const FAKE: &str = r#"#!/bin/sh
cat > /dev/null
dir=$(dirname "$0")
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" >> "$dir/calls"
if [ -e "$dir/fail" ]; then
    echo '{ "cniVersion": "1.1.0", "code": 11, "msg": "come back later" }'
    exit 1
fi
if [ "$CNI_COMMAND" = ADD ]; then
    echo '{ "cniVersion": "1.1.0", "ips": [{ "address": "10.7.0.9/24", "gateway": "10.7.0.1" }] }'
fi
"#;

struct Delegate {
    node: Node,
    dir: tempfile::TempDir,
    conf: Value,
}

fn delegate() -> Delegate {
    let (node, dir) = (Node::new(), tempfile::tempdir().unwrap());
    let program = dir.path().join("fake-ipam");
    std::fs::write(&program, FAKE).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let mut conf = node.conf();
    conf["ipam"] = json!({ "type": "fake-ipam", "whatever": "it likes" });
    Delegate { node, dir, conf }
}

impl Delegate {
    fn call(&self, verb: &str, netns: &str, conf: &Value) -> Answer {
        let mut command: Command = Node::command(verb, "c1", netns);
        command.env("CNI_PATH", format!("/nowhere:{}", self.dir.path().display()));
        Answer::read(&self.node.run(command, conf))
    }

    /// The calls since the last time.
    fn calls(&self) -> String {
        let file = self.dir.path().join("calls");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(file);
        text
    }
}

/// It is asked for addresses, hears of every DEL, and is asked by CHECK, STATUS and GC too.
#[test]
fn foreign_ipam_is_called_for_every_verb() {
    let (delegate, pod) = (delegate(), Namespace::new());
    let baseline = delegate.node.remains();
    let result = delegate.call("ADD", &pod.path(), &delegate.conf).ok();
    assert_eq!(result["ips"][0]["address"], "10.7.0.9/32");
    assert!(talk((&pod, "0.0.0.0:80"), (&delegate.node.net, "10.7.0.9:80")).is_some());
    let mut with_result = delegate.conf.clone();
    with_result["prevResult"] = result;
    with_result["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    delegate.call("CHECK", &pod.path(), &with_result).ok();
    delegate.call("STATUS", "", &delegate.conf).ok();
    delegate.call("GC", "", &with_result).ok();
    drop(pod);
    delegate.call("DEL", "", &delegate.conf).ok();
    delegate.call("DEL", "", &delegate.conf).ok();
    let calls = delegate.calls();
    let verbs: Vec<&str> = calls.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(verbs, ["ADD", "CHECK", "STATUS", "GC", "DEL", "DEL"]);
    assert!(calls.starts_with("ADD c1 eth0\n"));
    assert_eq!(delegate.node.remains(), baseline);
}

/// Its refusal is told in its own words, and nothing stays.
#[test]
fn a_failing_ipam_leaves_nothing() {
    let (delegate, pod) = (delegate(), Namespace::new());
    let baseline = delegate.node.remains();
    std::fs::write(delegate.dir.path().join("fail"), "").unwrap();
    let (code, text) = delegate.call("ADD", &pod.path(), &delegate.conf).error();
    assert_eq!(code, 107);
    assert!(text.contains("come back later"), "{text}");
    // It could not even take the address back: the record stays until it can.
    assert!(delegate.node.remains().contains("Removing pods/c1/eth0"));
    std::fs::remove_file(delegate.dir.path().join("fail")).unwrap();
    delegate.call("DEL", "", &delegate.conf).ok();
    assert_eq!(delegate.node.remains(), baseline);
}

/// Behind another plugin: its interface, our host ports and masquerading, its result untouched.
#[test]
fn behind_another_plugin_it_adds_host_ports() {
    let (node, pod) = (Node::new(), Namespace::new());
    let baseline = node.remains();
    node.net.sh(&format!(
        "ip link add other0 type veth peer name eth0 netns {} && ip addr add 10.5.0.1/24 dev other0 && \
         ip link set other0 up && sysctl -qw net.ipv4.ip_forward=1",
        pod.pid()
    ));
    pod.sh("ip addr add 10.5.0.2/24 dev eth0 && ip link set eth0 up && ip route add default via 10.5.0.1");
    let mut conf = node.conf();
    conf.as_object_mut().unwrap().remove("ipam");
    conf["runtimeConfig"] =
        json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] });
    let previous = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": "other0" }, { "name": "eth0", "sandbox": pod.path() }],
        "ips": [{ "address": "10.5.0.2/24", "gateway": "10.5.0.1", "interface": 1 }],
    });
    let bare = Namespace::new();
    assert_eq!(node.call("ADD", "c1", &bare.path(), &conf).error().0, 7, "alone it has no addresses to give");
    conf["prevResult"] = previous.clone();
    let result = node.call("ADD", "c1", &pod.path(), &conf).ok();
    assert_eq!(result, previous);
    assert_eq!(ip(&result, 0), "10.5.0.2");
    assert!(talk((&pod, "0.0.0.0:80"), (&node.net, "10.5.0.1:8080")).is_some());
    node.call("CHECK", "c1", &pod.path(), &conf).ok();
    node.call("DEL", "c1", &pod.path(), &conf).ok();
    assert!(pod.sh("ip link show eth0").contains("eth0"), "the interface is not ours");
    node.net.sh("ip link del other0");
    assert_eq!(node.remains(), baseline);
}
