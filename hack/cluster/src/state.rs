//! What is remembered of a cluster between two runs of xtask, and the locks that keep two runs apart.

use std::fs::{self, File, TryLockError};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::config::ClusterConfig;
use crate::layout::{Layout, STATE_ROOT, existing_clusters};
use crate::process::write_atomically;

/// How far a cluster's start came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// A start is under way, or was cut short.
    Starting,
    /// It was complete once; single nodes may have died since.
    Up,
}

/// The stored state of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// How far its start came.
    pub phase: Phase,
    /// What was asked for.
    pub config: ClusterConfig,
    /// Its /24 of node addresses.
    pub subnet: Ipv4Addr,
    /// The Kubernetes binaries it runs: a later `setup` may have built others.
    pub bin: PathBuf,
}

impl State {
    /// Reads the state; a missing or half-written file is no state.
    pub(crate) fn read(layout: &Layout) -> Option<Self> {
        serde_json::from_slice(&fs::read(layout.state()).ok()?).ok()
    }

    pub(crate) fn write(&self, layout: &Layout) -> Result<()> {
        write_atomically(&layout.state(), &serde_json::to_vec_pretty(self)?)
    }
}

/// Subnets that clusters on this machine hold.
pub(crate) fn subnets_in_use() -> Vec<Ipv4Addr> {
    let names = existing_clusters();
    names.iter().filter_map(|name| Some(State::read(&Layout::new(name))?.subnet)).collect()
}

/// Exclusive right to change one cluster. The kernel drops it with the process, however that ends.
#[derive(Debug)]
pub(crate) struct ClusterLock {
    _file: File,
}

impl ClusterLock {
    pub(crate) fn take(layout: &Layout) -> Result<Self> {
        let file = open(&layout.lock())?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => bail!(
                "another `cargo xtask cluster` command is changing cluster {:?}: wait for it or stop it",
                layout.name()
            ),
            Err(TryLockError::Error(error)) => Err(error).context("cannot lock the cluster's state"),
        }
    }
}

/// Short-lived right to change what clusters share: machine-wide settings and the choice of subnets.
#[derive(Debug)]
pub(crate) struct MachineLock {
    _file: File,
}

impl MachineLock {
    pub(crate) fn take() -> Result<Self> {
        let file = open(&Path::new(STATE_ROOT).join(".machine.lock"))?;
        file.lock().context("cannot lock the state of all clusters")?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File> {
    fs::create_dir_all(STATE_ROOT)
        .with_context(|| format!("cannot create {STATE_ROOT}: clusters need root"))?;
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}
