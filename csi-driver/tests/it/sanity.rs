//! csi-sanity, the specification's own judge, against the real program on real pools.
//!
//! `cargo xtask upstream sanity` builds it and says where it is. A capability that is dropped makes its specs skip, and
//! nobody would notice: so the skipped ones have to be those of `sanity-skipped.json`, each with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::arena::Arena;

/// The judge. Without it, these tests are not asked for.
const JUDGE: &str = "CSI_SANITY";
/// How many seeds.
const SEEDS: &str = "CSI_SANITY_SEEDS";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_text: String,
    leaf_node_type: String,
    state: String,
}

/// The driver, for as long as the value lives; and no longer than this thread, even if it is killed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn start(arena: &Arena, socket: &Path, attach: bool) -> Running {
    let log = fs::File::create(arena.kubelet("driver.log")).unwrap();
    let child = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "--",
            env!("CARGO_BIN_EXE_trysail-csi"),
            "node",
            "--node-name",
            "node-1",
        ])
        .arg("--endpoint")
        .arg(format!("unix://{}", socket.display()))
        .arg("--pool")
        .arg(format!("default={},overcommit=10,create", arena.pool().display()))
        .arg("--kubelet-root")
        .arg(arena.kubelet("").components().collect::<std::path::PathBuf>())
        .args(attach.then_some("--attach"))
        .stderr(log)
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let start = Instant::now();
    while UnixStream::connect(socket).is_err() {
        assert!(running.0.try_wait().unwrap().is_none(), "{}", log_of(arena));
        assert!(start.elapsed() < Duration::from_secs(30), "{}", log_of(arena));
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

fn log_of(arena: &Arena) -> String {
    fs::read_to_string(arena.kubelet("driver.log")).unwrap_or_default()
}

fn judge(pool: &str, access: &str, attach: bool) {
    let Some(judge) = std::env::var_os(JUDGE) else {
        eprintln!("skipped: run `cargo xtask upstream sanity`");
        return;
    };
    let seeds: u64 = std::env::var(SEEDS).ok().map_or(1, |text| text.parse().unwrap());
    for seed in 1..=seeds {
        let arena = Arena::new(pool);
        let socket = arena.kubelet("csi.sock");
        let running = start(&arena, &socket, attach);
        let report = arena.kubelet("report.json");
        let output = Command::new(&judge)
            .arg(format!("--csi.endpoint=unix://{}", socket.display()))
            .arg(format!("--csi.mountdir={}", arena.kubelet("mount").display()))
            .arg(format!("--csi.stagingdir={}", arena.kubelet("staging").display()))
            .args(["--csi.testvolumesize=419430400", "--csi.testvolumeexpandsize=629145600"])
            .arg(format!("--csi.testvolumeaccesstype={access}"))
            .arg(format!("--ginkgo.seed={seed}"))
            .arg(format!("--ginkgo.json-report={}", report.display()))
            .arg("--ginkgo.no-color")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{pool} {access} seed {seed}:\n{said}\n{}", log_of(&arena));
        let suites: Vec<Suite> = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        assess(&suites, pool, access, attach, seed);
        drop(running);
        assert_eq!(arena.loops(), Vec::<String>::new());
        assert_eq!(arena.mounts(), Vec::<String>::new());
        for directory in ["vol", "snap", "new", "trash", "run"] {
            assert_eq!(fs::read_dir(arena.pool().join(directory)).unwrap().count(), 0, "{directory}");
        }
    }
}

fn assess(suites: &[Suite], pool: &str, access: &str, attach: bool, seed: u64) {
    let mut by_state: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for spec in suites.iter().flat_map(|suite| &suite.spec_reports).filter(|spec| spec.leaf_node_type == "It")
    {
        let mut words = spec.container_hierarchy_texts.clone().unwrap_or_default();
        words.push(spec.leaf_node_text.clone());
        by_state.entry(spec.state.as_str()).or_default().insert(words.join(" "));
    }
    let count = |state| by_state.get(state).map_or(0, BTreeSet::len);
    println!(
        "{pool} {access}{} seed {seed}: {} passed, {} skipped, {} pending",
        if attach { " attach" } else { "" },
        count("passed"),
        count("skipped"),
        count("pending")
    );
    let committed: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(include_str!("sanity-skipped.json")).unwrap();
    let expected: BTreeSet<String> = ["always", access, if attach { "attach" } else { "local" }]
        .into_iter()
        .flat_map(|list| committed[list].keys().cloned())
        .collect();
    let skipped = by_state.remove("skipped").unwrap_or_default();
    let pretty =
        |set: BTreeSet<&String>| set.into_iter().map(String::as_str).collect::<Vec<_>>().join("\n  ");
    let new = pretty(skipped.difference(&expected).collect());
    let gone = pretty(expected.difference(&skipped).collect());
    assert!(
        new.is_empty() && gone.is_empty(),
        "skipped and not listed:\n  {new}\nlisted and not skipped:\n  {gone}"
    );
}

#[test]
fn sanity_mount_on_xfs() {
    judge("xfs", "mount", false);
}

#[test]
fn sanity_mount_on_btrfs_attached() {
    judge("btrfs", "mount", true);
}

#[test]
fn sanity_block_on_xfs_attached() {
    judge("xfs", "block", true);
}

#[test]
fn sanity_block_on_btrfs() {
    judge("btrfs", "block", false);
}
