//! `CreateVolume`: everything is made under `new/`, and one rename makes it exist.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{Effect, Plan, View};
use crate::model::capacity::Supply;
use crate::model::pool::Change;
use crate::model::{
    CapacityRange, Content, Error, Filesystem, Parameters, Pool, Provisioning, Result, SnapshotRecord,
    Source, Usage, VolumeId, VolumeRecord, VolumeSpec, layout, size,
};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The caller's name for it.
    pub name: String,
    /// The sizes that satisfy the caller.
    pub range: CapacityRange,
    /// A block volume, or one with a filesystem.
    pub block: bool,
    /// `fs_type`, if the caller named one.
    pub fs: Option<Filesystem>,
    /// What its class says.
    pub parameters: Parameters,
    /// What it starts from.
    pub source: Option<Source>,
}

/// What a new volume starts from, as it is now.
#[derive(Clone, Debug)]
pub struct Origin {
    image: PathBuf,
    size: u64,
    content: Content,
    filesystem: Option<Filesystem>,
    nocow: bool,
    flush: Option<Effect>,
    /// Of a thick volume: sharing its blocks makes it owe them.
    thick: Option<Usage>,
}

impl Origin {
    /// A snapshot.
    pub fn snapshot(pool: &Pool, record: &SnapshotRecord) -> Self {
        Self {
            image: pool.layout.snapshot(&record.id).join(layout::IMAGE),
            size: record.size,
            content: record.content.clone(),
            filesystem: record.filesystem,
            nocow: record.nocow,
            flush: None,
            thick: None,
        }
    }

    /// A volume, with what its file is made of.
    pub fn volume(view: &View<'_>, usage: Usage) -> Self {
        let record = view.volume;
        Self {
            image: view.image(),
            size: record.size,
            content: record.content.clone(),
            filesystem: record.spec.filesystem,
            nocow: record.nocow,
            flush: flush(view),
            thick: (record.spec.parameters.provisioning == Provisioning::Thick).then_some(usage),
        }
    }
}

/// What puts everything that was written to a volume so far into its file.
pub(super) fn flush(view: &View<'_>) -> Option<Effect> {
    let run = view.current_run()?;
    if view.loops.is_empty() {
        return None;
    }
    if run.is_block() {
        return Some(Effect::SyncDevice { image: view.image() });
    }
    let staged = view.top(&run.staging).is_some_and(|mount| view.is_ours(mount));
    staged.then(|| Effect::SyncMount { target: run.staging.clone() })
}

/// Identity and time of something new.
#[derive(Clone, Debug)]
pub struct Fresh<Id> {
    /// Used if something is made.
    pub id: Id,
    /// The time.
    pub now: Timestamp,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateVolume {
    /// It is there already, and is what was asked for.
    Exists(VolumeRecord),
    /// It has to be made.
    Make(VolumeRecord, Plan),
}

/// Decides.
pub fn create_volume(
    pool: &Pool,
    supply: Supply,
    wanted: &Wanted,
    origin: Option<&Origin>,
    fresh: &Fresh<VolumeId>,
) -> Result<CreateVolume> {
    if let Some(existing) = pool.volume_named(&wanted.name) {
        return match difference(existing, wanted) {
            None => Ok(CreateVolume::Exists(existing.clone())),
            Some(differs) => Err(Error::Differs { name: wanted.name.clone(), differs }),
        };
    }
    let provisioning = wanted.parameters.provisioning;
    check_features(pool, wanted)?;
    let filesystem = filesystem(wanted, origin)?;
    let size = choose_size(wanted, filesystem, origin)?;
    check_space(pool, supply, provisioning, size, origin)?;
    let thick_in_place = provisioning == Provisioning::Thick && pool.features.cow;
    let nocow = origin.map_or(thick_in_place, |origin| origin.nocow);
    if thick_in_place && !nocow {
        return Err(Error::invalid(
            "parameters.provisioning",
            format!("thick: its source is thin, and pool {:?} cannot make its blocks thick", pool.name),
        ));
    }
    let record = VolumeRecord {
        id: fresh.id.clone(),
        spec: VolumeSpec {
            name: wanted.name.clone(),
            range: wanted.range,
            filesystem,
            parameters: wanted.parameters.clone(),
            source: wanted.source.clone(),
        },
        size,
        size_target: None,
        content: content(filesystem, origin),
        nocow,
        attached: None,
        created: fresh.now,
    };
    let plan = make(pool, &record, origin)?;
    Ok(CreateVolume::Make(record, plan))
}

/// The first property in which an existing volume is not what is asked for.
fn difference(existing: &VolumeRecord, wanted: &Wanted) -> Option<&'static str> {
    let spec = &existing.spec;
    if spec.source != wanted.source {
        Some("volume_content_source")
    } else if spec.filesystem.is_none() != wanted.block
        || (wanted.fs.is_some() && wanted.fs != spec.filesystem)
    {
        Some("volume_capabilities")
    } else if spec.parameters != wanted.parameters {
        Some("parameters")
    } else if !wanted.range.contains(existing.size) {
        Some("capacity_range")
    } else {
        None
    }
}

/// "No space here" is what makes the scheduler look at another node.
fn check_features(pool: &Pool, wanted: &Wanted) -> Result<()> {
    let needs_reflink = wanted.parameters.snapshots || wanted.source.is_some();
    if needs_reflink && !pool.features.reflink {
        return Err(Error::Exhausted(format!(
            "pool {:?} is on {}, which cannot share blocks between files: no snapshots and no clones there",
            pool.name, pool.features.filesystem
        )));
    }
    Ok(())
}

