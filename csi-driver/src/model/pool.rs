//! One pool as its process knows it. The truth is on disk; this is the index of it.

use std::collections::BTreeMap;

use super::{Layout, PoolId, RunRecord, SnapshotId, SnapshotRecord, VolumeId, VolumeRecord};

/// What an administrator says about a pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolSettings {
    /// Virtual bytes of thin volumes per byte of the pool.
    pub overcommit: f64,
    /// Percent of the filesystem that stay free: filesystems get slow, and btrfs stuck, when they are full.
    pub reserve_percent: u8,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { overcommit: 1.0, reserve_percent: 5 }
    }
}

/// What the pool's filesystem can do, tried out at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The kernel's name of the filesystem.
    pub filesystem: String,
    /// Whether files can share blocks: snapshots and clones need it.
    pub reflink: bool,
    /// Whether a file must be written in place to be thick, and unwritten blocks are shared too (btrfs).
    pub cow: bool,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The administrator's name for it; classes say it.
    pub name: String,
    /// Its identity in ids.
    pub id: PoolId,
    /// Its paths.
    pub layout: Layout,
    /// What the administrator says about it.
    pub settings: PoolSettings,
    /// What its filesystem can do.
    pub features: Features,
    /// Every volume.
    pub volumes: BTreeMap<VolumeId, VolumeRecord>,
    /// Every snapshot.
    pub snapshots: BTreeMap<SnapshotId, SnapshotRecord>,
    /// What is staged and published on this node.
    pub runs: BTreeMap<VolumeId, RunRecord>,
    /// Directories whose record cannot be read, and why. Nothing in them is touched.
    pub damaged: BTreeMap<String, String>,
    /// Why the pool may not be changed: after a failed sync nobody knows what is on disk.
    pub failed: Option<String>,
}

/// What a finished plan changes in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A volume is new or different.
    Volume(VolumeRecord),
    /// A volume is gone.
    NoVolume(VolumeId),
    /// A snapshot is new.
    Snapshot(SnapshotRecord),
    /// A snapshot is gone.
    NoSnapshot(SnapshotId),
    /// A volume is staged or published differently.
    Run(RunRecord),
    /// A volume is not staged.
    NoRun(VolumeId),
}

impl Pool {
    /// The index after a change on disk.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Volume(record) => drop(self.volumes.insert(record.id.clone(), record)),
            Change::NoVolume(id) => drop(self.volumes.remove(&id)),
            Change::Snapshot(record) => drop(self.snapshots.insert(record.id.clone(), record)),
            Change::NoSnapshot(id) => drop(self.snapshots.remove(&id)),
            Change::Run(record) => drop(self.runs.insert(record.volume.clone(), record)),
            Change::NoRun(id) => drop(self.runs.remove(&id)),
        }
    }

    /// The volume of that name.
    pub fn volume_named(&self, name: &str) -> Option<&VolumeRecord> {
        self.volumes.values().find(|volume| volume.spec.name == name)
    }

    /// The snapshot of that name.
    pub fn snapshot_named(&self, name: &str) -> Option<&SnapshotRecord> {
        self.snapshots.values().find(|snapshot| snapshot.name == name)
    }
}
