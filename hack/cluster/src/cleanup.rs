//! Takes a cluster down, in whatever state it is: complete, half started, half taken down, or after a crash.
//!
//! Everything of ours is found by a mark of our own (the name of a control group, of a link, the path of a file),
//! never by the name of a program. Each step goes on after an error of the step before; the errors come back together.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::layout::{Layout, existing_clusters};
use crate::process::{all_pids, command, namespace, run};
use crate::state::MachineLock;
use crate::{cgroup, host_sysctl, network};

/// How long killed processes may take to disappear: a big one has memory to give back.
const DEATH_TIMEOUT: Duration = Duration::from_secs(20);

/// What stays after a clean-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing.
    Nothing,
    /// The logs, because a failed start is about to point at them.
    Logs,
}

/// Removes every trace of a cluster. The caller holds its lock.
pub(crate) fn remove_cluster(layout: &Layout, keep: Keep) -> Result<()> {
    let name = layout.name();
    let mut errors = Vec::new();
    let mut note = |result: Result<()>| errors.extend(result.err());
    note(kill_all(name));
    note(network::remove_host_link(name));
    note(detach_loops(&layout.dir().join("nodes")));
    note(remove_groups(name));
    note(remove_files(layout, keep));
    note(restore_machine(name));
    join_errors(&errors)
}

/// Removes what is left of one node (its processes died, or are to die) so that it can be made again.
pub(crate) fn remove_node(layout: &Layout, node: &str) -> Result<()> {
    let mut errors = Vec::new();
    let mut note = |result: Result<()>| errors.extend(result.err());
    let groups: Vec<_> = cgroup::find_groups(layout.name()).iter().map(|group| group.join(node)).collect();
    note(kill_until_none(|| groups.iter().flat_map(|group| cgroup::pids_below(group)).collect()));
    note(detach_loops(&layout.node(node)));
    groups.iter().filter(|group| group.exists()).for_each(|group| note(cgroup::remove(group)));
    note(remove_tree(&layout.node(node)));
    join_errors(&errors)
}

fn join_errors(errors: &[anyhow::Error]) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let text: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
    bail!("the clean-up is not complete; run `cargo xtask cluster down` again. {}", text.join("; "))
}

/// Kills what is in the cluster's control groups, and what entered one of its network namespaces.
fn kill_all(cluster: &str) -> Result<()> {
    let in_groups =
        || cgroup::find_groups(cluster).iter().flat_map(|group| cgroup::pids_below(group)).collect();
    let members: Vec<i32> = in_groups();
    let own: BTreeSet<String> = namespace(nix::unistd::getpid().as_raw(), "net").into_iter().collect();
    let init = namespace(1, "net");
    let namespaces: BTreeSet<String> = members
        .iter()
        .filter_map(|pid| namespace(*pid, "net"))
        // Helpers of an `up` are in the group but in the host's network.
        .filter(|found| !own.contains(found) && Some(found) != init.as_ref())
        .collect();
    kill_until_none(|| {
        let mut pids: Vec<i32> = in_groups();
        if !namespaces.is_empty() {
            let inside = |pid: &i32| namespace(*pid, "net").is_some_and(|found| namespaces.contains(&found));
            pids.extend(all_pids().into_iter().filter(inside));
        }
        pids
    })
}

