//! A cluster leaves nothing behind, however it ends: taken down, interrupted, or its maker killed half-way.
//!
//! Needs root, the built cluster binaries and a few minutes: runs when `TRYSAIL_CLUSTER_TESTS=1`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use trysail_cluster::host_sysctl;
use trysail_cluster::layout::{Layout, STATE_ROOT, existing_clusters};
use trysail_cluster::network::host_link;

const NAME: &str = "leftovers";

/// What a machine looks like, as far as clusters could change it: for each aspect, a set of facts.
#[derive(Debug)]
struct Machine {
    facts: Vec<(&'static str, BTreeSet<String>)>,
}

impl Machine {
    fn look() -> Self {
        let mut facts = vec![
            ("processes", our_processes()),
            ("links", lines(&output("ip", &["-o", "-br", "link"]))),
            ("routes", lines(&output("ip", &["route", "show", "table", "all"]))),
            ("rules", lines(&output("ip", &["rule"]))),
            ("nftables", lines(&output("nft", &["list", "ruleset"]))),
            ("resolver", lines(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())),
            ("loops", lines(&output("losetup", &["--list", "--noheadings"]))),
            ("mounts", lines(&fs::read_to_string("/proc/self/mountinfo").unwrap())),
            ("named namespaces", names(Path::new("/run/netns"))),
            ("control groups", groups()),
        ];
        let others = other_clusters();
        for (_, set) in &mut facts {
            set.retain(|fact| !others.iter().any(|mark| fact.contains(mark)));
        }
        // Another cluster that came or went meanwhile raised or restored them by right.
        if others.is_empty() {
            facts.push(("sysctls", sysctls()));
        }
        Self { facts }
    }

    /// Empty when nothing differs.
    fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        for ((what, before), (_, after)) in self.facts.iter().zip(&after.facts) {
            for gone in before.difference(after) {
                let _ = write!(text, "\n{what}: gone: {gone}");
            }
            for new in after.difference(before) {
                let _ = write!(text, "\n{what}: new: {new}");
            }
        }
        text
    }
}

/// Marks of clusters that somebody else runs on this machine while the test does.
fn other_clusters() -> Vec<String> {
    let names = existing_clusters().into_iter().filter(|name| name != NAME);
    names.flat_map(|name| [format!("trysail.{name}"), host_link(&name)]).collect()
}

/// Processes that could be a cluster's: in a network namespace that is not ours, or running one of our programs.
fn our_processes() -> BTreeSet<String> {
    let own_namespace = fs::read_link("/proc/self/ns/net").unwrap();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let dir = entry.path();
        let elsewhere = fs::read_link(dir.join("ns/net")).is_ok_and(|link| link != own_namespace);
        let program = fs::read_link(dir.join("exe")).unwrap_or_default();
        let ours = program.file_name().is_some_and(|name| name == "ctr" || name == "kubeadm")
            || fs::read_link(dir.join("cwd")).is_ok_and(|cwd| cwd.starts_with(STATE_ROOT));
        if elsewhere || ours {
            let groups = fs::read_to_string(dir.join("cgroup")).unwrap_or_default().replace('\n', " ");
            found.insert(format!("{pid} {} {groups}", program.display()));
        }
    }
    found
}

fn groups() -> BTreeSet<String> {
    fn walk(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.insert(entry.path().display().to_string());
                walk(&entry.path(), found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), &mut found);
    found
}

fn sysctls() -> BTreeSet<String> {
    let value = |name: &str| fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
    let all = host_sysctl::names();
    all.iter().map(|name| format!("{name} = {}", value(name).unwrap_or_default())).collect()
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?} failed: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn xtask() -> PathBuf {
    let named = std::env::var_os("TRYSAIL_XTASK").map(PathBuf::from);
    let own = std::env::current_exe().unwrap();
    let path = named.unwrap_or_else(|| own.ancestors().nth(2).unwrap().join("xtask"));
    assert!(path.is_file(), "no xtask at {}: run `cargo build -p xtask`", path.display());
    path
}

fn cluster(verb: &[&str]) -> Command {
    let mut command = Command::new(xtask());
    command.args(["cluster", "--name", NAME]).args(verb);
    command
}

fn must(verb: &[&str]) -> String {
    let output = cluster(verb).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "cluster {verb:?} failed:\n{text}");
    String::from_utf8(output.stdout).unwrap()
}