fn filesystem(wanted: &Wanted, origin: Option<&Origin>) -> Result<Option<Filesystem>> {
    if wanted.block {
        return Ok(None);
    }
    let Some(origin) = origin else { return Ok(Some(wanted.fs.unwrap_or(Filesystem::DEFAULT))) };
    match (wanted.fs, origin.filesystem) {
        (_, None) => Err(Error::invalid(
            "volume_content_source",
            "a block volume: what it holds is unknown, so it cannot be mounted",
        )),
        (Some(named), Some(has)) if named != has => Err(Error::invalid(
            "volume_capabilities",
            format!("fs_type {named} is asked for and the source has {has}: leave fs_type out, or say {has}"),
        )),
        (_, has) => Ok(has),
    }
}

fn choose_size(wanted: &Wanted, filesystem: Option<Filesystem>, origin: Option<&Origin>) -> Result<u64> {
    let (mut minimum, mut who) = size::minimum(filesystem);
    if let Some(origin) = origin {
        minimum = minimum.max(origin.size);
        "the source".clone_into(&mut who);
    }
    let range = match origin {
        // Nobody said a size: the source's.
        Some(origin) if wanted.range.required == 0 => CapacityRange { required: origin.size, ..wanted.range },
        _ => wanted.range,
    };
    if let Some(origin) = origin
        && wanted.range.required != 0
        && wanted.range.required < origin.size
    {
        return Err(Error::OutOfRange(format!(
            "capacity_range: {} bytes are less than the {} of the source",
            wanted.range.required, origin.size
        )));
    }
    range.choose(minimum, &who)
}

fn check_space(
    pool: &Pool,
    supply: Supply,
    provisioning: Provisioning,
    size: u64,
    origin: Option<&Origin>,
) -> Result<()> {
    let available = supply.available(pool, provisioning);
    if size > available {
        return Err(Error::Exhausted(format!(
            "pool {:?} has {available} bytes left for {provisioning:?} volumes and {size} are asked for",
            pool.name
        )));
    }
    let owed = origin
        .and_then(|origin| origin.thick)
        .map_or(0, |usage| usage.newly_owed_when_shared(pool.features.cow));
    let taken = if provisioning == Provisioning::Thick { size } else { 0 };
    check_owed(pool, supply, owed.saturating_add(taken))
}

/// Whether thick volumes of `pool` can come to owe this many bytes more.
pub(super) fn check_owed(pool: &Pool, supply: Supply, bytes: u64) -> Result<()> {
    let available = supply.available(pool, Provisioning::Thick);
    if bytes > available {
        return Err(Error::Exhausted(format!(
            "pool {:?} has {available} bytes left; sharing the blocks of a thick volume reserves {bytes}",
            pool.name
        )));
    }
    Ok(())
}

fn content(filesystem: Option<Filesystem>, origin: Option<&Origin>) -> Content {
    match (filesystem, origin.map(|origin| &origin.content)) {
        (None, _) => Content::Raw,
        (Some(_), Some(Content::Formatted { uuid, grown_to })) => {
            Content::Formatted { uuid: *uuid, grown_to: *grown_to }
        }
        // A source that was never staged holds nothing.
        (Some(_), Some(Content::Blank | Content::Raw) | None) => Content::Blank,
    }
}

fn make(pool: &Pool, record: &VolumeRecord, origin: Option<&Origin>) -> Result<Plan> {
    let directory = pool.layout.new_entry(&record.id.to_string());
    let image = directory.join(layout::IMAGE);
    let meta = directory.join(layout::META);
    let mut plan = Plan { undo: discard(&directory), ..Plan::default() };
    plan.steps.extend(origin.and_then(|origin| origin.flush.clone()));
    plan.steps.push(Effect::MakeDir { path: directory.clone() });
    plan.steps.push(Effect::CreateImage { path: image.clone(), nocow: record.nocow });
    if let Some(origin) = origin {
        plan.steps.push(Effect::Clone { from: origin.image.clone(), to: image.clone() });
    }
    plan.steps.push(match record.spec.parameters.provisioning {
        Provisioning::Thin => Effect::SetSize { path: image.clone(), bytes: record.size },
        Provisioning::Thick => Effect::Allocate { path: image.clone(), bytes: record.size },
    });
    plan.steps.push(Effect::SyncFile { path: image });
    enter(&mut plan, &meta, record, pool.layout.volume(&record.id))?;
    plan.changes.push(Change::Volume(record.clone()));
    Ok(plan)
}

/// The end of making anything: its record, and the rename by which it exists.
pub(super) fn enter<T: serde::Serialize>(
    plan: &mut Plan,
    meta: &std::path::Path,
    record: &T,
    destination: PathBuf,
) -> Result<()> {
    let directory = super::parent(meta);
    plan.steps.push(Effect::Write { path: meta.to_owned(), content: crate::model::record::encode(record)? });
    plan.steps.push(Effect::SyncFile { path: meta.to_owned() });
    plan.steps.push(Effect::SyncDir { path: directory.clone() });
    let entered_in = super::parent(&destination);
    plan.steps.push(Effect::Rename { from: directory, to: destination });
    plan.steps.push(Effect::SyncDir { path: entered_in });
    Ok(())
}

/// Removes a directory with an image and a record, however much of it there is.
pub(super) fn discard(directory: &std::path::Path) -> Vec<Effect> {
    vec![
        Effect::RemoveFile { path: directory.join(layout::IMAGE) },
        Effect::RemoveFile { path: directory.join(layout::META) },
        Effect::RemoveDir { path: directory.to_owned() },
    ]
}
