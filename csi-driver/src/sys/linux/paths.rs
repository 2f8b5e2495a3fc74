//! Paths that the kubelet names. They lie in directories that pods can write to, so no symbolic link is followed below
//! the kubelet's root: the root is opened once, and everything below it with `openat2`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::plan::{PathKind, TargetKind};

/// The kubelet's root, and whatever else targets may lie below.
#[derive(Debug)]
pub(super) struct Roots(Vec<(PathBuf, OwnedFd)>);

const FOUND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

impl Roots {
    pub(super) fn open(roots: &[PathBuf]) -> io::Result<Self> {
        let open = |path: &PathBuf| {
            let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
            let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
                let error = io::Error::from(error);
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            Ok((path.clone(), fd))
        };
        roots.iter().map(open).collect::<io::Result<_>>().map(Self)
    }

    fn locate(&self, path: &Path) -> io::Result<(&OwnedFd, PathBuf)> {
        let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
        let found = self.0.iter().find_map(|(root, fd)| Some((fd, path.strip_prefix(root).ok()?.to_owned())));
        match found {
            Some((fd, rest)) if plain && !rest.as_os_str().is_empty() => Ok((fd, rest)),
            _ => {
                let roots: Vec<_> = self.0.iter().map(|(root, _)| root.display().to_string()).collect();
                let text = format!("{} does not lie below {}", path.display(), roots.join(" or "));
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        }
    }

    pub(super) fn open_target(&self, path: &Path) -> io::Result<OwnedFd> {
        let (root, rest) = self.locate(path)?;
        Ok(beneath(root, &rest, FOUND)?)
    }

    /// The directory of a path, and its last component.
    fn parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let (root, rest) = self.locate(path)?;
        let name = rest.file_name().unwrap_or_default().to_owned();
        let parent = match rest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                beneath(root, parent, FOUND | OFlags::DIRECTORY)?
            }
            _ => rustix::io::fcntl_dupfd_cloexec(root, 0)?,
        };
        Ok((parent, name))
    }

    pub(super) fn kind(&self, path: &Path) -> io::Result<PathKind> {
        let (root, rest) = self.locate(path)?;
        match beneath(root, &rest, FOUND) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(PathKind::Missing),
            // A symbolic link in the middle, or at the end.
            Err(Errno::LOOP) => Ok(PathKind::Other),
            Err(error) => Err(error.into()),
            Ok(fd) => Ok(match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
                FileType::Directory => PathKind::Directory,
                FileType::RegularFile => PathKind::File,
                FileType::BlockDevice => PathKind::Device,
                _ => PathKind::Other,
            }),
        }
    }

    pub(super) fn make(&self, path: &Path, kind: TargetKind) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match kind {
            TargetKind::Directory => match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o750)) {
                Err(Errno::EXIST) => {}
                other => other?,
            },
            TargetKind::File => {
                let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o660))?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
            Err(Errno::ISDIR) => match rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
                Err(Errno::NOENT) => Ok(()),
                other => Ok(other?),
            },
            Err(Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// The mount itself must not be open here, or it would be busy: only its parent is.
    pub(super) fn unmount(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let target = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
        match super::mounts::patiently(|| rustix::mount::unmount(&target, UnmountFlags::NOFOLLOW)) {
            // Not a mount point, or not there at all.
            Err(Errno::INVAL | Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }
}

fn beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // Something was renamed meanwhile; the kernel wants to be asked again.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// A node in `/dev`.
pub(super) fn open_device(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, FOUND, Mode::empty())?)
}
