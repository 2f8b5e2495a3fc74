//! A machine that can be killed and can lose power at any effect.
//!
//! Its disk keeps, after a power cut, exactly what was synced: a file has the content of its last `fsync` (none: it is
//! empty), a directory the names of its last. A rename is atomic, and lasts once either directory was synced. Real
//! filesystems keep more, often; a driver must not count on it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use trysail_csi::model::{Features, Filesystem, Space, Usage};
use trysail_csi::plan::{Effect, LoopDevice, Mount, PathKind, TargetKind};
use trysail_csi::sys::{DirIdentity, MountStats, System};
use uuid::Uuid;

pub(crate) const POOL: &str = "/pool";

/// How a life of the driver ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// SIGKILL: the kernel goes on.
    Kill,
    /// Power is cut; only what was synced is there.
    PowerCut,
    /// Power is cut, and everything had reached the disk by luck.
    LuckyPowerCut,
    /// Power is cut; all names had reached the disk, and of the files only what was synced.
    NamesOnly,
    /// Power is cut; of what was not synced, a part chosen by this number had reached the disk.
    PartialPowerCut(u64),
}

/// What is inside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Guest {
    #[default]
    Zeroes,
    Formatted {
        fs: Filesystem,
        uuid: Uuid,
        size: u64,
        data: u64,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
struct File {
    size: u64,
    content: Vec<u8>,
    guest: Guest,
    allocated: bool,
    shared: bool,
}

type Names = BTreeMap<String, u64>;
/// A directory and a name in it.
type Name = (u64, String);

#[derive(Clone, Debug, Default)]
struct Disk {
    files: BTreeMap<u64, File>,
    directories: BTreeMap<u64, Names>,
}

#[derive(Clone, Debug)]
struct Loop {
    number: u32,
    file: u64,
    autoclear: bool,
    read_only: bool,
    size: u64,
}

#[derive(Debug, Default)]
struct World {
    now: Disk,
    durable: Disk,
    /// Renames that no sync has made durable: directories, names and inode.
    renames: Vec<(Name, Name, u64)>,
    next_inode: u64,
    loops: Vec<Loop>,
    held: BTreeSet<u64>,
    mounts: Vec<Mount>,
    targets: BTreeMap<PathBuf, TargetKind>,
    boots: u32,
    drawn: u128,
    effects: Vec<String>,
    syncs: Vec<usize>,
    die_before: Option<usize>,
    skip: Option<usize>,
    fail: Option<(usize, io::ErrorKind)>,
    total: u64,
    reflink: bool,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Fake(Mutex<World>);

const ROOT: u64 = 1;

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Fake {
    pub(crate) fn new() -> Self {
        let mut world = World { next_inode: ROOT + 1, total: 100 << 30, reflink: true, ..World::default() };
        for disk in [&mut world.now, &mut world.durable] {
            disk.directories.insert(ROOT, Names::new());
        }
        Self(Mutex::new(world))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// A machine whose pool cannot share blocks.
    pub(crate) fn without_reflink(self) -> Self {
        self.world().reflink = false;
        self
    }

    /// Starts counting effects; the process dies before the one with this number.
    pub(crate) fn die_before(&self, effect: Option<usize>) {
        let mut world = self.world();
        world.effects.clear();
        world.syncs.clear();
        world.die_before = effect;
    }

    /// The sync with this number does nothing.
    pub(crate) fn skip(&self, effect: Option<usize>) {
        self.world().skip = effect;
    }

    /// The effect with this number fails, and nothing else does.
    pub(crate) fn fail(&self, effect: usize, kind: io::ErrorKind) {
        self.world().fail = Some((effect, kind));
    }

    /// Effects since the count started.
    pub(crate) fn effects(&self) -> Vec<String> {
        self.world().effects.clone()
    }

    /// Which of them were syncs.
    pub(crate) fn syncs(&self) -> Vec<usize> {
        self.world().syncs.clone()
    }

    /// The end of one life; the next one can begin.
    pub(crate) fn crash(&self, crash: Crash) {
        let world = &mut *self.world();
        world.die_before = None;
        world.skip = None;
        world.held.clear();
        if crash == Crash::Kill {
            world.autoclear();
            return;
        }
        world.loops.clear();
        world.mounts.clear();
        world.boots += 1;
        match crash {
            Crash::Kill | Crash::LuckyPowerCut => {}
            Crash::PowerCut => world.now = world.durable.clone(),
            Crash::NamesOnly => {
                let directories: Vec<u64> = world.now.directories.keys().copied().collect();
                for inode in directories {
                    world.sync_directory(inode);
                }
                world.now = world.durable.clone();
            }
            Crash::PartialPowerCut(choice) => {
                let mut bits = Bits(choice);
                let files: Vec<u64> = world.now.files.keys().copied().filter(|_| bits.next()).collect();
                for inode in files {
                    world.sync_file(inode);
                }
                let directories: Vec<u64> =
                    world.now.directories.keys().copied().filter(|_| bits.next()).collect();
                for inode in directories {
                    world.sync_directory(inode);
                }
                world.now = world.durable.clone();
            }
        }
        world.durable = world.now.clone();
        world.renames.clear();
    }

    /// What a pod has written to the filesystem mounted at `path`, synced.
    pub(crate) fn write_data(&self, path: &str, value: u64) {
        let world = &mut *self.world();
        let inode = world.inode_mounted_at(path);
        for disk in [&mut world.now, &mut world.durable] {
            if let Some(Guest::Formatted { data, .. }) =
                disk.files.get_mut(&inode).map(|file| &mut file.guest)
            {
                *data = value;
            }
        }
    }

    /// The content of an image.
    pub(crate) fn guest(&self, image: &Path) -> Guest {
        let world = &*self.world();
        world.now.files[&world.lookup(image).unwrap()].guest
    }

    /// Images that have a loop device.
    pub(crate) fn attached(&self) -> usize {
        self.world().loops.len()
    }

    /// Paths that are mounted.
    pub(crate) fn mounted(&self) -> Vec<PathBuf> {
        self.world().mounts.iter().map(|mount| mount.target.clone()).collect()
    }

    /// Every path of the pool.
    pub(crate) fn tree(&self) -> Vec<String> {
        let world = &*self.world();
        let mut paths = Vec::new();
        world.walk(ROOT, "", &mut paths);
        paths
    }

    /// Cuts a file short, as a failing disk might.
    pub(crate) fn truncate(&self, path: &Path, length: usize) {
        let world = &mut *self.world();
        let inode = world.lookup(path).unwrap();
        world.now.files.get_mut(&inode).unwrap().content.truncate(length);
        world.sync_file(inode);
    }
}

/// A stream of bits out of one number (splitmix64).
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)) & 1 == 1
    }
}

