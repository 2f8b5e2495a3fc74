//! The crash matrix on real filesystems: a process of its own is killed with SIGKILL before each effect of each call, and
//! the next one has to bring everything in order.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trysail_csi::Driver;
use trysail_csi::driver::{SnapshotRequest, StageRequest, TargetRequest};
use trysail_csi::model::{
    Capability, CapacityRange, Features, Filesystem, Published, Result, Source, Space, Usage,
};
use trysail_csi::plan::{Effect, LoopDevice, Mount, PathKind, Wanted};
use trysail_csi::sys::{DirIdentity, MountStats, System};

use crate::arena::{Arena, wanted};
use crate::crash::{block, mount, thick, wanted as volume};

const MIB: u64 = 1 << 20;

/// This machine, and the end of this process before one of its effects.
#[derive(Debug)]
struct KillBefore<S> {
    machine: S,
    done: AtomicUsize,
    /// Counted from the moment at which this is set.
    last: AtomicUsize,
}

impl<S> KillBefore<S> {
    fn new(machine: S) -> Self {
        Self { machine, done: AtomicUsize::new(0), last: AtomicUsize::new(usize::MAX) }
    }

    fn arm(&self, last: usize) {
        self.done.store(0, Ordering::SeqCst);
        self.last.store(last, Ordering::SeqCst);
    }
}

impl<S: System> System for KillBefore<S> {
    fn apply(&self, effect: &Effect) -> io::Result<()> {
        if self.done.fetch_add(1, Ordering::SeqCst) >= self.last.load(Ordering::SeqCst) {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL)?;
        }
        self.machine.apply(effect)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.machine.list(directory)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.machine.read(path)
    }
    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        self.machine.size(path)
    }
    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        self.machine.kind(path)
    }
    fn identity(&self, directory: &Path) -> io::Result<DirIdentity> {
        self.machine.identity(directory)
    }
    fn space(&self, directory: &Path) -> io::Result<Space> {
        self.machine.space(directory)
    }
    fn usage(&self, file: &Path) -> io::Result<Usage> {
        self.machine.usage(file)
    }
    fn features(&self, directory: &Path) -> io::Result<Features> {
        self.machine.features(directory)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.machine.lock(path)
    }
    fn loops(&self, images: &[PathBuf]) -> io::Result<Vec<Vec<LoopDevice>>> {
        self.machine.loops(images)
    }
    fn mounts(&self) -> io::Result<Vec<Mount>> {
        self.machine.mounts()
    }
    fn mount_stats(&self, path: &Path) -> io::Result<MountStats> {
        self.machine.mount_stats(path)
    }
    fn boot_id(&self) -> io::Result<String> {
        self.machine.boot_id()
    }
    fn random(&self) -> io::Result<u128> {
        self.machine.random()
    }
    fn now(&self) -> jiff::Timestamp {
        self.machine.now()
    }
}

/// The kubelet's paths, and a driver.
struct Bench<'a> {
    arena: &'a Arena,
    driver: Driver,
}

