//! `VolumeCapability`: how a volume is used. Parsed once; what is parsed is supported.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Error, Filesystem, Result};

/// Who may use a volume at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessMode {
    /// One node; any number of its pods, as far as the kubelet allows.
    SingleNodeWriter,
    /// One node, reading.
    SingleNodeReaderOnly,
    /// Any number of readers. The volume stays on one node all the same.
    MultiNodeReaderOnly,
    /// ReadWriteOncePod: one target path.
    SingleNodeSingleWriter,
    /// One node, any number of pods.
    SingleNodeMultiWriter,
}

impl AccessMode {
    /// Whether a second target path is refused.
    pub fn is_exclusive(self) -> bool {
        self == Self::SingleNodeSingleWriter
    }

    /// Whether nobody may write.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::SingleNodeReaderOnly | Self::MultiNodeReaderOnly)
    }
}

/// As what a volume appears in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum AccessType {
    /// A block device.
    Block,
    /// A directory.
    Mount {
        /// `fs_type`; none leaves the choice to the volume.
        fs: Option<Filesystem>,
        /// `mount_flags`, allowed ones only.
        options: BTreeSet<String>,
    },
}

/// One `VolumeCapability`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    /// As what.
    pub access: AccessType,
    /// For whom.
    pub mode: AccessMode,
}

/// Mount options that a user may ask for. Everything else is refused: an option can name files of the host
/// (`logdev=`, `device=`), weaken the node (`suid`, `dev` are not ours to give) or void what is promised (`nobarrier`).
const ALLOWED: [&str; 22] = [
    "ro",
    "rw",
    "noatime",
    "relatime",
    "strictatime",
    "nodiratime",
    "lazytime",
    "nosuid",
    "nodev",
    "noexec",
    "sync",
    "dirsync",
    "discard",
    "nodiscard",
    "nouuid",
    "inode64",
    "largeio",
    "swalloc",
    "filestreams",
    "acl",
    "noacl",
    "user_xattr",
];

/// Options with a value, of which any of these values is harmless.
const ALLOWED_PREFIXES: [&str; 6] = ["commit=", "compress=", "allocsize=", "logbsize=", "logbufs=", "data="];

/// One mount option, if users may ask for it.
pub fn mount_option(option: &str) -> Result<String> {
    let plain_value = |value: &str| {
        !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b':')
    };
    let allowed = ALLOWED.contains(&option)
        || ALLOWED_PREFIXES.iter().any(|prefix| option.strip_prefix(prefix).is_some_and(plain_value));
    if allowed {
        return Ok(option.to_owned());
    }
    Err(Error::invalid(
        "volume_capability.mount.mount_flags",
        format!(
            "{option:?} is not allowed; allowed are {}, {}…",
            ALLOWED.join(", "),
            ALLOWED_PREFIXES.join("…, ")
        ),
    ))
}

/// What all capabilities of a request agree on: the access type. One volume cannot be both.
pub fn common_access(capabilities: &[Capability]) -> Result<Option<Filesystem>, Error> {
    let mut filesystems = BTreeSet::new();
    let mut blocks = 0;
    for capability in capabilities {
        match &capability.access {
            AccessType::Block => blocks += 1,
            AccessType::Mount { fs, .. } => {
                filesystems.insert(*fs);
            }
        }
    }
    if blocks > 0 && !filesystems.is_empty() {
        return Err(Error::invalid("volume_capabilities", "block and mount exclude each other"));
    }
    let named: Vec<Filesystem> = filesystems.into_iter().flatten().collect();
    match named.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        _ => Err(Error::invalid("volume_capabilities", "a volume has one fs_type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A storage class is written by an administrator, a PV by whoever may write PVs: options must not reach beyond
    /// the volume.
    #[test]
    fn options_cannot_reach_beyond_the_volume() {
        for good in ["noatime", "discard", "commit=30", "compress=zstd:3"] {
            assert_eq!(mount_option(good), Ok(good.to_owned()));
        }
        for bad in
            ["", "logdev=/dev/sda", "device=/dev/sda", "commit=", "data=a,b", "suid", "nobarrier", "commit=/"]
        {
            assert!(mount_option(bad).is_err(), "{bad}");
        }
    }
}
