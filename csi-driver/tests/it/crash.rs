//! The crash matrix on a fake machine: every call, ended before each of its effects, in every way a life can end.
//!
//! After the crash the driver starts again, nothing half-made is left, nothing that was answered with OK is lost, and
//! the same call, repeated, ends where an undisturbed one ends.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trysail_csi::Driver;
use trysail_csi::driver::{InlineRequest, SnapshotRequest, StageRequest, TargetRequest};
use trysail_csi::model::{
    AccessMode, AccessType, Capability, CapacityRange, Content, Error, Filesystem, Parameters, PoolSettings,
    Provisioning, Published, Result, Source,
};
use trysail_csi::plan::Wanted;
use trysail_csi::store::{PoolConfig, Store};
use trysail_csi::sys::System;

use crate::fake::{Crash, Fake, Guest, POOL};

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const STAGING: &str = "/kubelet/staging";
pub(crate) const TARGET: &str = "/kubelet/target";
/// What a pod has written.
const DATA: u64 = 4711;

/// A machine and the driver that runs on it.
pub(crate) struct Bench {
    pub(crate) machine: Arc<Fake>,
    pub(crate) driver: Driver,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::start(Arc::new(Fake::new()))
    }

    pub(crate) fn start(machine: Arc<Fake>) -> Self {
        let (store, reports) = Store::open(Arc::<Fake>::clone(&machine), &[config()]).unwrap();
        for (finding, result) in reports.into_iter().flat_map(|report| report.repairs) {
            assert_eq!(result, Ok(()), "{finding}");
        }
        Self { machine, driver: Driver::new(store, "node-1".to_owned(), 0) }
    }

    pub(crate) fn restart(self, crash: Crash) -> Self {
        self.machine.crash(crash);
        Self::start(self.machine)
    }

    pub(crate) fn volume_id(&self, name: &str) -> String {
        let volumes = self.driver.volumes();
        volumes.iter().find(|volume| volume.spec.name == name).expect("the volume exists").id.to_string()
    }

    pub(crate) fn stage(&self, name: &str, capability: Capability) -> Result<()> {
        self.driver.stage(&StageRequest { id: self.volume_id(name), path: STAGING.into(), capability })
    }

    pub(crate) fn publish(&self, name: &str, capability: Capability) -> Result<()> {
        self.driver.publish(&TargetRequest {
            id: self.volume_id(name),
            staging: STAGING.into(),
            target: TARGET.into(),
            published: Published { readonly: false, capability },
        })
    }

    pub(crate) fn snapshot(&self, name: &str, source: &str) -> Result<()> {
        let request = SnapshotRequest { name: name.to_owned(), source: self.volume_id(source) };
        self.driver.create_snapshot(&request).map(drop)
    }

    fn image(&self, name: &str) -> PathBuf {
        Path::new(POOL).join("vol").join(self.volume_id(name)).join("data.img")
    }
}

fn config() -> PoolConfig {
    PoolConfig {
        name: "default".to_owned(),
        directory: POOL.into(),
        settings: PoolSettings { overcommit: 10.0, ..PoolSettings::default() },
        create: true,
    }
}

pub(crate) fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.to_owned(),
        range: CapacityRange { required: GIB, limit: 0 },
        block: false,
        fs: Some(Filesystem::Xfs),
        parameters: Parameters::default(),
        source: None,
    }
}

pub(crate) fn thick(name: &str) -> Wanted {
    let parameters = Parameters { provisioning: Provisioning::Thick, ..Parameters::default() };
    Wanted { parameters, ..wanted(name) }
}

pub(crate) fn mount() -> Capability {
    let access = AccessType::Mount { fs: None, options: BTreeSet::new() };
    Capability { access, mode: AccessMode::SingleNodeWriter }
}

pub(crate) fn block() -> Capability {
    Capability { access: AccessType::Block, mode: AccessMode::SingleNodeWriter }
}

/// One row of the matrix.
struct Case {
    name: &'static str,
    before: fn(&Bench),
    call: fn(&Bench) -> Result<()>,
}

fn create(bench: &Bench, wanted: &Wanted) {
    bench.driver.create_volume(wanted).unwrap();
}

/// A volume that a pod has written to.
fn staged_with_data(bench: &Bench) {
    create(bench, &wanted("a"));
    bench.stage("a", mount()).unwrap();
    bench.machine.write_data(STAGING, DATA);
}