impl Bench<'_> {
    fn id(&self, name: &str) -> Option<String> {
        let volumes = self.driver.volumes();
        volumes.iter().find(|volume| volume.spec.name == name).map(|volume| volume.id.to_string())
    }

    fn create(&self, name: &str, block: bool) -> Result<()> {
        let range = CapacityRange { required: 32 * MIB, limit: 0 };
        let fs = (!block).then_some(Filesystem::Ext4);
        self.driver.create_volume(&Wanted { range, fs, block, ..volume(name) }).map(drop)
    }

    fn stage(&self, name: &str, capability: Capability) -> Result<()> {
        let id = self.id(name).expect("the volume exists");
        self.driver.stage(&StageRequest { id, path: self.staging(name), capability })
    }

    fn publish(&self, name: &str, capability: Capability) -> Result<()> {
        self.driver.publish(&TargetRequest {
            id: self.id(name).expect("the volume exists"),
            staging: self.staging(name),
            target: self.target(name),
            published: Published { readonly: false, capability },
        })
    }

    fn staging(&self, name: &str) -> PathBuf {
        self.arena.kubelet(&format!("staging-{name}"))
    }

    fn target(&self, name: &str) -> PathBuf {
        self.arena.kubelet(&format!("target-{name}"))
    }

    fn snapshot(&self) -> Result<()> {
        let request = SnapshotRequest { name: "s".to_owned(), source: self.id("a").expect("it exists") };
        self.driver.create_snapshot(&request).map(drop)
    }

    /// A volume in use, with a file in it.
    fn in_use(&self) {
        self.create("a", false).unwrap();
        self.stage("a", mount()).unwrap();
        fs::write(self.staging("a").join("file"), "precious").unwrap();
    }

    fn remove_everything(&self) {
        for volume in self.driver.volumes() {
            let (id, name) = (volume.id.to_string(), volume.spec.name.as_str());
            self.driver.unpublish(&id, &self.target(name)).unwrap();
            self.driver.unstage(&id, &self.staging(name)).unwrap();
            self.driver.delete_volume(&id).unwrap();
        }
        for snapshot in self.driver.snapshots() {
            self.driver.delete_snapshot(&snapshot.id.to_string()).unwrap();
        }
    }

    fn visible(&self) -> Vec<String> {
        let mut lines: Vec<_> = self
            .driver
            .volumes()
            .iter()
            .map(|volume| format!("volume {} {}", volume.spec.name, volume.size))
            .chain(self.driver.snapshots().iter().map(|snapshot| format!("snapshot {}", snapshot.name)))
            .chain(self.arena.mounts())
            .collect();
        lines.push(format!("{} loop devices", self.arena.loops().len()));
        lines.sort();
        lines
    }
}

