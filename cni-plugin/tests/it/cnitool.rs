//! The reference runtime library drives the plugin: cnitool of containernetworking/cni, with the conflist that nodes
//! get. It chooses the version, keeps the cache, and calls the verbs as it likes.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::sandbox::{Namespace, Node, PLUGIN};

/// Where `cargo xtask setup` keeps what it builds.
fn cnitool() -> PathBuf {
    let cache = PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/trysail/bin");
    let groups = std::fs::read_dir(&cache).into_iter().flatten().flatten();
    let found = groups.map(|group| group.path().join("cnitool")).find(|path| path.is_file());
    found.expect("no cnitool: run `cargo xtask setup`")
}

/// Every verb, through libcni; a second attachment of the cache that is dead is collected by GC.
#[test]
#[ignore = "needs cnitool, which `cargo xtask setup` builds"]
fn libcni_drives_every_verb() {
    let (node, one, two) = (Node::new(), Namespace::new(), Namespace::new());
    let dir = tempfile::tempdir().unwrap();
    symlink(PLUGIN, dir.path().join("trysail-cni")).unwrap();
    let mut plugin = node.conf();
    let plugin = plugin.as_object_mut().unwrap();
    plugin.remove("cniVersion");
    plugin.remove("name");
    plugin.insert("capabilities".into(), json!({ "portMappings": true, "bandwidth": true }));
    let list = json!({
        "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "pods", "plugins": [plugin] });
    std::fs::write(dir.path().join("10-pods.conflist"), list.to_string()).unwrap();
    let baseline = node.remains();
    node.net.run(|| {
        // libcni keeps its cache in /var/lib/cni: a directory of our own, gone with the thread.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("tmpfs"), "/var/lib", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let call = |verb: &str, netns: Option<&Namespace>| -> Output {
            let mut command = Command::new(cnitool());
            command.env_clear().env("NETCONFPATH", dir.path()).env("CNI_PATH", dir.path()).env(
                "CAP_ARGS",
                r#"{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#,
            );
            // Its command line wants a namespace even for verbs that need none.
            let netns = netns.map_or_else(|| "/proc/self/ns/net".to_owned(), Namespace::path);
            command.args([verb, "pods", &netns]).output().unwrap()
        };
        let ok = |verb: &str, netns: Option<&Namespace>| -> String {
            let output = call(verb, netns);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{verb}: {text}{}", String::from_utf8_lossy(&output.stderr));
            text
        };
        ok("status", None);
        let result: Value = serde_json::from_str(&ok("add", Some(&one))).unwrap();
        assert_eq!(result["cniVersion"], "1.1.0", "libcni takes the highest version of the list");
        ok("check", Some(&one));
        assert!(!call("add", Some(&one)).status.success(), "added twice");
        let taken = call("add", Some(&two));
        assert!(String::from_utf8_lossy(&taken.stderr).contains("8080/tcp already leads to"), "{taken:?}");
        // GC with nothing alive: libcni first deletes what its cache knows, then tells the plugin.
        ok("gc", None);
        assert!(!call("check", Some(&one)).status.success(), "collected");
        ok("add", Some(&two));
        ok("del", Some(&two));
        ok("del", Some(&two));
        ok("status", None);
    });
    // The store may be empty by now, but no link, route or element stays.
    assert_eq!(node.remains(), baseline);
}
