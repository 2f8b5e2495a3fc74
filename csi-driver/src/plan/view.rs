//! What a decision about one volume on this node looks at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::model::{Layout, RunRecord, VolumeRecord};

/// A loop device that has a file of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoopDevice {
    /// N of `/dev/loopN`.
    pub number: u32,
    /// Whether it goes away with its last user.
    pub autoclear: bool,
    /// Whether it bypasses the page cache of the pool's filesystem.
    pub direct_io: bool,
    /// Whether it refuses writes.
    pub read_only: bool,
}

impl LoopDevice {
    /// Its node in `/dev`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/loop{}", self.number))
    }
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub target: PathBuf,
    /// The directory or file of the filesystem that is shown there.
    pub root: PathBuf,
    /// The device, as it was named when it was mounted.
    pub source: String,
    /// The filesystem's kind.
    pub kind: String,
    /// Whether this mount refuses writes.
    pub read_only: bool,
    /// Options of the mount and of the filesystem.
    pub options: BTreeSet<String>,
}

/// What a path is, not following a symbolic link in its last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// Nothing.
    Missing,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A block device.
    Device,
    /// Anything else, symbolic links among them.
    Other,
}

/// One volume on this node.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Paths of its pool.
    pub layout: &'a Layout,
    /// Its record.
    pub volume: &'a VolumeRecord,
    /// What this node says it has done with it.
    pub run: Option<&'a RunRecord>,
    /// The loop devices that have its image.
    pub loops: Vec<LoopDevice>,
    /// Every mount.
    pub mounts: &'a [Mount],
    /// This boot.
    pub boot_id: &'a str,
}

impl View<'_> {
    /// The backing file.
    pub fn image(&self) -> PathBuf {
        self.layout.image(&self.volume.id)
    }

    /// Whether this mount shows the volume: its filesystem, or its device as a file.
    pub fn is_ours(&self, mount: &Mount) -> bool {
        self.loops.iter().any(|device| {
            let node = device.path();
            Path::new(&mount.source) == node
                || (mount.kind == "devtmpfs" || mount.kind == "tmpfs")
                    && mount.root.file_name() == node.file_name()
        })
    }

    /// The mounts at `path`, the lowest first.
    pub fn at(&self, path: &Path) -> Vec<&Mount> {
        self.mounts.iter().filter(|mount| mount.target == path).collect()
    }

    /// The mount that a look at `path` meets.
    pub fn top(&self, path: &Path) -> Option<&Mount> {
        self.mounts.iter().rfind(|mount| mount.target == path)
    }

    /// Where else the volume is mounted.
    pub fn elsewhere(&self, path: &Path) -> Vec<PathBuf> {
        self.mounts
            .iter()
            .filter(|mount| mount.target != path && self.is_ours(mount))
            .map(|mount| mount.target.clone())
            .collect()
    }

    /// The run record, if it is of this boot.
    pub fn current_run(&self) -> Option<&RunRecord> {
        self.run.filter(|run| run.boot_id == self.boot_id)
    }
}
