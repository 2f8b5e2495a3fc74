//! `CreateSnapshot`: one reflink, whatever the size.

use super::create_volume::{Fresh, check_owed, discard, enter, flush};
use super::{Effect, Plan, View};
use crate::model::capacity::Supply;
use crate::model::pool::Change;
use crate::model::{Error, Pool, Provisioning, Result, SnapshotId, SnapshotRecord, Usage, VolumeId, layout};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// The caller's name for it.
    pub name: String,
    /// The volume.
    pub source: VolumeId,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateSnapshot {
    /// It is there already, of the same volume.
    Exists(SnapshotRecord),
    /// It has to be cut.
    Make(SnapshotRecord, Plan),
}

/// A snapshot of that name, if there is one; the volume it was cut from may be gone.
pub fn existing_snapshot(pool: &Pool, spec: &SnapshotSpec) -> Result<Option<SnapshotRecord>> {
    match pool.snapshot_named(&spec.name) {
        Some(existing) if existing.source == spec.source => Ok(Some(existing.clone())),
        Some(_) => Err(Error::Differs { name: spec.name.clone(), differs: "source_volume_id" }),
        None => Ok(None),
    }
}

/// Decides. `usage` is what the volume's file is made of.
pub fn create_snapshot(
    pool: &Pool,
    supply: Supply,
    view: &View<'_>,
    usage: Usage,
    spec: &SnapshotSpec,
    fresh: &Fresh<SnapshotId>,
) -> Result<CreateSnapshot> {
    if let Some(existing) = existing_snapshot(pool, spec)? {
        return Ok(CreateSnapshot::Exists(existing));
    }
    if !pool.features.reflink {
        return Err(Error::Precondition(format!(
            "pool {:?} is on {}, which cannot share blocks between files: it has no snapshots",
            pool.name, pool.features.filesystem
        )));
    }
    let volume = view.volume;
    if volume.spec.parameters.provisioning == Provisioning::Thick {
        check_owed(pool, supply, usage.newly_owed_when_shared(pool.features.cow))?;
    }
    let record = SnapshotRecord {
        id: fresh.id.clone(),
        name: spec.name.clone(),
        source: volume.id.clone(),
        size: volume.size,
        filesystem: volume.spec.filesystem,
        content: volume.content.clone(),
        nocow: volume.nocow,
        created: fresh.now,
    };
    let plan = cut(pool, view, &record)?;
    Ok(CreateSnapshot::Make(record, plan))
}

fn cut(pool: &Pool, view: &View<'_>, record: &SnapshotRecord) -> Result<Plan> {
    let directory = pool.layout.new_entry(&record.id.to_string());
    let image = directory.join(layout::IMAGE);
    let mut plan = Plan { undo: discard(&directory), ..Plan::default() };
    plan.steps.extend(flush(view));
    plan.steps.extend([
        Effect::MakeDir { path: directory.clone() },
        Effect::CreateImage { path: image.clone(), nocow: record.nocow },
        Effect::Clone { from: view.image(), to: image.clone() },
        Effect::SyncFile { path: image },
    ]);
    enter(&mut plan, &directory.join(layout::META), record, pool.layout.snapshot(&record.id))?;
    plan.changes.push(Change::Snapshot(record.clone()));
    Ok(plan)
}
