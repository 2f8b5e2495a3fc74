//! Where everything of a pool lies on disk. The README documents it; this is the only place that spells it.
//!
//! ```text
//! pool.json                      marker: UUID and format of the pool
//! LOCK                           held by the one process that serves the pool
//! vol/ID/{meta.json,data.img}    volumes
//! snap/ID/{meta.json,data.img}   snapshots
//! new/ID/…                       not committed: removed at the next start
//! trash/ID/…                     deleted: its files go away in their own time
//! run/ID.json                    what is staged and published on this node, and since which boot
//! ```

use std::path::{Path, PathBuf};

use super::{SnapshotId, VolumeId};

/// The paths of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

/// Directories that every pool has.
pub const DIRECTORIES: [&str; 5] = ["vol", "snap", "new", "trash", "run"];
/// Name of the record in a volume's or snapshot's directory.
pub const META: &str = "meta.json";
/// Name of the data beside it.
pub const IMAGE: &str = "data.img";

impl Layout {
    /// The pool in directory `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The pool's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The marker.
    pub fn marker(&self) -> PathBuf {
        self.root.join("pool.json")
    }

    /// The lock file.
    pub fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    /// One of [`DIRECTORIES`].
    pub fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The directory of a volume.
    pub fn volume(&self, id: &VolumeId) -> PathBuf {
        self.directory("vol").join(id.to_string())
    }

    /// The backing file of a volume.
    pub fn image(&self, id: &VolumeId) -> PathBuf {
        self.volume(id).join(IMAGE)
    }

    /// The directory of a snapshot.
    pub fn snapshot(&self, id: &SnapshotId) -> PathBuf {
        self.directory("snap").join(id.to_string())
    }

    /// The directory in which something is made before it is committed.
    pub fn new_entry(&self, id: &str) -> PathBuf {
        self.directory("new").join(id)
    }

    /// The directory that something is moved to when it is deleted.
    pub fn trash_entry(&self, id: &str) -> PathBuf {
        self.directory("trash").join(id)
    }

    /// The run record of a volume.
    pub fn run(&self, id: &VolumeId) -> PathBuf {
        self.directory("run").join(format!("{id}.json"))
    }
}

/// The name under which a file is written before it replaces `path`.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}

/// How such names end.
pub const TEMPORARY: &str = ".tmp";
