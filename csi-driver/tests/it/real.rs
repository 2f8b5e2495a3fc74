//! The driver on real filesystems: XFS, btrfs and ext4 pools, with every filesystem inside.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use trysail_csi::Driver;
use trysail_csi::driver::{CapacityQuestion, SnapshotRequest, StageRequest, TargetRequest, VolumeStats};
use trysail_csi::model::{
    AccessMode, AccessType, Capability, CapacityRange, Error, Filesystem, Parameters, Provisioning,
    Published, Source,
};
use trysail_csi::plan::Wanted;
use trysail_csi::sys::System;

use crate::arena::{Arena, run, wanted};
use crate::crash::{block, mount, thick, wanted as volume};

const MIB: u64 = 1 << 20;

/// Small enough for many, large enough for every filesystem.
fn small(name: &str, fs: Filesystem) -> Wanted {
    Wanted { range: CapacityRange { required: 300 * MIB, limit: 0 }, fs: Some(fs), ..volume(name) }
}

fn stage(driver: &Driver, id: &str, path: &Path, capability: &Capability) -> Result<(), Error> {
    driver.stage(&StageRequest { id: id.to_owned(), path: path.to_owned(), capability: capability.clone() })
}

fn publish(
    driver: &Driver,
    id: &str,
    staging: &Path,
    target: &Path,
    capability: &Capability,
    readonly: bool,
) -> Result<(), Error> {
    let published = Published { readonly, capability: capability.clone() };
    let (staging, target) = (staging.to_owned(), target.to_owned());
    driver.publish(&TargetRequest { id: id.to_owned(), staging, target, published })
}

fn snapshot(driver: &Driver, name: &str, id: &str) -> Result<trysail_csi::model::SnapshotRecord, Error> {
    driver.create_snapshot(&SnapshotRequest { name: name.to_owned(), source: id.to_owned() })
}

/// Nothing of ours may be left when every volume is gone.
fn assert_clean(arena: &Arena) {
    assert_eq!(arena.loops(), Vec::<String>::new());
    assert_eq!(arena.mounts(), Vec::<String>::new());
    for directory in ["vol", "snap", "new", "trash", "run"] {
        assert_eq!(fs::read_dir(arena.pool().join(directory)).unwrap().count(), 0, "{directory}");
    }
}

/// The whole life of a volume, its snapshot and its restored twin, with the twin mounted beside it.
fn life(pool: &str, fs: Filesystem, provisioning: Provisioning) {
    let arena = Arena::new(pool);
    let (driver, repairs) = arena.driver();
    assert_eq!(repairs, Vec::<String>::new());
    let parameters = Parameters { provisioning, ..Parameters::default() };
    let wanted = Wanted { parameters: parameters.clone(), ..small("a", fs) };
    let record = driver.create_volume(&wanted).unwrap();
    assert_eq!(driver.create_volume(&wanted).unwrap(), record, "a repeated call gives the same volume");
    let id = record.id.to_string();
    let (staging, target) = (arena.kubelet("stage-a"), arena.kubelet("pod-a"));
    for _ in 0..3 {
        stage(&driver, &id, &staging, &mount()).unwrap();
        publish(&driver, &id, &staging, &target, &mount(), false).unwrap();
    }
    fs::write(target.join("file"), "before").unwrap();
    let cut = snapshot(&driver, "s", &id).unwrap();
    fs::write(target.join("file"), "after").unwrap();

    let source = Some(Source::Snapshot(cut.id.clone()));
    let range = CapacityRange { required: 400 * MIB, limit: 0 };
    let twin = driver.create_volume(&Wanted { range, source, parameters, ..small("b", fs) }).unwrap();
    let twin_id = twin.id.to_string();
    let (twin_staging, twin_target) = (arena.kubelet("stage-b"), arena.kubelet("pod-b"));
    stage(&driver, &twin_id, &twin_staging, &mount()).unwrap();
    publish(&driver, &twin_id, &twin_staging, &twin_target, &mount(), true).unwrap();
    assert_eq!(fs::read_to_string(twin_target.join("file")).unwrap(), "before");
    assert!(fs::write(twin_target.join("file"), "x").is_err(), "it is published read-only");
    let VolumeStats::Filesystem(stats) = driver.stats(&twin_id, &twin_target).unwrap() else { panic!() };
    assert!(stats.bytes.0 > 330 * MIB, "the twin was grown to its larger size: {stats:?}");

    expand_online(&driver, &id, &target, fs);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "after");
    let in_use = driver.delete_volume(&id).unwrap_err();
    assert!(matches!(in_use, Error::Precondition(_)), "{in_use}");
    for (id, staging, target) in [(&id, &staging, &target), (&twin_id, &twin_staging, &twin_target)] {
        for _ in 0..2 {
            driver.unpublish(id, target).unwrap();
        }
        assert!(!target.exists(), "unpublishing removes the target");
        for _ in 0..2 {
            driver.unstage(id, staging).unwrap();
        }
        for _ in 0..2 {
            driver.delete_volume(id).unwrap();
        }
    }
    driver.delete_snapshot(&cut.id.to_string()).unwrap();
    assert_clean(&arena);
}