/// Starts `up` and lets it work until `condition` about its progress holds.
fn start_up(log: &Path) -> Child {
    let log = fs::File::create(log).unwrap();
    cluster(&["up"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    output("kill", &[name, &child.id().to_string()]);
}

/// Waits until the log of `up` shows that a step ended, or a time has passed since the start.
fn wait_for_step(log: &Path, step: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !fs::read_to_string(log).unwrap().contains(step) {
        assert!(Instant::now() < deadline, "up never got to {step:?}: {}", fs::read_to_string(log).unwrap());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn assert_clean(before: &Machine, when: &str) {
    let difference = before.difference(&Machine::look());
    assert!(difference.is_empty(), "after {when} the machine differs:{difference}");
    let state = Layout::new(NAME);
    assert!(!state.state().exists(), "after {when} there is still a state file");
}

/// Ends of steps after which `up` is cut short: before the switch, between switch and nodes, while the control
/// plane starts, while nodes register, when all but the last line is done. The empty one: at once.
const MOMENTS: [&str; 6] = ["", "certificates", "switch", "nodes cp", "access rules", "nodes Ready"];

/// One test, because the machine is one: its parts would see each other's clusters.
#[test]
fn nothing_is_left() {
    if std::env::var_os("TRYSAIL_CLUSTER_TESTS").is_none() {
        eprintln!("skipped: set TRYSAIL_CLUSTER_TESTS=1 to run it (as root)");
        return;
    }
    must(&["down"]);
    let before = Machine::look();
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("up.log");

    for moment in MOMENTS {
        let mut up = start_up(&log);
        wait_for_step(&log, moment);
        signal(&up, "-INT");
        assert!(!up.wait().unwrap().success(), "an interrupted up must fail");
        assert_clean(&before, &format!("Ctrl-C behind {moment:?}"));
    }
    for moment in MOMENTS {
        let mut up = start_up(&log);
        wait_for_step(&log, moment);
        signal(&up, "-KILL");
        up.wait().unwrap();
        must(&["down"]);
        assert_clean(&before, &format!("kill -9 behind {moment:?} and down"));
    }

    // What a killed run left does not hinder the next.
    let mut up = start_up(&log);
    wait_for_step(&log, "access rules");
    signal(&up, "-KILL");
    up.wait().unwrap();
    must(&["up"]);
    // A second up reuses the cluster: same processes.
    let first = must(&["kubectl", "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"]);
    must(&["up"]);
    let second = must(&["kubectl", "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!(first, second, "a second up must not make another cluster");

    // A dead worker comes back.
    kill_node("w1");
    must(&["up"]);
    let ready = must(&["kubectl", "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s"]);
    assert_eq!(ready.lines().count(), 3, "{ready}");

    // Single components: killed, it comes back; stopped, it stays down.
    let control_plane = trysail_cluster::Cluster::open(NAME).unwrap().node("cp").unwrap();
    let old = control_plane.component_pid("kube-scheduler").unwrap();
    control_plane.restart_component("kube-scheduler").unwrap();
    assert_ne!(control_plane.component_pid("kube-scheduler").unwrap(), old);
    control_plane.stop_component("kube-controller-manager").unwrap();
    control_plane.restart_component("kube-scheduler").unwrap();
    let down = control_plane.component_pid("kube-controller-manager").unwrap_err().to_string();
    assert!(down.contains("kube-controller-manager on node cp is down"), "{down}");
    control_plane.start_component("kube-controller-manager").unwrap();
    control_plane.component_pid("kube-controller-manager").unwrap();
    assert_eq!(control_plane.exec(&["hostname"]).unwrap().trim(), "cp");

    // A loop device outlives its node unless somebody detaches it; also one that stands on another.
    must(&["exec", "w2", "--", "sh", "-c", LOOPS]);
    assert!(output("losetup", &["--list"]).contains("/var/lib/pool"), "the loops are not there");
    // The control plane dies hard; down needs nothing of it.
    kill_node("cp");
    must(&["down"]);
    assert_clean(&before, "a full life and down");
}

const LOOPS: &str = "set -e; truncate -s 64M /var/lib/pool; pool=$(losetup --find --show /var/lib/pool); \
    mkfs.ext4 -q $pool; mkdir -p /mnt/pool; mount $pool /mnt/pool; \
    truncate -s 1M /mnt/pool/volume; losetup --find --show /mnt/pool/volume";

fn kill_node(node: &str) {
    trysail_cluster::Cluster::open(NAME).unwrap().node(node).unwrap().kill().unwrap();
}