fn staged_block(bench: &Bench) {
    create(bench, &Wanted { block: true, fs: None, ..wanted("b") });
    bench.stage("b", block()).unwrap();
}

fn restore(name: &str, bench: &Bench) -> Wanted {
    let snapshot = bench.driver.snapshots()[0].id.clone();
    Wanted { source: Some(Source::Snapshot(snapshot)), ..wanted(name) }
}

const CASES: &[Case] = &[
    Case { name: "create, thin", before: |_| {}, call: |b| b.driver.create_volume(&wanted("n")).map(drop) },
    Case { name: "create, thick", before: |_| {}, call: |b| b.driver.create_volume(&thick("n")).map(drop) },
    Case {
        name: "create, from a snapshot",
        before: |b| {
            staged_with_data(b);
            b.snapshot("s", "a").unwrap();
        },
        call: |b| b.driver.create_volume(&restore("n", b)).map(drop),
    },
    Case {
        name: "create, from a volume in use",
        before: staged_with_data,
        call: |b| {
            let source = Some(Source::Volume(b.volume_id("a").parse().unwrap()));
            b.driver.create_volume(&Wanted { source, ..wanted("n") }).map(drop)
        },
    },
    Case {
        name: "delete",
        before: |b| {
            staged_with_data(b);
            create(b, &wanted("d"));
        },
        call: |b| match b.driver.volumes().iter().find(|volume| volume.spec.name == "d") {
            Some(volume) => b.driver.delete_volume(&volume.id.to_string()),
            None => Ok(()),
        },
    },
    Case { name: "snapshot", before: staged_with_data, call: |b| b.snapshot("s", "a") },
    Case {
        name: "delete a snapshot",
        before: |b| {
            staged_with_data(b);
            b.snapshot("s", "a").unwrap();
        },
        call: |b| match b.driver.snapshots().first() {
            Some(snapshot) => b.driver.delete_snapshot(&snapshot.id.to_string()),
            None => Ok(()),
        },
    },
    Case { name: "expand, in use", before: staged_with_data, call: |b| expand(b, "a") },
    Case { name: "expand, thick, not in use", before: |b| create(b, &thick("a")), call: |b| expand(b, "a") },
    Case { name: "stage, first", before: |b| create(b, &wanted("a")), call: |b| b.stage("a", mount()) },
    Case {
        name: "stage, again, grown",
        before: |b| {
            staged_with_data(b);
            b.driver.unstage(&b.volume_id("a"), Path::new(STAGING)).unwrap();
            expand(b, "a").unwrap();
        },
        call: |b| b.stage("a", mount()),
    },
    Case {
        name: "stage, again, ext4, grown",
        before: |b| {
            create(b, &Wanted { fs: Some(Filesystem::Ext4), ..wanted("a") });
            b.stage("a", mount()).unwrap();
            b.machine.write_data(STAGING, DATA);
            b.driver.unstage(&b.volume_id("a"), Path::new(STAGING)).unwrap();
            expand(b, "a").unwrap();
        },
        call: |b| b.stage("a", mount()),
    },
    Case {
        name: "stage, block",
        before: |b| create(b, &Wanted { block: true, fs: None, ..wanted("b") }),
        call: |b| b.stage("b", block()),
    },
    Case {
        name: "publish",
        before: staged_with_data,
        call: |b| {
            // After a power cut nothing is staged: the kubelet stages first.
            b.stage("a", mount())?;
            b.publish("a", mount())
        },
    },
    Case {
        name: "publish, block",
        before: staged_block,
        call: |b| {
            b.stage("b", block())?;
            b.publish("b", block())
        },
    },
    Case {
        name: "unpublish",
        before: |b| {
            staged_with_data(b);
            b.publish("a", mount()).unwrap();
        },
        call: |b| b.driver.unpublish(&b.volume_id("a"), Path::new(TARGET)),
    },
    Case {
        name: "unstage",
        before: staged_with_data,
        call: |b| b.driver.unstage(&b.volume_id("a"), Path::new(STAGING)),
    },
    Case {
        name: "unstage, block",
        before: staged_block,
        call: |b| b.driver.unstage(&b.volume_id("b"), Path::new(STAGING)),
    },
    Case { name: "publish, inline", before: |_| {}, call: |b| b.driver.publish_inline(&inline()) },
    Case {
        name: "unpublish, inline",
        before: |b| b.driver.publish_inline(&inline()).unwrap(),
        call: |b| b.driver.unpublish("csi-0123", Path::new(TARGET)),
    },
    Case {
        name: "attach",
        before: |b| create(b, &wanted("a")),
        call: |b| {
            let how = Published { readonly: false, capability: mount() };
            b.driver.attach(&b.volume_id("a"), "node-1", &how)
        },
    },
    Case {
        name: "node expand",
        before: |b| {
            staged_with_data(b);
            expand(b, "a").unwrap();
        },
        call: |b| {
            // After a power cut nothing is staged, and staging grows.
            if b.machine.mounted().is_empty() {
                b.stage("a", mount())?;
            }
            b.driver.node_expand(&b.volume_id("a"), Path::new(STAGING), 2 * GIB).map(drop)
        },
    },
];

