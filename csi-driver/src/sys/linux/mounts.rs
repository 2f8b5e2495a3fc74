//! Mounting, by descriptors: nothing can be exchanged for something else between a look at a path and its use.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_remount, move_mount, open_tree,
};

use crate::model::Filesystem;

/// A device stays busy for some milliseconds after its last mount: so often, every 20 ms.
const ATTEMPTS: u32 = 100;

/// Repeats what is only busy for a moment.
pub(super) fn patiently<T>(mut action: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 1..ATTEMPTS {
        match action() {
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
    action()
}

/// The filesystem on `device` at `target`.
pub(super) fn mount(
    device: &Path,
    target: OwnedFd,
    fs: Filesystem,
    options: &BTreeSet<String>,
) -> io::Result<()> {
    let mut said = String::new();
    let result = patiently(|| {
        let context = fsopen(fs.name(), FsOpenFlags::FSOPEN_CLOEXEC)?;
        let result = create(&context, device, options);
        if result.is_err() {
            said = messages(&context);
        }
        result
    });
    let mount = result.map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{error} {said}"))
    })?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

fn create(context: &OwnedFd, device: &Path, options: &BTreeSet<String>) -> rustix::io::Result<OwnedFd> {
    fsconfig_set_string(context, "source", device)?;
    let mut attributes = MountAttrFlags::empty();
    for option in options {
        match (attribute(option), option.split_once('=')) {
            (Some(attribute), _) => attributes |= attribute,
            (None, _) if option == "rw" => {}
            (None, Some((key, value))) => fsconfig_set_string(context, key, value)?,
            (None, None) => fsconfig_set_flag(context, option.as_str())?,
        }
    }
    fsconfig_create(context)?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Options of a mount, beside those of a filesystem.
fn attribute(option: &str) -> Option<MountAttrFlags> {
    Some(match option {
        "ro" => MountAttrFlags::MOUNT_ATTR_RDONLY,
        "nosuid" => MountAttrFlags::MOUNT_ATTR_NOSUID,
        "nodev" => MountAttrFlags::MOUNT_ATTR_NODEV,
        "noexec" => MountAttrFlags::MOUNT_ATTR_NOEXEC,
        "noatime" => MountAttrFlags::MOUNT_ATTR_NOATIME,
        "relatime" => MountAttrFlags::MOUNT_ATTR_RELATIME,
        "strictatime" => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
        "nodiratime" => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
        _ => return None,
    })
}

/// What the kernel says about a mount that failed: one message per read.
fn messages(context: &OwnedFd) -> String {
    let mut buffer = [0_u8; 1024];
    let mut text = Vec::new();
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        text.push(String::from_utf8_lossy(&buffer[..length]).trim().to_owned());
    }
    text.join("; ")
}

/// What `from` shows, at `target`, too.
pub(super) fn bind(from: OwnedFd, target: OwnedFd, read_only: bool) -> io::Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(from, "", flags)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", target, "", flags)?;
    if !read_only {
        return Ok(());
    }
    // A remount replaces all flags, so those that the mount has go along.
    let has = rustix::fs::fstatvfs(tree.as_fd())?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (one, other) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        flags.set(other, has.contains(one));
    }
    let path: PathBuf = format!("/proc/self/fd/{}", tree.as_raw_fd()).into();
    Ok(mount_remount(path, flags, "")?)
}
