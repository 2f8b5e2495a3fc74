//! The door to the machine: looks, and effects. Everything that the driver does goes through [`System`].

mod ext;
pub mod linux;
pub mod mountinfo;

use std::io;
use std::path::{Path, PathBuf};

use crate::model::{Features, Space, Usage};
use crate::plan::{Effect, LoopDevice, Mount, PathKind};

pub use ext::execute;

/// Figures of a mounted filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountStats {
    /// Bytes: all, those that a user may write, those that are taken.
    pub bytes: (u64, u64, u64),
    /// Inodes in the same order; a filesystem without a fixed number of inodes says 0.
    pub inodes: (u64, u64, u64),
}

/// What tells one directory from another, whatever is mounted where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirIdentity {
    /// Its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
}

/// One machine. Looks change nothing; every change is an [`Effect`].
pub trait System: Send + Sync + std::fmt::Debug {
    /// Does it, or says why not. A repeated effect is no error.
    fn apply(&self, effect: &Effect) -> io::Result<()>;

    /// The names in a directory of a pool, sorted.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// A small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The size of a file; none if there is none.
    fn size(&self, path: &Path) -> io::Result<Option<u64>>;
    /// What is at a path that the kubelet named.
    fn kind(&self, path: &Path) -> io::Result<PathKind>;
    /// Which directory this is.
    fn identity(&self, directory: &Path) -> io::Result<DirIdentity>;
    /// Space of the filesystem that holds this directory.
    fn space(&self, directory: &Path) -> io::Result<Space>;
    /// What a file is made of.
    fn usage(&self, file: &Path) -> io::Result<Usage>;
    /// What the filesystem that holds this directory can do; tries it out.
    fn features(&self, directory: &Path) -> io::Result<Features>;
    /// For as long as the value lives, nobody else gets it. `WouldBlock` if somebody has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// For each file the loop devices that have it, found by device and inode.
    fn loops(&self, images: &[PathBuf]) -> io::Result<Vec<Vec<LoopDevice>>>;
    /// Every mount, the lower before the upper.
    fn mounts(&self) -> io::Result<Vec<Mount>>;
    /// Figures of the filesystem mounted at a path that the kubelet named.
    fn mount_stats(&self, path: &Path) -> io::Result<MountStats>;
    /// This boot.
    fn boot_id(&self) -> io::Result<String>;

    /// Random bits for new identities.
    fn random(&self) -> io::Result<u128>;
    /// The time.
    fn now(&self) -> jiff::Timestamp;
}
