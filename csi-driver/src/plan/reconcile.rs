//! The start of the driver: everything that a crash, a power cut or a reboot left half done is finished or undone, and
//! told. The same findings are what `trysail-csi inspect` shows and `repair` does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::create_volume::discard;
use super::expand::finish_into;
use super::stage::is_staged;
use super::{Effect, LoopDevice, Mount, Plan, View};
use crate::model::pool::Change;
use crate::model::{Layout, Result, RunRecord, SnapshotRecord, VolumeId, VolumeRecord};

/// One directory with an image and a record.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The name of the directory.
    pub name: String,
    /// The record, or why it cannot be read.
    pub record: Result<T, String>,
    /// The size of the image, if there is one.
    pub image: Option<u64>,
    /// Loop devices that have the image.
    pub loops: Vec<LoopDevice>,
}

/// One file in `run/`.
#[derive(Clone, Debug)]
pub struct RunEntry {
    /// Its path.
    pub path: PathBuf,
    /// The record, or why it cannot be read.
    pub record: Result<RunRecord, String>,
}

/// All that was found in a pool.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    /// The pool's paths.
    pub layout: &'a Layout,
    /// This boot.
    pub boot_id: &'a str,
    /// Names in `new/`.
    pub new: Vec<String>,
    /// Names in `trash/`.
    pub trash: Vec<String>,
    /// Files that were to replace others.
    pub temporaries: Vec<PathBuf>,
    /// `vol/`.
    pub volumes: Vec<Entry<VolumeRecord>>,
    /// `snap/`.
    pub snapshots: Vec<Entry<SnapshotRecord>>,
    /// `run/`.
    pub runs: Vec<RunEntry>,
    /// Every mount of the machine.
    pub mounts: &'a [Mount],
}

/// Something that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Made and never committed.
    Uncommitted(String),
    /// Deleted, and its files were still there.
    Deleted(String),
    /// Written and never renamed.
    Temporary(PathBuf),
    /// An expansion had begun.
    Expansion {
        /// The volume.
        volume: VolumeId,
        /// The size that was promised.
        to: u64,
    },
    /// What `run/` says is not so any more.
    Run {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A loop device that nobody uses.
    Loop(VolumeId),
    /// Nothing that a program may repair.
    Damaged {
        /// The directory.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uncommitted(name) => write!(f, "{name} was never committed: removed"),
            Self::Deleted(name) => write!(f, "{name} is deleted: its files removed"),
            Self::Temporary(path) => write!(f, "{} was never renamed: removed", path.display()),
            Self::Expansion { volume, to } => write!(f, "expansion of {volume} to {to} bytes: finished"),
            Self::Run { path, why } => write!(f, "{}: {why}: removed", path.display()),
            Self::Loop(volume) => write!(f, "the loop device of {volume} has no user: freed"),
            Self::Damaged { name, why } => {
                write!(
                    f,
                    "{name} is damaged: {why}; nothing was changed, restore it from a backup or remove it"
                )
            }
        }
    }
}

/// A finding and what to do about it. A plan without steps is for a person.
#[derive(Clone, Debug)]
pub struct Repair {
    /// What was found.
    pub finding: Finding,
    /// What to do.
    pub plan: Plan,
}

/// What the index of the pool is, and what has to be repaired first.
#[derive(Clone, Debug, Default)]
pub struct Reconciled {
    /// What is there.
    pub index: Vec<Change>,
    /// What is damaged, and why.
    pub damaged: BTreeMap<String, String>,
    /// In order. The plans' changes come on top of the index.
    pub repairs: Vec<Repair>,
}

impl Reconciled {
    fn repair(&mut self, finding: Finding, steps: Vec<Effect>, changes: Vec<Change>) {
        self.repairs.push(Repair { finding, plan: Plan { steps, changes, ..Plan::default() } });
    }

    fn damaged(&mut self, name: &str, why: String) {
        self.damaged.insert(name.to_owned(), why.clone());
        self.repair(Finding::Damaged { name: name.to_owned(), why }, Vec::new(), Vec::new());
    }
}