fn inline() -> InlineRequest {
    InlineRequest {
        id: "csi-0123".to_owned(),
        target: TARGET.into(),
        capability: mount(),
        readonly: false,
        size: Some(GIB),
        parameters: Parameters::default(),
    }
}

fn expand(bench: &Bench, name: &str) -> Result<()> {
    let range = CapacityRange { required: 2 * GIB, limit: 0 };
    bench.driver.controller_expand(&bench.volume_id(name), Some(range)).map(drop)
}

const CRASHES: [Crash; 8] = [
    Crash::Kill,
    Crash::PowerCut,
    Crash::LuckyPowerCut,
    Crash::NamesOnly,
    Crash::PartialPowerCut(1),
    Crash::PartialPowerCut(2),
    Crash::PartialPowerCut(3),
    Crash::PartialPowerCut(4),
];

/// What callers can tell two states of a node apart by: no ids, no times.
fn visible(bench: &Bench, with_kernel: bool) -> Vec<String> {
    let mut lines: Vec<String> = bench
        .driver
        .volumes()
        .iter()
        .map(|volume| {
            let data = match bench.machine.guest(&bench.image(&volume.spec.name)) {
                Guest::Formatted { data, size, .. } => format!("data {data} in {size}"),
                Guest::Zeroes => "zeroes".to_owned(),
            };
            let state = match volume.content {
                Content::Raw => "raw",
                Content::Blank => "blank",
                Content::Formatted { .. } => "formatted",
            };
            let attached = if volume.attached.is_some() { " attached" } else { "" };
            format!("volume {} {} {state} {data}{attached}", volume.spec.name, volume.size)
        })
        .collect();
    lines.extend(bench.driver.snapshots().iter().map(|snapshot| format!("snapshot {}", snapshot.name)));
    if with_kernel {
        lines.extend(bench.machine.mounted().iter().map(|path| format!("mounted {}", path.display())));
        lines.push(format!("{} loop devices", bench.machine.attached()));
    }
    lines.sort();
    lines
}

/// What must hold after every start, whatever happened before.
fn check_order(bench: &Bench) {
    let tree = bench.machine.tree();
    let left: Vec<_> = tree
        .iter()
        .filter(|path| path.starts_with("/new/") || path.starts_with("/trash/") || path.ends_with("json.tmp"))
        .collect();
    assert!(left.is_empty(), "half-made things are left: {left:?}");
    for pool in bench.driver.store.pools() {
        let index = pool.index();
        assert!(index.damaged.is_empty(), "damaged: {:?}", index.damaged);
        for volume in index.volumes.values() {
            assert!(volume.size_target.is_none(), "{} is still growing", volume.id);
            let image = pool.layout.image(&volume.id);
            assert_eq!(
                bench.machine.size(&image).unwrap(),
                Some(volume.size),
                "{} has another size",
                volume.id
            );
            let guest = bench.machine.guest(&image);
            if matches!(volume.content, Content::Formatted { .. }) {
                assert!(matches!(guest, Guest::Formatted { .. }), "{} lost its filesystem", volume.id);
            }
        }
        let names: BTreeSet<_> = index.volumes.values().map(|volume| &volume.spec.name).collect();
        assert_eq!(names.len(), index.volumes.len(), "two volumes of one name");
    }
}

/// After a volume is mounted its pod writes, and what it writes stays.
fn use_it(case: &Case, bench: &Bench) {
    if case.name == "publish, inline" {
        bench.machine.write_data(TARGET, DATA + 1);
    } else if case.name.starts_with("stage") && !case.name.contains("block") {
        bench.machine.write_data(STAGING, DATA + 1);
    }
}

