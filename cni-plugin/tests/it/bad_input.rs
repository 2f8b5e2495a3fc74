//! Whatever a runtime, an administrator or a full machine gets wrong: the specification's error object, and nothing
//! half-done.

use std::process::Command;

use serde_json::{Value, json};

use crate::sandbox::{Answer, Namespace, Node, PLUGIN, run};

/// Calls with exactly these variables.
fn call(node: &Node, variables: &[(&str, &str)], stdin: &str) -> Answer {
    let mut command = Command::new(PLUGIN);
    command.env_clear().envs(variables.iter().copied());
    let raw = node.net.run(|| {
        use std::io::Write;
        use std::process::Stdio;
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    });
    Answer::read(&raw)
}

fn with(conf: &Value, key: &str, value: Value) -> Value {
    let mut conf = conf.clone();
    conf[key] = value;
    conf
}

/// One line per mistake: the code, and what to do.
#[test]
fn mistakes_are_explained_and_leave_nothing() {
    let (node, pod) = (Node::new(), Namespace::new());
    let conf = node.conf();
    let netns = pod.path();
    let add = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", netns.as_str()),
        ("CNI_IFNAME", "eth0"),
    ];
    let replaced =
        |name: &str, value: &'static str| add.map(|(n, v)| if n == name { (n, value) } else { (n, v) });
    let text = conf.to_string();
    let answers = [
        call(&node, &[("CNI_COMMAND", "ADD")], &text),
        call(&node, &[("CNI_COMMAND", "ATTACH")], &text),
        call(&node, &replaced("CNI_NETNS", "/proc/nowhere"), &text),
        call(&node, &replaced("CNI_NETNS", "/proc/self/cmdline"), &text),
        call(&node, &replaced("CNI_NETNS", "/proc/self/ns/mnt"), &text),
        call(&node, &replaced("CNI_NETNS", "/proc/self/ns/net"), &text),
        call(&node, &add, "{ not json"),
        call(&node, &add, &with(&conf, "cniVersion", json!("9.9.9")).to_string()),
        call(&node, &add, &with(&conf, "bandwith", json!({})).to_string()),
        call(&node, &add, &with(&conf, "ipam", json!({})).to_string()),
        call(&node, &add, &with(&conf, "ipam", json!({ "type": "no-such-plugin" })).to_string()),
        call(&node, &add, &with(&conf, "runtimeConfig", json!({ "ips": ["10.9.9.9"] })).to_string()),
    ];
    let mut lines = Vec::new();
    for answer in answers {
        assert_eq!(answer.stderr, "");
        let (code, text) = answer.error();
        lines.push(format!("{code}: {text}"));
    }
    let lines = lines.join("\n").replace(&netns, "NETNS");
    insta::assert_snapshot!(lines, @r#"
    4: required variables are missing: CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME; the container runtime sets them
    4: CNI_COMMAND "ATTACH" is unknown; known: ADD, DEL, CHECK, GC, STATUS, VERSION
    8: CNI_NETNS /proc/nowhere does not exist; the container runtime makes it before it calls the plugin
    8: CNI_NETNS /proc/self/cmdline is no namespace; CNI_NETNS must be the path of a network namespace
    8: failed to enter /proc/self/ns/mnt: Invalid argument; the plugin needs CAP_SYS_ADMIN, and the path of a network namespace
    8: CNI_NETNS /proc/self/ns/net is the node's own; the container needs a network namespace of its own
    6: the network configuration is not JSON: key must be a string at line 1 column 3; the runtime passes it on stdin; check the file in its CNI configuration directory
    1: cniVersion "9.9.9" is not supported; supported: 0.3.1, 0.4.0, 1.0.0, 1.1.0; change cniVersion in the network configuration
    2: unknown field "bandwith" with value {}; remove it from the network configuration, or correct its spelling
    7: ipam.ranges is empty: there is no address to give to a pod; list the node's podCIDRs
    7: ipam.type "no-such-plugin" is not in CNI_PATH; install that plugin, or leave ipam.type out to let this one give out addresses
    7: the wanted address 10.9.9.9 is in no range; ask for an address of the network's ranges, one of each set
    "#);
    assert_eq!(node.remains(), "");
    assert_eq!(pod.sh("ip -br link").lines().count(), 1);
}