type Step = fn(&Bench<'_>) -> Result<()>;

/// Name, what is there before, and the call.
const CASES: &[(&str, Step, Step)] = &[
    ("create", |_| Ok(()), |b| b.create("a", false)),
    (
        "create-thick",
        |_| Ok(()),
        |b| {
            let range = CapacityRange { required: 32 * MIB, limit: 0 };
            b.driver.create_volume(&Wanted { range, fs: Some(Filesystem::Ext4), ..thick("a") }).map(drop)
        },
    ),
    (
        "restore",
        |b| {
            b.in_use();
            b.snapshot()
        },
        |b| {
            let source = Some(Source::Snapshot(b.driver.snapshots()[0].id.clone()));
            let range = CapacityRange { required: 32 * MIB, limit: 0 };
            b.driver
                .create_volume(&Wanted { range, source, fs: Some(Filesystem::Ext4), ..volume("n") })
                .map(drop)
        },
    ),
    ("delete", |b| b.create("d", false), |b| b.id("d").map_or(Ok(()), |id| b.driver.delete_volume(&id))),
    (
        "snapshot",
        |b| {
            b.in_use();
            Ok(())
        },
        |b| b.snapshot(),
    ),
    (
        "expand",
        |b| {
            b.in_use();
            Ok(())
        },
        |b| {
            let range = CapacityRange { required: 64 * MIB, limit: 0 };
            b.driver.controller_expand(&b.id("a").expect("it exists"), Some(range)).map(drop)
        },
    ),
    ("stage", |b| b.create("a", false), |b| b.stage("a", mount())),
    (
        "stage-grown",
        |b| {
            b.in_use();
            let id = b.id("a").expect("it exists");
            b.driver.unstage(&id, &b.staging("a"))?;
            b.driver.controller_expand(&id, Some(CapacityRange { required: 64 * MIB, limit: 0 })).map(drop)
        },
        |b| b.stage("a", mount()),
    ),
    ("stage-block", |b| b.create("b", true), |b| b.stage("b", block())),
    (
        "publish",
        |b| {
            b.in_use();
            Ok(())
        },
        |b| b.publish("a", mount()),
    ),
    (
        "publish-block",
        |b| {
            b.create("b", true)?;
            b.stage("b", block())
        },
        |b| b.publish("b", block()),
    ),
    (
        "unpublish",
        |b| {
            b.in_use();
            b.publish("a", mount())
        },
        |b| b.driver.unpublish(&b.id("a").expect("it exists"), &b.target("a")),
    ),
    (
        "unstage",
        |b| {
            b.in_use();
            Ok(())
        },
        |b| b.driver.unstage(&b.id("a").expect("it exists"), &b.staging("a")),
    ),
    (
        "unstage-block",
        |b| {
            b.create("b", true)?;
            b.stage("b", block())
        },
        |b| b.driver.unstage(&b.id("b").expect("it exists"), &b.staging("b")),
    ),
];

const CASE: &str = "TRYSAIL_KILL_CASE";
const BEFORE: &str = "TRYSAIL_KILL_BEFORE";
const WHERE: &str = "TRYSAIL_KILL_WHERE";

/// The process that is killed. It is this test, run by the other ones.
#[test]
fn victim() {
    let Ok(case) = std::env::var(CASE) else { return };
    let (_, _, call) = CASES.iter().find(|(name, ..)| *name == case).unwrap();
    let arena = Arena::existing(Path::new(&std::env::var(WHERE).unwrap()));
    let machine = Arc::new(KillBefore::new(arena.machine()));
    let (driver, repairs) = arena.driver_on(Arc::<KillBefore<_>>::clone(&machine));
    assert_eq!(repairs, Vec::<String>::new());
    machine.arm(std::env::var(BEFORE).unwrap().parse().unwrap());
    let result = call(&Bench { arena: &arena, driver });
    panic!("it was to be killed: {result:?}");
}

fn kill(arena: &Arena, case: &str, before: usize) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::victim", "--nocapture"])
        .env(CASE, case)
        .env(BEFORE, before.to_string())
        .env(WHERE, arena.root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(
        output.status.signal(),
        Some(9),
        "{case} {before}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn bench(arena: &Arena) -> (Bench<'_>, Vec<String>) {
    let (driver, repairs) = arena.driver();
    (Bench { arena, driver }, repairs)
}

fn matrix(pool: &str) {
    if !wanted() {
        return;
    }
    let arena = Arena::new(pool);
    for (name, before, call) in CASES {
        let machine = Arc::new(KillBefore::new(arena.machine()));
        let (driver, _) = arena.driver_on(Arc::<KillBefore<_>>::clone(&machine));
        let undisturbed = Bench { arena: &arena, driver };
        before(&undisturbed).unwrap();
        machine.arm(usize::MAX);
        call(&undisturbed).unwrap();
        let effects = machine.done.load(Ordering::SeqCst);
        let expected = undisturbed.visible();
        undisturbed.remove_everything();
        drop(undisturbed);
        for at in 0..effects {
            let (first, _) = bench(&arena);
            before(&first).unwrap();
            drop(first);
            kill(&arena, name, at);
            let (second, _) = bench(&arena);
            call(&second).unwrap_or_else(|error| panic!("{name}, killed before {at}: {error}"));
            assert_eq!(second.visible(), expected, "{name}, killed before {at}");
            if let Ok(text) = fs::read_to_string(second.staging("a").join("file")) {
                assert_eq!(text, "precious");
            }
            second.remove_everything();
            drop(second);
            let (third, repairs) = bench(&arena);
            assert_eq!(repairs, Vec::<String>::new(), "{name}, killed before {at}");
            assert_eq!(third.visible(), ["0 loop devices"], "{name}, killed before {at}");
            for directory in ["vol", "snap", "new", "trash", "run"] {
                assert_eq!(
                    fs::read_dir(arena.pool().join(directory)).unwrap().count(),
                    0,
                    "{name}: {directory}"
                );
            }
        }
        println!("{pool}: {name}: killed before each of {effects} effects");
    }
}

#[test]
fn kills_on_xfs() {
    matrix("xfs");
}

#[test]
fn kills_on_btrfs() {
    matrix("btrfs");
}
