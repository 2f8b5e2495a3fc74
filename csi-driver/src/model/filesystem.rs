//! The filesystems that a volume may hold, and what each of them needs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A filesystem on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// The default: grows while mounted.
    Xfs,
    /// Grows while mounted only with `CAP_SYS_RESOURCE`.
    Ext4,
    /// ext4's driver without extents and with a journal.
    Ext3,
    /// Grows while mounted; counts no inodes.
    Btrfs,
}

const MIB: u64 = 1 << 20;

impl Filesystem {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Xfs, Self::Ext4, Self::Ext3, Self::Btrfs];
    /// What a volume gets when nobody names a filesystem.
    pub const DEFAULT: Self = Self::Xfs;

    /// The name that users, mkfs and the kernel know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
            Self::Ext3 => "ext3",
            Self::Btrfs => "btrfs",
        }
    }

    /// The smallest volume on which mkfs makes it: 300 MB is a constant of mkfs.xfs since 5.19; mkfs.btrfs asks for
    /// 109 MiB; ext wants room for a journal.
    pub fn minimum(self) -> u64 {
        match self {
            Self::Xfs => 300 * MIB,
            Self::Ext4 | Self::Ext3 => 16 * MIB,
            Self::Btrfs => 128 * MIB,
        }
    }

    /// Whether it is grown through its device while it is not mounted (the others can only grow mounted).
    pub fn grows_unmounted(self) -> bool {
        matches!(self, Self::Ext4 | Self::Ext3)
    }

    /// Whether its journal is replayed by a checker before it is mounted. XFS and btrfs replay while mounting.
    pub fn is_checked_before_mount(self) -> bool {
        matches!(self, Self::Ext4 | Self::Ext3)
    }

    /// Options without which it cannot be mounted here: a clone of an XFS has the UUID of its source, and the kernel
    /// refuses the second one otherwise.
    pub fn required_mount_options(self) -> &'static [&'static str] {
        match self {
            Self::Xfs => &["nouuid"],
            Self::Ext4 | Self::Ext3 | Self::Btrfs => &[],
        }
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Filesystem {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|fs| fs.name() == text).ok_or(())
    }
}
