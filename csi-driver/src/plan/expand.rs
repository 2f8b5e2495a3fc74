//! Expansion: `ControllerExpandVolume` makes the file larger, `NodeExpandVolume` the filesystem.
//!
//! The new size is recorded as a target before anything grows. From then on a start of the driver finishes what was
//! begun; nobody can see a size that does not hold.

use std::path::Path;

use super::{Effect, Plan, View};
use crate::model::capacity::Supply;
use crate::model::pool::Change;
use crate::model::{
    CapacityRange, Content, Error, Layout, Pool, Provisioning, Result, VolumeRecord, layout, size,
};

/// The file grows; none if it is large enough.
pub fn controller_expand(
    pool: &Pool,
    supply: Supply,
    view: &View<'_>,
    range: CapacityRange,
) -> Result<Option<Plan>> {
    let record = view.volume;
    if record.size >= range.required && record.size_target.is_none() {
        if range.contains(record.size) {
            return Ok(None);
        }
        return Err(Error::OutOfRange(format!(
            "capacity_range: limit_bytes {} is below the {} bytes that volume {} has; volumes do not shrink",
            range.limit, record.size, record.id
        )));
    }
    let (minimum, who) = size::minimum(record.spec.filesystem);
    let target = range.choose(minimum.max(record.size), &who)?.max(record.size_target.unwrap_or(0));
    let provisioning = record.spec.parameters.provisioning;
    let available = supply.available(pool, provisioning);
    let more = target - record.size;
    if more > available {
        return Err(Error::Exhausted(format!(
            "pool {:?} has {available} bytes left for {provisioning:?} volumes and {more} more are asked for",
            pool.name
        )));
    }
    let promised = VolumeRecord { size_target: Some(target), ..record.clone() };
    let mut plan = Plan::default();
    plan.commit(&meta(view.layout, record), &promised)?;
    finish_into(&mut plan, view.layout, &promised, target, !view.loops.is_empty())?;
    plan.undo.push(Effect::SetSize { path: view.image(), bytes: record.size });
    let mut back = Plan::default();
    back.commit(&meta(view.layout, record), record)?;
    plan.undo.extend(back.steps);
    Ok(Some(plan))
}

/// From a recorded target to a size that holds.
pub(super) fn finish_into(
    plan: &mut Plan,
    layout: &Layout,
    record: &VolumeRecord,
    target: u64,
    attached: bool,
) -> Result<()> {
    let image = layout.image(&record.id);
    let grown = VolumeRecord { size: target, size_target: None, ..record.clone() };
    plan.steps.push(match record.spec.parameters.provisioning {
        Provisioning::Thin => Effect::SetSize { path: image.clone(), bytes: target },
        Provisioning::Thick => Effect::Allocate { path: image.clone(), bytes: target },
    });
    plan.steps.push(Effect::SyncFile { path: image.clone() });
    // A power cut that takes this back leaves the target, and the next start finishes again.
    plan.replace(&meta(layout, record), &grown)?;
    if attached {
        plan.steps.push(Effect::SetCapacity { image });
    }
    plan.changes.push(Change::Volume(grown));
    Ok(())
}

/// The filesystem at `path` grows to its device; a block volume's device learns its size.
pub fn node_expand(view: &View<'_>, path: &Path) -> Result<Plan> {
    let record = view.volume;
    let here = view.top(path).filter(|mount| view.is_ours(mount));
    let Some(_) = here else {
        return Err(Error::NotAtPath { id: record.id.to_string(), path: path.to_owned() });
    };
    let mut plan = Plan::default();
    plan.steps.push(Effect::SetCapacity { image: view.image() });
    let (Some(fs), Content::Formatted { uuid, grown_to }) = (record.spec.filesystem, &record.content) else {
        return Ok(plan);
    };
    if *grown_to != record.size {
        let grown = VolumeRecord {
            content: Content::Formatted { uuid: *uuid, grown_to: record.size },
            ..record.clone()
        };
        plan.steps.push(Effect::Grow { image: view.image(), fs, mounted: Some(path.to_owned()) });
        plan.replace(&meta(view.layout, record), &grown)?;
        plan.changes.push(Change::Volume(grown));
    }
    Ok(plan)
}

fn meta(layout: &Layout, record: &VolumeRecord) -> std::path::PathBuf {
    layout.volume(&record.id).join(layout::META)
}
