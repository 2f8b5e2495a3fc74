//! Every effect that this driver has on a machine. One effect is one system call, or one program that runs to its end:
//! that is the grain in which crashes are tested.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::model::Filesystem;

/// What a target path becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// For a filesystem.
    Directory,
    /// For a device.
    File,
}

/// One effect. All of them may be repeated: what is already so is left alone.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named after what they hold")]
pub enum Effect {
    /// A directory of the pool.
    MakeDir { path: PathBuf },
    /// An empty backing file; `nocow` must be chosen before its first byte.
    CreateImage { path: PathBuf, nocow: bool },
    /// The size of a backing file, without taking space.
    SetSize { path: PathBuf, bytes: u64 },
    /// The size of a backing file, and the space for all of it.
    Allocate { path: PathBuf, bytes: u64 },
    /// All blocks of `from` into the empty file `to`, shared.
    Clone { from: PathBuf, to: PathBuf },
    /// A small file, from nothing.
    Write { path: PathBuf, content: Vec<u8> },
    /// Content and size of a file to the disk.
    SyncFile { path: PathBuf },
    /// The names in a directory to the disk.
    SyncDir { path: PathBuf },
    /// Everything in a pool to the disk.
    SyncPool { root: PathBuf },
    /// Atomic.
    Rename { from: PathBuf, to: PathBuf },
    /// A file of the pool.
    RemoveFile { path: PathBuf },
    /// An empty directory of the pool.
    RemoveDir { path: PathBuf },

    /// A loop device over an image. With `autoclear` it lasts as long as somebody has it open: this process until
    /// `Release`, then the mount.
    Attach { image: PathBuf, autoclear: bool, read_only: bool, discard: bool },
    /// Stop holding the loop device of an image open.
    Release { image: PathBuf },
    /// Free the loop device of an image, and before it any loop device that somebody put on top of it.
    Detach { image: PathBuf },
    /// Wait until no loop device has the image.
    AwaitDetached { image: PathBuf },
    /// The device learns the size of its file.
    SetCapacity { image: PathBuf },

    /// mkfs.
    Format { image: PathBuf, fs: Filesystem, uuid: Uuid, discard: bool },
    /// The journal is replayed and small damage repaired.
    Check { image: PathBuf },
    /// The filesystem takes all of its device.
    Grow { image: PathBuf, fs: Filesystem, mounted: Option<PathBuf> },
    /// Everything that was written to the mounted filesystem goes to its device.
    SyncMount { target: PathBuf },
    /// Everything that was written to the device of an image goes to the image.
    SyncDevice { image: PathBuf },

    /// The last component of a path that the kubelet named.
    MakeTarget { path: PathBuf, kind: TargetKind },
    /// The filesystem in an image.
    Mount { image: PathBuf, target: PathBuf, fs: Filesystem, options: BTreeSet<String> },
    /// A mounted filesystem at a second place.
    Bind { from: PathBuf, target: PathBuf, read_only: bool },
    /// The device of an image as a file.
    BindDevice { image: PathBuf, target: PathBuf, read_only: bool },
    /// The topmost mount.
    Unmount { target: PathBuf },
    /// The last component of a path that the kubelet named.
    RemoveTarget { path: PathBuf },
}

impl Effect {
    /// After such an effect has failed, nobody knows what is on disk: the kernel drops what it could not write and
    /// reports success the next time.
    pub fn is_sync(&self) -> bool {
        matches!(self, Self::SyncFile { .. } | Self::SyncDir { .. } | Self::SyncPool { .. })
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = Path::display;
        let flag = |on: bool, text: &'static str| if on { text } else { "" };
        match self {
            Self::MakeDir { path } => write!(f, "mkdir {}", p(path)),
            Self::CreateImage { path, nocow } => write!(f, "create {}{}", p(path), flag(*nocow, " nocow")),
            Self::SetSize { path, bytes } => write!(f, "truncate {} {bytes}", p(path)),
            Self::Allocate { path, bytes } => write!(f, "fallocate {} {bytes}", p(path)),
            Self::Clone { from, to } => write!(f, "reflink {} {}", p(from), p(to)),
            Self::Write { path, .. } => write!(f, "write {}", p(path)),
            Self::SyncFile { path } => write!(f, "fsync {}", p(path)),
            Self::SyncDir { path } => write!(f, "fsync {}/", p(path)),
            Self::SyncPool { root } => write!(f, "syncfs {}", p(root)),
            Self::Rename { from, to } => write!(f, "rename {} {}", p(from), p(to)),
            Self::RemoveFile { path } => write!(f, "unlink {}", p(path)),
            Self::RemoveDir { path } => write!(f, "rmdir {}", p(path)),
            Self::Attach { image, autoclear, read_only, discard } => write!(
                f,
                "attach {}{}{}{}",
                p(image),
                flag(*autoclear, " autoclear"),
                flag(*read_only, " ro"),
                flag(*discard, " discard")
            ),
            Self::Release { image } => write!(f, "release {}", p(image)),
            Self::Detach { image } => write!(f, "detach {}", p(image)),
            Self::AwaitDetached { image } => write!(f, "await detached {}", p(image)),
            Self::SetCapacity { image } => write!(f, "set capacity {}", p(image)),
            Self::Format { image, fs, discard, .. } => {
                write!(f, "mkfs.{fs} {}{}", p(image), flag(!*discard, " nodiscard"))
            }
            Self::Check { image } => write!(f, "fsck {}", p(image)),
            Self::Grow { image, fs, mounted: None } => write!(f, "grow {fs} {}", p(image)),
            Self::Grow { image, fs, mounted: Some(at) } => write!(f, "grow {fs} {} at {}", p(image), p(at)),
            Self::SyncMount { target } => write!(f, "syncfs {}", p(target)),
            Self::SyncDevice { image } => write!(f, "sync device {}", p(image)),
            Self::MakeTarget { path, kind } => write!(f, "make {kind:?} {}", p(path)),
            Self::Mount { image, target, fs, options } => {
                let options: Vec<_> = options.iter().map(String::as_str).collect();
                write!(f, "mount {fs} {} {} [{}]", p(image), p(target), options.join(","))
            }
            Self::Bind { from, target, read_only } => {
                write!(f, "bind {} {}{}", p(from), p(target), flag(*read_only, " ro"))
            }
            Self::BindDevice { image, target, read_only } => {
                write!(f, "bind device {} {}{}", p(image), p(target), flag(*read_only, " ro"))
            }
            Self::Unmount { target } => write!(f, "umount {}", p(target)),
            Self::RemoveTarget { path } => write!(f, "remove {}", p(path)),
        }
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
