//! Files of a pool.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, IFlags, Mode, OFlags};

use super::ioctl;
use crate::model::{Features, Usage};

pub(super) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

pub(super) fn create_image(path: &Path, nocow: bool) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if nocow {
        let flags = rustix::fs::ioctl_getflags(&file)?;
        rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW)?;
    }
    Ok(())
}

pub(super) fn set_size(path: &Path, bytes: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(bytes)
}

pub(super) fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
}

pub(super) fn clone(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).open(to)?;
    Ok(rustix::fs::ioctl_ficlone(&target, &source)?)
}

pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let options = &mut OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(content)
}

/// A file or a directory.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// All files of the filesystem that holds this directory.
pub(super) fn sync_pool(root: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(root)?)?)
}

/// `syncfs` takes no path descriptor, so the directory is opened again, through the one that was found safely.
pub(super) fn sync_filesystem(target: OwnedFd) -> io::Result<()> {
    let directory =
        rustix::fs::openat(target, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::syncfs(directory)?)
}

pub(super) fn list(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(super) fn size(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn usage(path: &Path) -> io::Result<Usage> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut usage = Usage::default();
    ioctl::extents(&file, |extent| {
        // Space beyond the end of the file is the filesystem's own bookkeeping.
        let length = (extent.logical + extent.length).min(size).saturating_sub(extent.logical);
        if extent.flags & ioctl::EXTENT_SHARED != 0 {
            usage.shared += length;
        } else if extent.flags & ioctl::EXTENT_UNWRITTEN != 0 {
            usage.unwritten += length;
        } else {
            usage.written += length;
        }
    })?;
    usage.hole = size.saturating_sub(usage.shared + usage.unwritten + usage.written);
    Ok(usage)
}

pub(super) fn features(directory: &Path) -> io::Result<Features> {
    let magic = rustix::fs::statfs(directory)?.f_type;
    // linux/magic.h
    let filesystem = match magic {
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683E => "btrfs".to_owned(),
        0xEF53 => "ext4".to_owned(),
        other => format!("filesystem {other:#x}"),
    };
    Ok(Features { cow: filesystem == "btrfs", reflink: can_share(directory)?, filesystem })
}

/// Tries it with two nameless files: what a filesystem is called does not say whether it was made with reflinks.
fn can_share(directory: &Path) -> io::Result<bool> {
    let nameless = || {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    };
    let mut source = nameless()?;
    source.write_all(&[1; 4096])?;
    Ok(rustix::fs::ioctl_ficlone(nameless()?, source.as_fd()).is_ok())
}

pub(super) fn lock(path: &Path) -> io::Result<Box<dyn Send + Sync>> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Box::new(file))
}