/// ext4 grows online only with a capability that not every machine gives.
fn expand_online(driver: &Driver, id: &str, target: &Path, fs: Filesystem) {
    let range = CapacityRange { required: 600 * MIB, limit: 0 };
    assert_eq!(driver.controller_expand(id, Some(range)).unwrap(), (600 * MIB, true));
    match driver.node_expand(id, target, 600 * MIB) {
        Ok(_) => {
            let VolumeStats::Filesystem(stats) = driver.stats(id, target).unwrap() else { panic!() };
            assert!(stats.bytes.0 > 500 * MIB, "{stats:?}");
        }
        Err(error) => {
            assert!(matches!(fs, Filesystem::Ext4 | Filesystem::Ext3), "{error}");
            assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
        }
    }
}

#[test]
fn lives_on_xfs() {
    if wanted() {
        for fs in Filesystem::ALL {
            life("xfs", fs, Provisioning::Thin);
        }
        life("xfs", Filesystem::Xfs, Provisioning::Thick);
    }
}

#[test]
fn lives_on_btrfs() {
    if wanted() {
        for fs in Filesystem::ALL {
            life("btrfs", fs, Provisioning::Thin);
        }
        life("btrfs", Filesystem::Ext4, Provisioning::Thick);
    }
}

/// A block volume is a device with sectors of 4096 bytes, whatever happened to its file; a snapshot holds what was
/// written before it.
#[test]
fn block_volumes() {
    if !wanted() {
        return;
    }
    for pool in ["xfs", "btrfs"] {
        let arena = Arena::new(pool);
        let (driver, _) = arena.driver();
        let wanted = Wanted {
            block: true,
            fs: None,
            range: CapacityRange { required: 8 * MIB, limit: 0 },
            ..volume("a")
        };
        let id = driver.create_volume(&wanted).unwrap().id.to_string();
        let (staging, target) = (arena.kubelet("stage"), arena.kubelet("device"));
        let mut snapshots = Vec::new();
        for round in 1..=2_u8 {
            stage(&driver, &id, &staging, &block()).unwrap();
            publish(&driver, &id, &staging, &target, &block(), false).unwrap();
            assert_eq!(
                run(std::process::Command::new("blockdev").arg("--getss").arg(&target)).trim(),
                "4096"
            );
            fs::OpenOptions::new().write(true).open(&target).unwrap().write_all(&[round; 8192]).unwrap();
            snapshots.push(snapshot(&driver, &format!("s{round}"), &id).unwrap());
            assert_eq!(driver.stats(&id, &target), Ok(VolumeStats::Block(8 * MIB)));
            // A driver that starts anew finds its device and goes on.
            drop_and_reopen(&arena, &driver, &id, &staging, &target);
            driver.unpublish(&id, &target).unwrap();
            driver.unstage(&id, &staging).unwrap();
            assert_eq!(arena.loops(), Vec::<String>::new());
        }
        for (round, cut) in (1..=2_u8).zip(&snapshots) {
            let mut bytes = [0; 8192];
            let image = arena.pool().join("snap").join(cut.id.to_string()).join("data.img");
            fs::File::open(image).unwrap().read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, [round; 8192], "snapshot {round}");
            driver.delete_snapshot(&cut.id.to_string()).unwrap();
        }
        driver.delete_volume(&id).unwrap();
        assert_clean(&arena);
    }
}

