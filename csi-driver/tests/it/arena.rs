//! Pools on real filesystems, in a mount namespace that is thrown away with its test.
//!
//! A test that is killed leaves no mount, because its namespace dies with it. What can be left is a directory, and loop
//! devices of raw block volumes; the next arena sweeps those of the dead. It knows them by a lock that only the living
//! hold, and by the pool's id in the path of the backing file.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{FlockOperation, Mode, OFlags};
use trysail_csi::Driver;
use trysail_csi::model::PoolSettings;
use trysail_csi::model::record::{Marker, decode};
use trysail_csi::store::{PoolConfig, Store};
use trysail_csi::sys::System;
use trysail_csi::sys::linux::Linux;

/// Opt-in: root, loop devices and three kinds of mkfs are needed. `cargo xtask test` sets it.
pub(crate) const OPT_IN: &str = "TRYSAIL_ROOT_TESTS";

const HOME: &str = "/var/tmp/trysail-csi-tests";
/// Sparse; enough for some volumes of the smallest XFS.
const POOL_SIZE: u64 = 8 << 30;

/// A pool of its own.
pub(crate) struct Arena {
    root: PathBuf,
    alive: Option<OwnedFd>,
    _alone: Option<MutexGuard<'static, ()>>,
}

/// One arena at a time: a child that another thread starts holds, between fork and exec, every lock of this process.
static ALONE: Mutex<()> = Mutex::new(());

/// Whether root tests were asked for.
pub(crate) fn wanted() -> bool {
    let wanted = std::env::var_os(OPT_IN).is_some();
    if !wanted {
        eprintln!("skipped: set {OPT_IN}=1 and be root");
    }
    wanted
}

impl Arena {
    /// A pool on a filesystem of this kind, for the thread of this test and its children.
    pub(crate) fn new(fs: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(HOME).unwrap();
        sweep();
        let root = tempfile::Builder::new().tempdir_in(HOME).unwrap().keep();
        let alive = alive(&root).expect("a new directory is nobody's");
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let arena = Self { root, alive: Some(alive), _alone: Some(alone) };
        let image = arena.root.join("pool.img");
        fs::File::create(&image).unwrap().set_len(POOL_SIZE).unwrap();
        let force = if fs == "ext4" { "-F" } else { "-f" };
        run(Command::new(format!("mkfs.{fs}")).args(["-q", force]).arg(&image));
        for directory in ["pool", "kubelet"] {
            fs::create_dir(arena.root.join(directory)).unwrap();
        }
        // `mount` makes a loop device that frees itself.
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(arena.pool()));
        arena
    }

    /// The arena of another process, whose namespace this one has inherited.
    pub(crate) fn existing(root: &Path) -> Self {
        Self { root: root.to_owned(), alive: None, _alone: None }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn pool(&self) -> PathBuf {
        self.root.join("pool")
    }

    /// A path that the kubelet might name.
    pub(crate) fn kubelet(&self, name: &str) -> PathBuf {
        self.root.join("kubelet").join(name)
    }

    /// This machine, for paths of this arena.
    pub(crate) fn machine(&self) -> Linux {
        Linux::new(&[self.root.join("kubelet")]).unwrap()
    }

    pub(crate) fn config(&self) -> PoolConfig {
        PoolConfig {
            name: "default".to_owned(),
            directory: self.pool(),
            settings: PoolSettings { overcommit: 10.0, ..PoolSettings::default() },
            create: true,
        }
    }

    /// A driver, and what its start found.
    pub(crate) fn driver(&self) -> (Driver, Vec<String>) {
        self.driver_on(Arc::new(self.machine()))
    }

    pub(crate) fn driver_on(&self, machine: Arc<dyn System>) -> (Driver, Vec<String>) {
        let (store, reports) = Store::open(machine, &[self.config()]).unwrap();
        let mut repairs = Vec::new();
        for (finding, result) in reports.into_iter().flat_map(|report| report.repairs) {
            assert_eq!(result, Ok(()), "{finding}");
            repairs.push(finding);
        }
        (Driver::new(store, "node-1".to_owned(), 0), repairs)
    }

    /// Loop devices of this pool's volumes.
    pub(crate) fn loops(&self) -> Vec<String> {
        pool_id(&self.root).map(|id| loops_of(&id)).unwrap_or_default()
    }

    /// Mounts below the kubelet's directory, as this thread sees them.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let below = self.root.join("kubelet");
        let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let targets = text.lines().filter_map(|line| line.split(' ').nth(4));
        targets.filter(|target| Path::new(target).starts_with(&below)).map(str::to_owned).collect()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.alive.is_none() {
            return;
        }
        if std::thread::panicking() && std::env::var_os("KEEP").is_some() {
            eprintln!("kept: {}", self.root.display());
            return;
        }
        unmount_below(&self.root);
        clean(&self.root);
    }
}

fn alive(root: &Path) -> Option<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let lock = rustix::fs::open(root.join("alive"), flags, Mode::RUSR | Mode::WUSR).ok()?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(lock)
}

/// Cleans up after tests that were killed.
fn sweep() {
    for entry in fs::read_dir(HOME).unwrap().flatten() {
        // A directory without the file is only just being made.
        if entry.path().join("alive").exists()
            && let Some(_dead) = alive(&entry.path())
        {
            clean(&entry.path());
        }
    }
}

fn pool_id(root: &Path) -> Option<String> {
    let read =
        |path: PathBuf| decode::<Marker>(&fs::read(path).ok()?).ok().map(|marker| marker.id().to_string());
    let remembered = root.join("pool-id");
    // The marker is inside the pool, which a killed test's namespace took with it.
    let id = read(root.join("pool/pool.json")).or_else(|| fs::read_to_string(&remembered).ok())?;
    let _ = fs::write(&remembered, &id);
    Some(id)
}

fn loops_of(pool_id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").unwrap().flatten() {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(&format!("/v1-{pool_id}-")) {
            found.push(format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    found.sort();
    found
}

fn unmount_below(root: &Path) {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let mut targets: Vec<_> = text.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    targets.retain(|target| Path::new(target).starts_with(root));
    // The pool's id is read before the pool goes.
    let _ = pool_id(root);
    for target in targets.into_iter().rev() {
        if let Some(id) = pool_id(root)
            && target.ends_with("/pool")
        {
            for device in loops_of(&id) {
                let _ = Command::new("losetup").args(["-d", &device]).status();
            }
        }
        let _ = Command::new("umount").arg(target).status();
    }
}

fn clean(root: &Path) {
    if let Some(id) = pool_id(root) {
        for device in loops_of(&id) {
            let _ = Command::new("losetup").args(["-d", &device]).status();
        }
    }
    let _ = fs::remove_dir_all(root);
}

/// Runs a program that has to succeed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