fn undisturbed(case: &Case) -> (Vec<String>, Vec<String>, usize, Vec<usize>) {
    let bench = Bench::new();
    (case.before)(&bench);
    bench.machine.die_before(None);
    (case.call)(&bench).unwrap();
    let effects = bench.machine.effects().len();
    let syncs = bench.machine.syncs();
    use_it(case, &bench);
    (visible(&bench, true), visible(&bench, false), effects, syncs)
}

/// One cell: `call` dies before effect `at` (with one past the last: right after its answer), the driver starts again,
/// and the call is repeated.
fn cell(case: &Case, at: usize, crash: Crash, skip: Option<usize>) {
    let (with_kernel, on_disk, effects, _) = undisturbed(case);
    let bench = Bench::new();
    (case.before)(&bench);
    let before = visible(&bench, false);
    bench.machine.die_before(Some(at));
    bench.machine.skip(skip);
    let answer = (case.call)(&bench);
    assert_eq!(answer.is_ok(), at >= effects, "{answer:?}");
    if answer.is_ok() {
        use_it(case, &bench);
    }
    let bench = bench.restart(crash);
    check_order(&bench);
    let after = visible(&bench, false);
    // What was written before is there, unless it was overwritten after an answer.
    let kept = |lines: &[String]| lines.iter().any(|line| line.contains(&format!("data {DATA} ")));
    assert!(!kept(&before) || answer.is_ok() || kept(&after), "data is gone: {after:?}");
    if answer.is_ok() {
        let promised = |lines: &[String]| {
            let kept: Vec<_> = lines.iter().filter(|line| !line.contains("mounted")).cloned().collect();
            kept
        };
        assert_eq!(promised(&after), promised(&on_disk), "an answer was OK and its effect is gone");
    }
    bench.machine.die_before(None);
    (case.call)(&bench).unwrap();
    if answer.is_err() {
        use_it(case, &bench);
    }
    if crash == Crash::Kill {
        assert_eq!(visible(&bench, true), with_kernel, "the repeated call ended elsewhere");
    } else {
        assert_eq!(visible(&bench, false), on_disk, "the repeated call ended elsewhere");
    }
    // What the repeated call found done must last as much as what it did itself.
    let bench = bench.restart(Crash::PowerCut);
    check_order(&bench);
    assert_eq!(visible(&bench, false), on_disk, "an answer was OK and its effect is gone");
}

/// What every call does, in order: the table in the README, in full. Ids and their pool are shortened.
#[test]
fn effects_of_every_call() {
    let mut text = String::new();
    for case in CASES {
        let bench = Bench::new();
        (case.before)(&bench);
        bench.machine.die_before(None);
        (case.call)(&bench).unwrap();
        writeln!(text, "{}:", case.name).unwrap();
        for effect in bench.machine.effects() {
            writeln!(text, "  {}", shorten(&effect)).unwrap();
        }
    }
    insta::assert_snapshot!(text);
}

/// `v1-pool-ulid` becomes V, `s1-pool-ulid` S.
fn shorten(text: &str) -> String {
    let short = |word: &str| match word {
        word if word.len() == 42 && word.starts_with("v1-") => "V".to_owned(),
        word if word.len() == 42 && word.starts_with("s1-") => "S".to_owned(),
        word => match word.split_once('.') {
            Some((id, rest)) if id.len() == 42 && id.starts_with("v1-") => format!("V.{rest}"),
            _ => word.to_owned(),
        },
    };
    let line = |word: &str| word.split('/').map(short).collect::<Vec<_>>().join("/");
    text.split(' ').map(line).collect::<Vec<_>>().join(" ")
}

/// A final error promises that nothing was left behind: the caller forgets the object.
#[test]
fn a_call_that_fails_leaves_nothing() {
    for case in CASES.iter().filter(|case| !case.name.contains("delete") && !case.name.starts_with("un")) {
        let (_, on_disk, effects, syncs) = undisturbed(case);
        for at in (0..effects).filter(|at| !syncs.contains(at)) {
            let bench = Bench::new();
            (case.before)(&bench);
            let state =
                |bench: &Bench| (bench.machine.tree(), bench.machine.mounted(), bench.machine.attached());
            let before = state(&bench);
            bench.machine.die_before(None);
            bench.machine.fail(at, std::io::ErrorKind::StorageFull);
            let error = (case.call)(&bench).unwrap_err();
            assert!(matches!(error, Error::Exhausted(_)), "{}: {at}: {error}", case.name);
            assert_eq!(state(&bench), before, "{}: effect {at} failed", case.name);
            (case.call)(&bench).unwrap_or_else(|error| panic!("{}: {at}: {error}", case.name));
            use_it(case, &bench);
            assert_eq!(visible(&bench, false), on_disk, "{}: effect {at} failed", case.name);
        }
    }
}

