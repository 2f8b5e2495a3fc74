//! Brings a cluster up: the order of the steps, and what is waited for. Each step's content is elsewhere.
//!
//! An earlier run's remains are reused when they are a complete cluster of the same options (dead workers are made
//! again), and removed otherwise. A failure, or Ctrl-C, removes everything but the logs.

use anyhow::{Result, bail};

use crate::cgroup::Hierarchies;
use crate::cleanup::{self, Keep};
use crate::cluster::{Cluster, Node};
use crate::config::{CONTROL_PLANE, ClusterConfig};
use crate::interrupt::{self, Interrupted};
use crate::layout::Layout;
use crate::process::ProcessId;
use crate::progress::Progress;
use crate::setup::{self, Group};
use crate::start::{SWITCH, Start};
use crate::state::{ClusterLock, Phase, State};
use crate::{cgroup, programs};

/// Brings the cluster up, or makes sure that it is up.
pub fn up(config: &ClusterConfig, progress: &Progress) -> Result<Cluster> {
    config.validate()?;
    if !nix::unistd::geteuid().is_root() {
        bail!("clusters need root: namespaces, mounts and links are made");
    }
    programs::check()?;
    let layout = Layout::new(&config.name);
    let _lock = ClusterLock::take(&layout)?;
    interrupt::catch_signals()?;
    let hierarchies = Hierarchies::detect()?;
    let bin = setup::ensure(Group::Cluster, progress)?;
    if let Some(cluster) = reuse(&layout, config, &hierarchies, progress)? {
        return Ok(cluster);
    }
    hierarchies.join_helpers(&config.name)?;
    let start = Start { layout: &layout, config, hierarchies: &hierarchies, bin: &bin, progress };
    let result = start.run();
    hierarchies.leave_helpers();
    if let Err(error) = result {
        return Err(give_up(&layout, error, progress));
    }
    Cluster::open(&config.name)
}

/// After a failure nothing may stay but the explanation.
fn give_up(layout: &Layout, error: anyhow::Error, progress: &Progress) -> anyhow::Error {
    interrupt::clear();
    progress.note(if error.is::<Interrupted>() { "interrupted: cleaning up" } else { "failed: cleaning up" });
    match cleanup::remove_cluster(layout, Keep::Logs) {
        Ok(()) => error,
        Err(leftover) => error.context(format!("{leftover:#}")),
    }
}

/// A complete cluster of the same options is used as it is, after its dead nodes were made again.
fn reuse(
    layout: &Layout,
    config: &ClusterConfig,
    hierarchies: &Hierarchies,
    progress: &Progress,
) -> Result<Option<Cluster>> {
    let state = State::read(layout);
    let complete = state.filter(|state| {
        let alive = |member| ProcessId::read(&layout.init_pid(member)).is_some_and(ProcessId::alive);
        state.phase == Phase::Up && alive(SWITCH) && alive(CONTROL_PLANE)
    });
    let Some(state) = complete else {
        let remains = layout.dir().join("nodes").exists() || !cgroup::find_groups(&config.name).is_empty();
        if remains {
            progress.run("removing what an earlier run left", || {
                cleanup::remove_cluster(layout, Keep::Nothing)
            })?;
        }
        return Ok(None);
    };
    if state.config != *config {
        bail!(
            "cluster {:?} runs with other options: take it down first (`cargo xtask cluster down --name {0}`)",
            config.name
        );
    }
    let cluster = Cluster::new(layout.clone(), state.clone());
    let dead: Vec<Node> = cluster.nodes().into_iter().filter(|node| node.init().is_err()).collect();
    if !dead.is_empty() {
        hierarchies.join_helpers(&config.name)?;
        let start = Start { layout, config, hierarchies, bin: &state.bin, progress };
        let repaired = dead.iter().try_for_each(|node| start.repair(node.name(), state.subnet));
        hierarchies.leave_helpers();
        repaired?;
    }
    progress.note(&format!("cluster {:?} is up", config.name));
    Ok(Some(cluster))
}