impl World {
    fn lookup(&self, path: &Path) -> Option<u64> {
        let rest = path.strip_prefix(POOL).ok()?;
        rest.iter().try_fold(ROOT, |at, name| self.now.directories.get(&at)?.get(name.to_str()?).copied())
    }

    fn parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let parent = self.lookup(path.parent().unwrap()).ok_or_else(missing)?;
        Ok((parent, path.file_name().unwrap().to_str().unwrap().to_owned()))
    }

    fn add(&mut self, path: &Path) -> io::Result<u64> {
        let (parent, name) = self.parent(path)?;
        let inode = self.next_inode;
        self.next_inode += 1;
        let names = self.now.directories.get_mut(&parent).ok_or_else(missing)?;
        if names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        names.insert(name, inode);
        Ok(inode)
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let Ok((parent, name)) = self.parent(path) else { return Ok(()) };
        let Some(inode) = self.now.directories[&parent].get(&name).copied() else { return Ok(()) };
        if self.now.directories.get(&inode).is_some_and(|names| !names.is_empty()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.now.directories.get_mut(&parent).unwrap().remove(&name);
        Ok(())
    }

    fn file(&mut self, path: &Path) -> io::Result<&mut File> {
        let inode = self.lookup(path).ok_or_else(missing)?;
        self.now.files.get_mut(&inode).ok_or_else(missing)
    }

    fn sync_file(&mut self, inode: u64) {
        if let Some(file) = self.now.files.get(&inode) {
            self.durable.files.insert(inode, file.clone());
        }
    }

    fn sync_directory(&mut self, inode: u64) {
        let Some(names) = self.now.directories.get(&inode).cloned() else { return };
        for child in names.values() {
            // What a name points to exists; its content is another matter.
            if self.now.directories.contains_key(child) {
                self.durable.directories.entry(*child).or_default();
            } else {
                self.durable.files.entry(*child).or_default();
            }
        }
        self.durable.directories.insert(inode, names);
        let (done, open): (Vec<_>, Vec<_>) =
            self.renames.drain(..).partition(|(from, to, _)| from.0 == inode || to.0 == inode);
        self.renames = open;
        for ((from, from_name), (to, to_name), moved) in done {
            let names = self.durable.directories.entry(from).or_default();
            if names.get(&from_name) == Some(&moved) {
                names.remove(&from_name);
            }
            // Unless it has been renamed on, or removed, since.
            if self.now.directories[&to].get(&to_name) == Some(&moved) {
                self.durable.directories.entry(to).or_default().insert(to_name, moved);
            }
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let source = self.parent(from)?;
        let target = self.parent(to)?;
        let inode = self
            .now
            .directories
            .get_mut(&source.0)
            .and_then(|names| names.remove(&source.1))
            .ok_or_else(missing)?;
        self.now.directories.get_mut(&target.0).ok_or_else(missing)?.insert(target.1.clone(), inode);
        self.renames.push((source, target, inode));
        Ok(())
    }

    fn walk(&self, inode: u64, path: &str, into: &mut Vec<String>) {
        for (name, child) in &self.now.directories[&inode] {
            let path = format!("{path}/{name}");
            into.push(path.clone());
            if self.now.directories.contains_key(child) {
                self.walk(*child, &path, into);
            }
        }
    }

    fn loop_of(&mut self, image: &Path) -> io::Result<&mut Loop> {
        let inode = self.lookup(image).ok_or_else(missing)?;
        self.loops.iter_mut().find(|device| device.file == inode).ok_or_else(missing)
    }

    fn autoclear(&mut self) {
        let (mounts, held) = (&self.mounts, &self.held);
        self.loops.retain(|device| {
            !device.autoclear
                || held.contains(&device.file)
                || mounts.iter().any(|mount| mount.source == format!("/dev/loop{}", device.number))
        });
    }

    fn inode_mounted_at(&self, path: &str) -> u64 {
        let mount = self.mounts.iter().rfind(|mount| mount.target == Path::new(path)).expect("it is mounted");
        self.loops.iter().find(|device| mount.source == format!("/dev/loop{}", device.number)).unwrap().file
    }

    fn attach(&mut self, image: &Path, autoclear: bool, read_only: bool) -> io::Result<()> {
        let inode = self.lookup(image).ok_or_else(missing)?;
        let size = self.now.files[&inode].size;
        if !self.loops.iter().any(|device| device.file == inode) {
            let number =
                (0..=u32::MAX).find(|n| self.loops.iter().all(|device| device.number != *n)).unwrap();
            self.loops.push(Loop { number, file: inode, autoclear, read_only, size });
        }
        self.held.insert(inode);
        Ok(())
    }

    fn mount(
        &mut self,
        source: String,
        root: &str,
        target: &Path,
        kind: &str,
        read_only: bool,
    ) -> io::Result<()> {
        if !self.targets.contains_key(target) {
            return Err(missing());
        }
        self.mounts.push(Mount {
            target: target.to_owned(),
            root: root.into(),
            source,
            kind: kind.to_owned(),
            read_only,
            options: BTreeSet::new(),
        });
        Ok(())
    }

    fn do_it(&mut self, effect: &Effect) -> io::Result<()> {
        match effect {
            Effect::MakeDir { path } => match self.add(path) {
                Ok(inode) => drop(self.now.directories.insert(inode, Names::new())),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            },
            Effect::CreateImage { path, .. } => {
                let inode = self.add(path)?;
                self.now.files.insert(inode, File::default());
            }
            Effect::SetSize { path, bytes } => self.file(path)?.size = *bytes,
            Effect::Allocate { path, bytes } => {
                let file = self.file(path)?;
                (file.size, file.allocated) = ((*bytes).max(file.size), true);
            }
            Effect::Clone { from, to } => {
                self.file(from)?.shared = true;
                let file = self.file(from)?.clone();
                *self.file(to)? = file;
            }
            Effect::Write { path, content } => {
                if self.lookup(path).is_none() {
                    let inode = self.add(path)?;
                    self.now.files.insert(inode, File::default());
                }
                let file = self.file(path)?;
                (file.content, file.size) = (content.clone(), content.len() as u64);
            }
            Effect::SyncFile { path } => {
                let inode = self.lookup(path).ok_or_else(missing)?;
                self.sync_file(inode);
            }
            Effect::SyncDir { path } => {
                let inode = self.lookup(path).ok_or_else(missing)?;
                self.sync_directory(inode);
            }
            Effect::SyncPool { .. } => {
                self.durable = self.now.clone();
                self.renames.clear();
            }
            Effect::Rename { from, to } => self.rename(from, to)?,
            Effect::RemoveFile { path } | Effect::RemoveDir { path } => self.unlink(path)?,
            other => return self.do_kernel(other),
        }
        Ok(())
    }

    fn do_kernel(&mut self, effect: &Effect) -> io::Result<()> {
        match effect {
            Effect::Attach { image, autoclear, read_only, .. } => {
                self.attach(image, *autoclear, *read_only)?;
            }
            Effect::Release { image } => {
                if let Some(inode) = self.lookup(image) {
                    self.held.remove(&inode);
                    self.autoclear();
                }
            }
            Effect::Detach { image } => {
                if let Some(inode) = self.lookup(image) {
                    self.held.remove(&inode);
                    self.loops.retain(|device| device.file != inode);
                }
            }
            Effect::AwaitDetached { image } => {
                if self.loop_of(image).is_ok() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Effect::SetCapacity { image } => {
                if let Some(inode) = self.lookup(image) {
                    let size = self.now.files[&inode].size;
                    self.loops
                        .iter_mut()
                        .filter(|device| device.file == inode)
                        .for_each(|device| device.size = size);
                }
            }
            Effect::Format { image, fs, uuid, .. } => {
                let size = self.loop_of(image)?.size;
                self.file(image)?.guest = Guest::Formatted { fs: *fs, uuid: *uuid, size, data: 0 };
            }
            Effect::Check { image } => {
                self.loop_of(image)?;
            }
            Effect::Grow { image, .. } => {
                let to = self.loop_of(image)?.size;
                match &mut self.file(image)?.guest {
                    Guest::Formatted { size, .. } => *size = to,
                    Guest::Zeroes => return Err(io::Error::other("no filesystem")),
                }
                // Growing is a transaction of the guest's own journal.
                let inode = self.lookup(image).unwrap();
                self.sync_file(inode);
            }
            Effect::SyncDevice { image } => {
                let inode = self.lookup(image).ok_or_else(missing)?;
                self.sync_file(inode);
            }
            Effect::SyncMount { .. } => {}
            other => return self.do_mounts(other),
        }
        Ok(())
    }

    fn do_mounts(&mut self, effect: &Effect) -> io::Result<()> {
        match effect {
            Effect::MakeTarget { path, kind } => {
                self.targets.insert(path.clone(), *kind);
            }
            Effect::Mount { image, target, fs, .. } => {
                match self.file(image)?.guest {
                    Guest::Formatted { fs: has, .. } if has == *fs => {}
                    _ => return Err(io::Error::other(format!("no {fs} there"))),
                }
                let source = format!("/dev/loop{}", self.loop_of(image)?.number);
                self.mount(source, "/", target, fs.name(), false)?;
            }
            Effect::Bind { from, target, read_only } => {
                let below =
                    self.mounts.iter().rfind(|mount| mount.target == *from).cloned().ok_or_else(missing)?;
                self.mount(below.source, "/", target, &below.kind, *read_only)?;
            }
            Effect::BindDevice { image, target, read_only } => {
                let number = self.loop_of(image)?.number;
                self.mount("udev".to_owned(), &format!("/loop{number}"), target, "devtmpfs", *read_only)?;
            }
            Effect::Unmount { target } => {
                if let Some(at) = self.mounts.iter().rposition(|mount| mount.target == *target) {
                    self.mounts.remove(at);
                    self.autoclear();
                }
            }
            Effect::RemoveTarget { path } => {
                if self.mounts.iter().any(|mount| mount.target == *path) {
                    return Err(io::ErrorKind::ResourceBusy.into());
                }
                self.targets.remove(path);
            }
            _ => unreachable!("{effect} is done elsewhere"),
        }
        Ok(())
    }
}

impl System for Fake {
    fn apply(&self, effect: &Effect) -> io::Result<()> {
        let world = &mut *self.world();
        let number = world.effects.len();
        if world.die_before.is_some_and(|last| number >= last) {
            // The dead do nothing, not even clean up.
            return Err(io::Error::other("killed"));
        }
        world.effects.push(effect.to_string());
        let is_sync = effect.is_sync() || matches!(effect, Effect::SyncDevice { .. });
        if is_sync {
            world.syncs.push(number);
        }
        if world.skip == Some(number) {
            assert!(is_sync, "only syncs are skipped");
            return Ok(());
        }
        match world.fail {
            Some((failing, kind)) if failing == number => {
                world.fail = None;
                Err(kind.into())
            }
            _ => world.do_it(effect),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inode = world.lookup(directory).ok_or_else(missing)?;
        Ok(world.now.directories.get(&inode).ok_or_else(missing)?.keys().cloned().collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.world().file(path)?.content.clone())
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(self.world().file(path).ok().map(|file| file.size))
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        Ok(match self.world().targets.get(path) {
            None => PathKind::Missing,
            Some(TargetKind::Directory) => PathKind::Directory,
            Some(TargetKind::File) => PathKind::File,
        })
    }

    fn identity(&self, directory: &Path) -> io::Result<DirIdentity> {
        Ok(DirIdentity { device: 1, inode: self.world().lookup(directory).ok_or_else(missing)? })
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let world = self.world();
        let taken: u64 = world.now.files.values().filter(|file| file.allocated).map(|file| file.size).sum();
        Ok(Space { total: world.total, available: world.total.saturating_sub(taken) })
    }

    fn usage(&self, file: &Path) -> io::Result<Usage> {
        let mut world = self.world();
        let file = world.file(file)?;
        Ok(match (file.allocated, file.shared) {
            (_, true) => Usage { shared: file.size, ..Usage::default() },
            (true, false) => Usage { written: file.size, ..Usage::default() },
            (false, false) => Usage { hole: file.size, ..Usage::default() },
        })
    }

    fn features(&self, _: &Path) -> io::Result<Features> {
        Ok(Features { filesystem: "fake".to_owned(), reflink: self.world().reflink, cow: false })
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }

    fn loops(&self, images: &[PathBuf]) -> io::Result<Vec<Vec<LoopDevice>>> {
        let world = self.world();
        let of = |image: &PathBuf| {
            let inode = world.lookup(image);
            let devices = world.loops.iter().filter(|device| Some(device.file) == inode);
            devices
                .map(|device| LoopDevice {
                    number: device.number,
                    autoclear: device.autoclear,
                    direct_io: true,
                    read_only: device.read_only,
                })
                .collect()
        };
        Ok(images.iter().map(of).collect())
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        Ok(self.world().mounts.clone())
    }

    fn mount_stats(&self, _: &Path) -> io::Result<MountStats> {
        Ok(MountStats::default())
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(format!("boot-{}", self.world().boots))
    }

    fn random(&self) -> io::Result<u128> {
        let mut world = self.world();
        world.drawn += 1;
        Ok(world.drawn)
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_700_000_000).unwrap()
    }
}