/// The tests of what starts find, and what they may not touch.
#[test]
fn a_damaged_record_is_left_alone() {
    for kept in [0, 1, 40, 200] {
        let bench = Bench::new();
        staged_with_data(&bench);
        create(&bench, &wanted("whole"));
        let id = bench.volume_id("a");
        let meta = Path::new(POOL).join("vol").join(&id).join("meta.json");
        bench.machine.truncate(&meta, kept);
        let before = bench.machine.tree();
        bench.machine.crash(Crash::PowerCut);
        let (store, reports) = Store::open(Arc::<Fake>::clone(&bench.machine), &[config()]).unwrap();
        let driver = Driver::new(store, "node-1".to_owned(), 0);
        let findings: Vec<_> = reports.into_iter().flat_map(|report| report.repairs).collect();
        assert!(
            findings.iter().any(|(finding, result)| finding.contains(&id) && result.is_err()),
            "{findings:?}"
        );
        assert_eq!(driver.volumes().len(), 1, "the other volume is there");
        for result in [driver.delete_volume(&id), driver.volume(&id).map(drop)] {
            assert!(matches!(result, Err(Error::Precondition(_))), "{result:?}");
        }
        assert_eq!(driver.health(&id).unwrap().len(), 1);
        let volumes =
            |tree: Vec<String>| tree.into_iter().filter(|path| path.starts_with("/vol")).collect::<Vec<_>>();
        assert_eq!(volumes(bench.machine.tree()), volumes(before), "nothing of it was touched");
    }
}

/// A pool that cannot share blocks refuses what it cannot do, and promises no capacity for it.
#[test]
fn a_pool_without_reflinks() {
    let bench = Bench::start(Arc::new(Fake::new().without_reflink()));
    create(&bench, &wanted("a"));
    assert!(matches!(bench.snapshot("s", "a"), Err(Error::Precondition(why)) if why.contains("default")));
    let parameters = Parameters { snapshots: true, ..Parameters::default() };
    let refused = bench.driver.create_volume(&Wanted { parameters, ..wanted("b") });
    assert!(matches!(refused, Err(Error::Exhausted(_))));
}

/// After a failed sync nobody knows what is on disk, and the kernel will not say it twice.
#[test]
fn a_failed_sync_fails_the_pool() {
    let bench = Bench::new();
    bench.machine.die_before(None);
    create(&bench, &wanted("first"));
    let last = *bench.machine.syncs().last().unwrap();
    bench.machine.die_before(None);
    bench.machine.fail(last, std::io::ErrorKind::Other);
    bench.driver.create_volume(&wanted("second")).unwrap_err();
    let error = bench.driver.create_volume(&wanted("third")).unwrap_err();
    assert!(matches!(error, Error::PoolFailed { .. }), "{error}");
    assert_eq!(bench.driver.failed_pools().len(), 1);
}

/// The matrix has no gap.
#[test]
fn every_call_survives_a_crash_before_each_of_its_effects() {
    for case in CASES {
        let (_, _, effects, _) = undisturbed(case);
        for at in 0..=effects {
            for crash in CRASHES {
                let result = catch_unwind(AssertUnwindSafe(|| cell(case, at, crash, None)));
                assert!(result.is_ok(), "{}: effect {at} of {effects}, {crash:?}", case.name);
            }
        }
    }
}

/// Without any one sync the matrix must have a gap, or the sync (or the matrix) is worth nothing.
#[test]
fn without_any_one_sync_something_is_lost() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut needless = Vec::new();
    for case in CASES {
        let (_, _, effects, syncs) = undisturbed(case);
        let bench = Bench::new();
        (case.before)(&bench);
        bench.machine.die_before(None);
        (case.call)(&bench).unwrap();
        let names = bench.machine.effects();
        for skip in syncs {
            let noticed = (skip..=effects).any(|at| {
                CRASHES.iter().any(|&crash| {
                    catch_unwind(AssertUnwindSafe(|| cell(case, at, crash, Some(skip)))).is_err()
                })
            });
            if !noticed {
                needless.push(format!("{}: {}", case.name, names[skip]));
            }
        }
    }
    drop(std::panic::take_hook());
    assert_eq!(needless, Vec::<String>::new());
}