/// Decides.
pub fn reconcile(scan: &Scan<'_>) -> Result<Reconciled> {
    let mut result = Reconciled::default();
    for name in &scan.new {
        let finding = Finding::Uncommitted(name.clone());
        result.repair(finding, discard(&scan.layout.new_entry(name)), Vec::new());
    }
    for name in &scan.trash {
        let finding = Finding::Deleted(name.clone());
        result.repair(finding, discard(&scan.layout.trash_entry(name)), Vec::new());
    }
    for path in &scan.temporaries {
        let step = Effect::RemoveFile { path: path.clone() };
        result.repair(Finding::Temporary(path.clone()), vec![step], Vec::new());
    }
    for entry in &scan.snapshots {
        match whole(entry, |record| (record.id.to_string(), record.size)) {
            Ok(record) => result.index.push(Change::Snapshot(record.clone())),
            Err(why) => result.damaged(&entry.name, why),
        }
    }
    let runs = runs(scan, &mut result);
    for entry in &scan.volumes {
        match whole(entry, |record| (record.id.to_string(), record.size)) {
            Ok(record) => volume(scan, entry, record, runs.get(&record.id).copied(), &mut result)?,
            Err(why) => result.damaged(&entry.name, why),
        }
    }
    Ok(result)
}

/// A record that is where it says, with all of its data.
fn whole<T>(entry: &Entry<T>, facts: impl Fn(&T) -> (String, u64)) -> Result<&T, String> {
    let record = entry.record.as_ref().map_err(|why| format!("its record: {why}"))?;
    let (id, size) = facts(record);
    if id != entry.name {
        return Err(format!("its record is that of {id}"));
    }
    match entry.image {
        None => Err("its data file is missing".to_owned()),
        Some(bytes) if bytes < size => {
            Err(format!("its data file has {bytes} bytes and its record says {size}"))
        }
        Some(_) => Ok(record),
    }
}

/// The run records that can be believed so far: readable, of this boot, of a volume that exists.
fn runs<'a>(scan: &'a Scan<'_>, result: &mut Reconciled) -> BTreeMap<VolumeId, &'a RunRecord> {
    let exists = |id: &VolumeId| {
        scan.volumes.iter().any(|entry| entry.record.as_ref().is_ok_and(|record| record.id == *id))
    };
    let mut believed = BTreeMap::new();
    for entry in &scan.runs {
        let why = match &entry.record {
            Err(why) => why.clone(),
            Ok(run) if run.boot_id != scan.boot_id => "the machine was started anew since".to_owned(),
            Ok(run) if !exists(&run.volume) => format!("there is no volume {}", run.volume),
            Ok(run) => {
                believed.insert(run.volume.clone(), run);
                continue;
            }
        };
        result.repair(Finding::Run { path: entry.path.clone(), why }, forget(&entry.path), Vec::new());
    }
    believed
}

fn forget(path: &Path) -> Vec<Effect> {
    vec![Effect::RemoveFile { path: path.to_owned() }]
}

fn volume(
    scan: &Scan<'_>,
    entry: &Entry<VolumeRecord>,
    record: &VolumeRecord,
    run: Option<&RunRecord>,
    result: &mut Reconciled,
) -> Result<()> {
    result.index.push(Change::Volume(record.clone()));
    let view = View {
        layout: scan.layout,
        volume: record,
        run,
        loops: entry.loops.clone(),
        mounts: scan.mounts,
        boot_id: scan.boot_id,
    };
    let used = scan.mounts.iter().any(|mount| view.is_ours(mount));
    let staged = is_staged(&view) || used;
    if let Some(run) = run {
        if staged {
            result.index.push(Change::Run(run.clone()));
        } else {
            let path = scan.layout.run(&record.id);
            let why = format!("volume {} is not staged", record.id);
            result.repair(Finding::Run { path: path.clone(), why }, forget(&path), Vec::new());
        }
    }
    // A device that frees itself is somebody's business as long as it is there.
    if !staged && entry.loops.iter().any(|device| !device.autoclear) {
        let step = Effect::Detach { image: view.image() };
        result.repair(Finding::Loop(record.id.clone()), vec![step], Vec::new());
    }
    if let Some(to) = record.size_target {
        let mut plan = Plan::default();
        finish_into(&mut plan, scan.layout, record, to, !entry.loops.is_empty() && staged)?;
        result.repairs.push(Repair { finding: Finding::Expansion { volume: record.id.clone(), to }, plan });
    }
    Ok(())
}