/// What a second look at the pool says while it is in use: nothing to repair.
fn drop_and_reopen(arena: &Arena, driver: &Driver, id: &str, staging: &Path, target: &Path) {
    let report = trysail_csi::store::inspect(&arena.machine(), &arena.pool()).unwrap();
    let findings: Vec<_> =
        report.reconciled.repairs.iter().map(|repair| repair.finding.to_string()).collect();
    assert_eq!(findings, Vec::<String>::new());
    stage(driver, id, staging, &block()).unwrap();
    publish(driver, id, staging, target, &block(), false).unwrap();
}

/// mkfs and fstrim would punch holes into a thick file; and what is shared with a snapshot is owed.
#[test]
fn thick_stays_thick() {
    if !wanted() {
        return;
    }
    for pool in ["xfs", "btrfs"] {
        let arena = Arena::new(pool);
        let (driver, _) = arena.driver();
        let wanted = Wanted { range: CapacityRange { required: 512 * MIB, limit: 0 }, ..thick("a") };
        let id = driver.create_volume(&wanted).unwrap().id;
        let machine = arena.machine();
        let image = arena.pool().join("vol").join(id.to_string()).join("data.img");
        let staging = arena.kubelet("stage");
        stage(&driver, &id.to_string(), &staging, &mount()).unwrap();
        let _ = std::process::Command::new("fstrim").arg(&staging).output();
        let before = machine.usage(&image).unwrap();
        assert_eq!((before.hole, before.shared), (0, 0), "{pool}: {before:?}");
        let question =
            CapacityQuestion { parameters: wanted.parameters.clone(), ..CapacityQuestion::default() };
        let free = driver.capacity(&question).unwrap().available;
        snapshot(&driver, "s", &id.to_string()).unwrap();
        let after = machine.usage(&image).unwrap();
        assert!(after.shared > 0, "{pool}: {after:?}");
        let left = driver.capacity(&question).unwrap().available;
        assert!(left + after.shared <= free + 16 * MIB, "{pool}: {free} were free, {left} are, {after:?}");
        driver.unstage(&id.to_string(), &staging).unwrap();
    }
}

/// A filesystem that cannot share blocks serves plain volumes, and says what it lacks.
#[test]
fn a_plain_pool() {
    if !wanted() {
        return;
    }
    let arena = Arena::new("ext4");
    let (driver, _) = arena.driver();
    let id = driver.create_volume(&small("a", Filesystem::Xfs)).unwrap().id;
    let error = snapshot(&driver, "s", &id.to_string()).unwrap_err();
    assert!(
        matches!(&error, Error::Precondition(why) if why.contains("default") && why.contains("ext4")),
        "{error}"
    );
    let needs = Parameters { snapshots: true, ..Parameters::default() };
    let question = CapacityQuestion { parameters: needs.clone(), ..CapacityQuestion::default() };
    assert_eq!(driver.capacity(&question).unwrap().available, 0);
    assert!(driver.capacity(&CapacityQuestion::default()).unwrap().available > 0);
    let error =
        driver.create_volume(&Wanted { parameters: needs, ..small("b", Filesystem::Xfs) }).unwrap_err();
    assert!(matches!(error, Error::Exhausted(_)), "{error}");
    let error = driver
        .create_volume(&Wanted { source: Some(Source::Volume(id.clone())), ..small("b", Filesystem::Xfs) })
        .unwrap_err();
    assert!(matches!(error, Error::Exhausted(_)), "{error}");
    let staging = arena.kubelet("stage");
    stage(&driver, &id.to_string(), &staging, &mount()).unwrap();
    driver.unstage(&id.to_string(), &staging).unwrap();
    driver.delete_volume(&id.to_string()).unwrap();
    assert_clean(&arena);
}

