//! The real machine.

mod files;
mod ioctl;
mod loops;
mod mounts;
mod paths;
mod programs;

use std::io;
use std::path::{Path, PathBuf};

use super::{DirIdentity, MountStats, System, mountinfo};
use crate::model::{Features, Space, Usage};
use crate::plan::{Effect, LoopDevice, Mount, PathKind};

use loops::Loops;
use paths::Roots;

/// This machine.
#[derive(Debug)]
pub struct Linux {
    roots: Roots,
    loops: Loops,
}

impl Linux {
    /// Paths that the kubelet names have to lie below one of these directories.
    pub fn new(kubelet_roots: &[PathBuf]) -> io::Result<Self> {
        Ok(Self { roots: Roots::open(kubelet_roots)?, loops: Loops::default() })
    }
}

/// The node of the loop device that an image has.
fn device(image: &Path) -> io::Result<PathBuf> {
    let devices = loops::of(image)?;
    match devices.first() {
        Some(device) => Ok(device.path()),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} is not attached to a loop device", image.display()),
        )),
    }
}

impl System for Linux {
    fn apply(&self, effect: &Effect) -> io::Result<()> {
        match effect {
            Effect::MakeDir { path } => files::make_dir(path),
            Effect::CreateImage { path, nocow } => files::create_image(path, *nocow),
            Effect::SetSize { path, bytes } => files::set_size(path, *bytes),
            Effect::Allocate { path, bytes } => files::allocate(path, *bytes),
            Effect::Clone { from, to } => files::clone(from, to),
            Effect::Write { path, content } => files::write(path, content),
            Effect::SyncFile { path } | Effect::SyncDir { path } => files::sync(path),
            Effect::SyncPool { root } => files::sync_pool(root),
            Effect::Rename { from, to } => std::fs::rename(from, to),
            Effect::RemoveFile { path } => files::ignore_missing(std::fs::remove_file(path)),
            Effect::RemoveDir { path } => files::ignore_missing(std::fs::remove_dir(path)),
            Effect::Attach { image, autoclear, read_only, discard } => {
                self.loops.attach(image, *autoclear, *read_only, *discard)
            }
            Effect::Release { image } => {
                self.loops.release(image);
                Ok(())
            }
            Effect::Detach { image } => self.loops.detach(image),
            Effect::AwaitDetached { image } => loops::await_detached(image),
            Effect::SetCapacity { image } => loops::set_capacity(image),
            Effect::Format { image, fs, uuid, discard } => {
                programs::format(&device(image)?, *fs, *uuid, *discard)
            }
            Effect::Check { image } => programs::check(&device(image)?),
            Effect::Grow { image, fs, mounted } => programs::grow(&device(image)?, *fs, mounted.as_deref()),
            Effect::SyncMount { target } => files::sync_filesystem(self.roots.open_target(target)?),
            Effect::SyncDevice { image } => files::sync(&device(image)?),
            Effect::MakeTarget { path, kind } => self.roots.make(path, *kind),
            Effect::Mount { image, target, fs, options } => {
                mounts::mount(&device(image)?, self.roots.open_target(target)?, *fs, options)
            }
            Effect::Bind { from, target, read_only } => {
                mounts::bind(self.roots.open_target(from)?, self.roots.open_target(target)?, *read_only)
            }
            Effect::BindDevice { image, target, read_only } => {
                let device = paths::open_device(&device(image)?)?;
                mounts::bind(device, self.roots.open_target(target)?, *read_only)
            }
            Effect::Unmount { target } => self.roots.unmount(target),
            Effect::RemoveTarget { path } => self.roots.remove(path),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        files::list(directory)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        files::size(path)
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        self.roots.kind(path)
    }

    fn identity(&self, directory: &Path) -> io::Result<DirIdentity> {
        let stat = rustix::fs::stat(directory)?;
        Ok(DirIdentity { device: stat.st_dev, inode: stat.st_ino })
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(directory)?;
        Ok(Space { total: stat.f_blocks * stat.f_frsize, available: stat.f_bavail * stat.f_frsize })
    }

    fn usage(&self, file: &Path) -> io::Result<Usage> {
        files::usage(file)
    }

    fn features(&self, directory: &Path) -> io::Result<Features> {
        files::features(directory)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        files::lock(path)
    }

    fn loops(&self, images: &[PathBuf]) -> io::Result<Vec<Vec<LoopDevice>>> {
        loops::of_each(images)
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        Ok(mountinfo::parse(&std::fs::read("/proc/thread-self/mountinfo")?))
    }

    fn mount_stats(&self, path: &Path) -> io::Result<MountStats> {
        let stat = rustix::fs::fstatvfs(self.roots.open_target(path)?)?;
        let bytes = |blocks: u64| blocks * stat.f_frsize;
        Ok(MountStats {
            bytes: (bytes(stat.f_blocks), bytes(stat.f_bavail), bytes(stat.f_blocks - stat.f_bfree)),
            inodes: (stat.f_files, stat.f_favail, stat.f_files - stat.f_ffree),
        })
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }

    fn random(&self) -> io::Result<u128> {
        let mut bytes = [0_u8; 16];
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
        }
        Ok(u128::from_ne_bytes(bytes))
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}
