//! SIGKILL at every system call of ADD, DEL and GC, each followed by GC: nothing may stay.
//!
//! strace delivers the signal as the n-th call of a kind begins; a call's end is the beginning of the next. The list of
//! calls is taken from a run that is not disturbed, so it grows with the plugin.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::sandbox::{Namespace, Node, PLUGIN, with_environment};

/// Calls that begin before `main`, or change nothing outside of the process: dying at one of them is dying at the next
/// that does.
const WITHOUT_EFFECT: [&str; 28] = [
    "execve",
    "brk",
    "arch_prctl",
    "access",
    "mprotect",
    "munmap",
    "mmap",
    "pread64",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "getrandom",
    "rt_sigaction",
    "sigaltstack",
    "poll",
    "exit_group",
    "sched_getaffinity",
    "rt_sigprocmask",
    "exit",
    "madvise",
    "gettid",
    "close",
    "fstat",
    "newfstatat",
    "statx",
    "lseek",
    "futex",
];

fn strace(options: &[&str], verb: &str, id: &str, netns: &str) -> Command {
    let mut command = Command::new("strace");
    with_environment(&mut command, verb, id, netns);
    command.args(["-f", "-qq"]).args(options).arg(PLUGIN);
    command
}

/// How often each call is made in an undisturbed run.
fn calls(
    node: &Node,
    log: &Path,
    verb: &str,
    id: &str,
    netns: &str,
    conf: &Value,
) -> BTreeMap<String, usize> {
    let output = node.run(strace(&["-o", &log.to_string_lossy()], verb, id, netns), conf);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        // `PID name(arguments`; the second half of an interrupted call starts with `<...`.
        let Some(rest) = line.split_once(' ').map(|(_, rest)| rest.trim_start()) else { continue };
        let Some((name, _)) = rest.split_once('(') else { continue };
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !WITHOUT_EFFECT.contains(&name) {
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

fn full_conf(node: &Node) -> Value {
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({
        "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }],
        "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 800_000,
                       "egressRate": 8_000_000, "egressBurst": 800_000 } });
    conf
}

/// Runs `verb` once per call that it makes, killed at that call; `after` judges.
fn at_every_call(
    node: &Node,
    verb: &str,
    conf: &Value,
    prepare: impl Fn() -> Namespace,
    after: impl Fn(&str, Namespace),
) {
    let dir = tempfile::tempdir().unwrap();
    let pod = prepare();
    let counts = calls(node, &dir.path().join("log"), verb, "c1", &pod.path(), conf);
    after("undisturbed", pod);
    let total: usize = counts.values().sum();
    assert!(total > 15, "{verb} makes few calls: {counts:?}");
    let mut killed = 0;
    for (name, count) in &counts {
        for when in 1..=*count {
            let pod = prepare();
            let inject = format!("inject={name}:signal=SIGKILL:when={when}");
            let output = node.run(strace(&["-o", "/dev/null", "-e", &inject], verb, "c1", &pod.path()), conf);
            killed += usize::from(!output.status.success());
            after(&format!("{verb} killed at {name} #{when}"), pod);
        }
    }
    // A thread may take a lock without waiting one time and not another, so a few calls are not reached.
    assert!(killed * 10 > total * 9, "only {killed} of {total} runs were killed");
}

#[test]
fn add_killed_anywhere_leaves_nothing_after_gc() {
    let node = Node::new();
    let conf = full_conf(&node);
    let keep = Namespace::new();
    let kept = node.add("keep", &keep, &node.conf());
    let baseline = node.remains();
    at_every_call(&node, "ADD", &conf, Namespace::new, |at, pod| {
        // The next sandbox of the same pod needs the same host port: what is dead must not be in its way.
        let next = Namespace::new();
        let state = trysail_cni::store::Store::new(&node.data_dir()).read().unwrap();
        let mut of_pod = state.records().filter(|record| record.key.container_id == "c1");
        let committed = of_pod.any(|record| record.phase == trysail_cni::store::Phase::Committed);
        let again = node.call("ADD", "c2", &next.path(), &conf);
        assert_eq!(again.success, !committed, "{at}: {}", again.json);
        node.gc(&["keep"], &conf).ok();
        assert_eq!(node.remains(), baseline, "{at}");
        assert_eq!(pod.sh("ip -br link | grep -v ^lo || true"), "", "{at}");
    });
    node.check("keep", &keep, &node.conf(), &kept).ok();
}

/// A store that is mostly history, so that the next ADD writes it anew.
fn fill_with_history(node: &Node) {
    use trysail_cni::store::{Event, Key, Phase, Record, Store};
    let store = Store::new(&node.data_dir());
    let mut locked = store.lock().unwrap();
    let key = Key { network: "pods".into(), container_id: "past".into(), ifname: "eth0".into() };
    for number in 0..200_u8 {
        let record = Record {
            key: key.clone(),
            phase: Phase::Intent,
            ips: vec![[10, 244, 1, number + 20].into()],
            owns_ips: true,
            host_link: String::new(),
            netns: "/nowhere".into(),
            netns_inode: 1,
            pod: None,
            ports: Vec::new(),
            masquerade: false,
            spoof_protection: false,
            shaper: None,
        };
        locked.append(Event::Record(Box::new(record))).unwrap();
        locked.append(Event::Release(key.clone())).unwrap();
    }
}

#[test]
fn add_killed_while_it_compacts_the_store_loses_nothing() {
    let node = Node::new();
    let conf = node.conf();
    let keep = Namespace::new();
    let kept = node.add("keep", &keep, &conf);
    let baseline = node.remains();
    let size = || std::fs::metadata(node.data_dir().join("store")).unwrap().len();
    let filled = || {
        fill_with_history(&node);
        assert!(size() > 32 * 1024, "compaction is not due: {}", size());
        Namespace::new()
    };
    let dir = tempfile::tempdir().unwrap();
    let pod = filled();
    let counts = calls(&node, &dir.path().join("log"), "ADD", "c1", &pod.path(), &conf);
    assert!(size() < 32 * 1024, "it was not compacted");
    let mut kills = 0;
    for name in ["openat", "write", "pwrite64", "rename", "ftruncate", "fallocate"] {
        for when in 1..=counts.get(name).copied().unwrap_or_default() {
            node.gc(&["keep"], &conf).ok();
            let pod = filled();
            let inject = format!("inject={name}:signal=SIGKILL:when={when}");
            let output =
                node.run(strace(&["-o", "/dev/null", "-e", &inject], "ADD", "c1", &pod.path()), &conf);
            kills += usize::from(!output.status.success());
            node.gc(&["keep"], &conf).ok();
            assert_eq!(node.remains(), baseline, "killed at {name} #{when}");
            node.check("keep", &keep, &conf, &kept).ok();
        }
    }
    assert!(kills > 10, "only {kills} runs were killed");
}

/// An ADD that is under way holds its lock: neither GC nor a sweep takes its half-made work for a leak. Once it is
/// dead, they do.
#[test]
fn what_is_being_made_is_left_alone() {
    use trysail_cni::node::Node as Kernel;
    use trysail_cni::store::{Event, Store};
    use trysail_cni::verbs::{collect_gone, sweep};
    let (node, pod) = (Node::new(), Namespace::new());
    let conf = node.conf();
    node.add("c1", &pod, &conf);
    let store = Store::new(&node.data_dir());
    let mut record = store.read().unwrap().records().next().unwrap().clone();
    record.phase = trysail_cni::store::Phase::Intent;
    store.lock().unwrap().append(Event::Record(Box::new(record.clone()))).unwrap();
    let half_made = node.remains();
    let held = store.lock_attachment(&record.key).unwrap();
    // The namespace is gone too, as far as anybody can see.
    drop(pod);
    node.net.run(|| {
        let mut kernel = Kernel::open(&store).unwrap();
        let suspects = [record.key.clone()].into();
        collect_gone(&mut kernel, &store, &suspects).unwrap();
        sweep(&mut kernel, &store).unwrap();
    });
    node.gc(&[], &conf).ok();
    assert!(node.remains().contains("Intent pods/c1/eth0"), "{half_made}");
    drop(held);
    node.gc(&[], &conf).ok();
    assert_eq!(node.remains(), "");
}

#[test]
fn del_killed_anywhere_leaves_nothing_after_del() {
    let node = Node::new();
    let conf = full_conf(&node);
    let baseline = {
        let pod = Namespace::new();
        node.add("c1", &pod, &conf);
        node.del("c1", &pod, &conf);
        node.remains()
    };
    let added = || {
        let pod = Namespace::new();
        node.add("c1", &pod, &conf);
        pod
    };
    at_every_call(&node, "DEL", &conf, added, |at, pod| {
        // The runtime repeats it, by now without the namespace.
        drop(pod);
        node.call("DEL", "c1", "", &conf).ok();
        assert_eq!(node.remains(), baseline, "{at}");
    });
}

#[test]
fn gc_killed_anywhere_is_finished_by_the_next() {
    let node = Node::new();
    let mut conf = full_conf(&node);
    conf["cni.dev/valid-attachments"] = json!([]);
    let baseline = {
        let pod = Namespace::new();
        node.add("c1", &pod, &conf);
        node.del("c1", &pod, &conf);
        node.remains()
    };
    let leaked = || {
        let pod = Namespace::new();
        node.add("c1", &pod, &full_conf(&node));
        node.net.sh("ip link add tsvaaaaaaaaaaaa type veth peer name x0");
        pod
    };
    at_every_call(&node, "GC", &conf, leaked, |at, pod| {
        drop(pod);
        node.gc(&[], &conf).ok();
        assert_eq!(node.remains(), baseline, "{at}");
    });
}