/// Paths in directories that pods can write to are not to be trusted.
#[test]
fn paths_that_are_not_what_they_seem() {
    if !wanted() {
        return;
    }
    let arena = Arena::new("xfs");
    let (driver, _) = arena.driver();
    let id = driver.create_volume(&small("a", Filesystem::Ext4)).unwrap().id.to_string();
    let outside = arena.pool().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, arena.kubelet("link")).unwrap();
    fs::write(arena.kubelet("file"), "").unwrap();
    for path in
        [arena.kubelet("link"), arena.kubelet("link").join("below"), arena.kubelet("file"), outside.clone()]
    {
        let error = stage(&driver, &id, &path, &mount()).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{}: {error}", path.display());
    }
    let foreign = arena.kubelet("foreign");
    fs::create_dir(&foreign).unwrap();
    run(std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&foreign));
    let error = stage(&driver, &id, &foreign, &mount()).unwrap_err();
    assert!(matches!(&error, Error::Precondition(why) if why.contains("tmpfs")), "{error}");
    assert_eq!(arena.loops(), Vec::<String>::new(), "a refused call leaves no device");

    let staging = arena.kubelet("stage");
    stage(&driver, &id, &staging, &mount()).unwrap();
    let error = publish(&driver, &id, &staging, &arena.kubelet("link"), &mount(), false).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let error = publish(&driver, &id, &staging, &foreign, &mount(), false).unwrap_err();
    assert!(matches!(error, Error::Precondition(_)), "{error}");
    assert!(driver.unpublish(&id, &foreign).is_err(), "what is not ours stays mounted");
    run(std::process::Command::new("umount").arg(&foreign));
    driver.unstage(&id, &staging).unwrap();
}

/// A volume that may be published once, and one that may be published often.
#[test]
fn read_write_once_pod() {
    if !wanted() {
        return;
    }
    let arena = Arena::new("btrfs");
    let (driver, _) = arena.driver();
    let id = driver.create_volume(&small("a", Filesystem::Ext4)).unwrap().id.to_string();
    let once = Capability {
        mode: AccessMode::SingleNodeSingleWriter,
        access: AccessType::Mount { fs: None, options: BTreeSet::from(["noatime".to_owned()]) },
    };
    let staging = arena.kubelet("stage");
    stage(&driver, &id, &staging, &once).unwrap();
    let differs = stage(&driver, &id, &staging, &mount()).unwrap_err();
    assert!(matches!(differs, Error::Differs { .. }), "{differs}");
    publish(&driver, &id, &staging, &arena.kubelet("one"), &once, false).unwrap();
    let second = publish(&driver, &id, &staging, &arena.kubelet("two"), &once, false).unwrap_err();
    assert!(matches!(second, Error::Precondition(_)), "{second}");
    assert!(!arena.kubelet("two").exists(), "a refused call leaves no target");
    let differs = publish(&driver, &id, &staging, &arena.kubelet("one"), &once, true).unwrap_err();
    assert!(matches!(differs, Error::Differs { .. }), "{differs}");
    driver.unpublish(&id, &arena.kubelet("one")).unwrap();
    publish(&driver, &id, &staging, &arena.kubelet("two"), &once, true).unwrap();
    assert!(fs::write(arena.kubelet("two").join("x"), "").is_err(), "read-only");
    driver.unpublish(&id, &arena.kubelet("two")).unwrap();
    driver.unstage(&id, &staging).unwrap();
    driver.delete_volume(&id).unwrap();
    assert_clean(&arena);
}

/// Two drivers on one pool would each believe their own index.
#[test]
fn one_driver_per_pool() {
    if !wanted() {
        return;
    }
    let arena = Arena::new("xfs");
    let first = arena.driver();
    let second = trysail_csi::store::Store::open(std::sync::Arc::new(arena.machine()), &[arena.config()]);
    assert!(matches!(second, Err(Error::PoolFailed { .. })));
    drop(first);
    arena.driver();
}
