//! Network namespaces: opened by path, never entered by the thread that asked.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::fstatfs;

use super::channel::{Channel, NetlinkError, ROUTE};
use super::route::Rtnl;
use crate::spec::{CniError, Code};

/// `NSFS_MAGIC` of the kernel's magic.h.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    inode: u64,
}

impl Netns {
    /// Opens the namespace that a runtime names. `Ok(None)`: there is none at this path any more.
    pub fn open(path: &Path) -> Result<Option<Self>, CniError> {
        let bad = |msg: String| {
            CniError::new(Code::InvalidNetns, msg)
                .details("CNI_NETNS must be the path of a network namespace")
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(bad(format!("failed to open CNI_NETNS {}: {error}", path.display()))),
        };
        let kind =
            fstatfs(&file).map_err(|error| bad(format!("failed to examine {}: {error}", path.display())))?;
        if kind.filesystem_type().0 as i64 != NSFS_MAGIC {
            return Err(bad(format!("CNI_NETNS {} is no namespace", path.display())));
        }
        let inode = file.metadata().map_err(|error| bad(error.to_string()))?.ino();
        Ok(Some(Self { file, path: path.to_owned(), inode }))
    }

    /// Inode of the namespace at this path, if there is one.
    pub fn inode_of(path: &Path) -> Option<u64> {
        Self::open(path).ok().flatten().map(|netns| netns.inode)
    }

    /// Whether it is the one that the plugin itself runs in.
    pub fn is_own(&self) -> bool {
        Self::inode_of(Path::new("/proc/thread-self/ns/net")) == Some(self.inode)
    }

    /// Its inode: two paths with one inode are one namespace.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Its descriptor.
    pub(super) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` inside, on a thread of its own: a thread that could not come back would wire the host.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, CniError> {
        let failed = |why: String| {
            CniError::new(Code::InvalidNetns, format!("failed to enter {}: {why}", self.path.display()))
                .details("the plugin needs CAP_SYS_ADMIN, and the path of a network namespace")
        };
        let inside = std::thread::scope(|scope| {
            let entered = || setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map(|()| work());
            scope.spawn(entered).join()
        });
        match inside {
            Ok(result) => result.map_err(|error| failed(error.desc().to_owned())),
            Err(_) => Err(failed("the work inside was given up".to_owned())),
        }
    }

    /// A socket inside.
    pub fn rtnl(&self) -> Result<Rtnl, CniError> {
        let opened: Result<Channel, NetlinkError> = self.run(|| Channel::open(ROUTE))?;
        Ok(Rtnl::new(opened?))
    }
}
