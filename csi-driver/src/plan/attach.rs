//! `ControllerPublishVolume` and `ControllerUnpublishVolume`. A volume is on its node from birth, so attaching is a
//! promise and no work: it is recorded, because a caller that lost its memory asks again.

use super::{Plan, View};
use crate::model::pool::Change;
use crate::model::{Error, Published, Result, VolumeRecord, layout};

/// The promise; none if it was made before.
pub fn attach(view: &View<'_>, how: &Published, others: usize, limit: u32) -> Result<Option<Plan>> {
    let record = view.volume;
    match &record.attached {
        Some(before) if before == how => return Ok(None),
        Some(_) => {
            return Err(Error::Differs {
                name: record.id.to_string(),
                differs: "volume_capability or readonly",
            });
        }
        None => {}
    }
    if limit > 0 && others >= limit as usize {
        return Err(Error::Exhausted(format!(
            "{others} volumes are attached to this node and {limit} may be"
        )));
    }
    keep(view, Some(how.clone())).map(Some)
}

/// The end of the promise; none if there is none.
pub fn detach(view: &View<'_>) -> Result<Option<Plan>> {
    match &view.volume.attached {
        None => Ok(None),
        Some(_) => keep(view, None).map(Some),
    }
}

fn keep(view: &View<'_>, attached: Option<Published>) -> Result<Plan> {
    let record = VolumeRecord { attached, ..view.volume.clone() };
    let mut plan = Plan::default();
    plan.commit(&view.layout.volume(&record.id).join(layout::META), &record)?;
    plan.changes.push(Change::Volume(record));
    Ok(plan)
}