/// Installers call without a command; VERSION needs nothing but stdin.
#[test]
fn the_program_says_what_it_is() {
    let node = Node::new();
    let about = call(&node, &[], "");
    assert!(about.success && about.json.is_null());
    assert!(
        about.stderr.contains("CNI protocol versions supported: 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
        "{}",
        about.stderr
    );
    let version = call(&node, &[("CNI_COMMAND", "VERSION")], r#"{ "cniVersion": "0.2.0" }"#).ok();
    let expected =
        json!({ "cniVersion": "0.2.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] });
    assert_eq!(version, expected);
}

/// The message tells a pool that is too small from one that leaks, and STATUS knows before the next pod does.
#[test]
fn an_exhausted_pool_says_why() {
    let node = Node::new();
    let conf = with(&node.conf(), "ipam", json!({ "ranges": [[{ "subnet": "10.1.0.0/30" }]] }));
    node.call("STATUS", "", "", &conf).ok();
    let (pod, next) = (Namespace::new(), Namespace::new());
    node.add("c1", &pod, &conf);
    let status = node.call("STATUS", "", "", &conf).error();
    assert_eq!(status.0, 50);
    let full = node.call("ADD", "c2", &next.path(), &conf).error();
    assert_eq!(full.0, 100);
    assert!(
        full.1.contains("no free address in 10.1.0.0/30 (1 in all); all belong to living pods"),
        "{}",
        full.1
    );
    drop(pod);
    let leaked = node.call("ADD", "c3", &next.path(), &conf).error();
    assert!(leaked.1.contains("1 of them belong to network namespaces that are gone"), "{}", leaked.1);
    node.gc(&[], &conf).ok();
    node.add("c4", &next, &conf);
}

/// Foreign things under our names are named, not taken.
#[test]
fn foreign_links_are_respected() {
    let (node, pod) = (Node::new(), Namespace::new());
    node.net.sh("ip link add trysail0 type veth peer name up1");
    let conf = with(&node.conf(), "mode", json!("bridge"));
    let before = node.remains();
    let refused = node.call("ADD", "c1", &pod.path(), &conf).error();
    assert_eq!(refused.0, 102);
    assert!(refused.1.contains("a veth trysail0 that is not the plugin's"), "{}", refused.1);
    assert_eq!(node.remains(), before);
}

/// Without room nothing is begun; and what exists can be removed even then.
#[test]
fn a_full_file_system_stops_add_and_not_del() {
    let node = Node::new();
    let pods: Vec<Namespace> = (0..16).map(|_| Namespace::new()).collect();
    let mount = tempfile::tempdir().unwrap();
    let data = mount.path().join("data");
    let conf = with(&node.conf(), "dataDir", json!(data));
    // A mount namespace of its own: the mount ends with the thread.
    node.net.run(|| {
        use nix::mount::{MsFlags, mount as mount_fs};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount_fs(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount_fs(Some("tmpfs"), mount.path(), Some("tmpfs"), MsFlags::empty(), Some("size=256k")).unwrap();
        let call =
            |verb: &str, id: &str, netns: &str| Answer::read(&run(Node::command(verb, id, netns), &conf));
        call("ADD", "c0", &pods[0].path()).ok();
        // Somebody else takes the rest.
        let hog = mount.path().join("hog");
        let mut bytes = vec![0_u8; 4096];
        let mut file = std::fs::File::create(&hog).unwrap();
        while std::io::Write::write_all(&mut file, &bytes).is_ok() {}
        bytes.clear();
        drop(file);
        // A few fit into the room that was kept; the first that does not is refused as a whole.
        let refused = (1..pods.len()).find_map(|index| {
            let answer = call("ADD", &format!("c{index}"), &pods[index].path());
            (!answer.success).then(|| (index, answer.error()))
        });
        let (index, (code, text)) = refused.expect("nothing was ever refused");
        assert_eq!(code, 5, "{text}");
        assert!(text.contains("make room"), "{text}");
        assert_eq!(pods[index].sh("ip -br link").lines().count(), 1);
        for gone in 0..=index {
            call("DEL", &format!("c{gone}"), "").ok();
        }
        std::fs::remove_file(&hog).unwrap();
        call("ADD", "again", &pods[index].path()).ok();
        call("DEL", "again", "").ok();
    });
    assert_eq!(node.net.sh("ip -br link | grep -c ^tsv || true").trim(), "0");
    assert_eq!(node.elements(), "");
}