fn kill_until_none(find: impl Fn() -> Vec<i32>) -> Result<()> {
    let own = nix::unistd::getpid().as_raw();
    let deadline = Instant::now() + DEATH_TIMEOUT;
    loop {
        let mut pids = find();
        pids.retain(|pid| *pid != own && *pid > 1);
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes {pids:?} do not die");
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn remove_groups(cluster: &str) -> Result<()> {
    // `up` cleans up while it is itself a helper.
    cgroup::find_groups(cluster).iter().try_for_each(|group| cgroup::remove(group))
}

fn remove_files(layout: &Layout, keep: Keep) -> Result<()> {
    // First of all: with it gone, whatever happens next, nobody takes the rest for a cluster.
    let state = layout.state();
    match fs::remove_file(&state) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", state.display()));
        }
        _ => {}
    }
    if keep == Keep::Nothing {
        return remove_tree(layout.dir());
    }
    for path in [layout.dir().join("nodes"), layout.pki(), layout.kubectl_cache()] {
        remove_tree(&path)?;
    }
    let _ = fs::remove_file(layout.kubeconfig());
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Machine-wide settings belong to all clusters: the last one restores them.
fn restore_machine(cluster: &str) -> Result<()> {
    let _lock = MachineLock::take()?;
    let others = existing_clusters();
    let running = |name: &String| name != cluster && Layout::new(name).state().exists();
    if others.iter().any(running) {
        return Ok(());
    }
    host_sysctl::restore()
}

/// A loop device outlives the process that attached it. Ours are those whose file lies in a node's directory, and
/// those whose file lies on one of ours.
fn detach_loops(nodes: &Path) -> Result<()> {
    let columns = ["--list", "--json", "--output", "NAME,BACK-INO,BACK-MAJ:MIN,MAJ:MIN"];
    let text = run(command("losetup").args(columns))?;
    if text.trim().is_empty() {
        return Ok(());
    }
    let list: Value = serde_json::from_str(&text).context("cannot read the list of loop devices")?;
    let loops: Vec<Loop> =
        list["loopdevices"].as_array().into_iter().flatten().filter_map(Loop::parse).collect();
    if loops.is_empty() {
        return Ok(());
    }
    let mut inodes = BTreeSet::new();
    collect_inodes(nodes, &mut inodes);
    // Innermost first: a device on which another one's file lies is busy.
    for device in ours(&loops, &inodes).iter().rev() {
        run(command("losetup").args(["--detach", device]))?;
    }
    Ok(())
}

#[derive(Debug)]
struct Loop {
    name: String,
    device: String,
    backing: (String, u64),
}

impl Loop {
    fn parse(item: &Value) -> Option<Self> {
        let text = |key: &str| Some(item[key].as_str()?.trim().to_owned());
        let inode = item["back-ino"].as_u64().or_else(|| item["back-ino"].as_str()?.trim().parse().ok())?;
        Some(Self { name: text("name")?, device: text("maj:min")?, backing: (text("back-maj:min")?, inode) })
    }
}

/// Names of our loop devices, each after the one it stands on.
fn ours<'a>(loops: &'a [Loop], inodes: &BTreeSet<(String, u64)>) -> Vec<&'a str> {
    let mut found: Vec<&Loop> = loops.iter().filter(|item| inodes.contains(&item.backing)).collect();
    let mut at = 0;
    while let Some(below) = found.get(at).copied() {
        found.extend(loops.iter().filter(|item| item.backing.0 == below.device));
        at += 1;
    }
    found.iter().map(|item| item.name.as_str()).collect()
}

fn collect_inodes(dir: &Path, inodes: &mut BTreeSet<(String, u64)>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            collect_inodes(&entry.path(), inodes);
        } else if metadata.is_file() {
            let device = metadata.dev();
            let number = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
            inodes.insert((number, metadata.ino()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, device: &str, backing: (&str, u64)) -> Loop {
        Loop { name: name.into(), device: device.into(), backing: (backing.0.into(), backing.1) }
    }

    /// A driver's pool in a file, and volumes in files on that pool: both are found, and only they.
    #[test]
    fn loops_on_loops_are_found_in_an_order_that_can_be_undone() {
        let loops = [
            device("/dev/loop3", "7:3", ("7:1", 9)),
            device("/dev/loop1", "7:1", ("254:0", 5)),
            device("/dev/loop2", "7:2", ("254:0", 6)),
        ];
        let inodes = BTreeSet::from([("254:0".to_owned(), 5)]);
        assert_eq!(ours(&loops, &inodes), ["/dev/loop1", "/dev/loop3"]);
    }
}
