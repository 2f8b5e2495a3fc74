//! `DeleteVolume` and `DeleteSnapshot`: one rename into the trash and it does not exist any more. Snapshots and volumes
//! share blocks, not fates: either may go first.

use std::path::Path;

use super::create_volume::discard;
use super::{Effect, Plan, View, parent};
use crate::model::pool::Change;
use crate::model::{Error, Pool, Result, SnapshotId};

/// A volume that nobody uses.
pub fn delete_volume(pool: &Pool, view: &View<'_>) -> Result<Plan> {
    let id = &view.volume.id;
    if !view.loops.is_empty() {
        let mut places: Vec<_> = view.mounts.iter().filter(|mount| view.is_ours(mount)).collect();
        places.sort_by(|a, b| a.target.cmp(&b.target));
        let places: Vec<_> = places.iter().map(|mount| mount.target.display().to_string()).collect();
        return Err(Error::Precondition(format!(
            "volume {id} is in use ({}): unpublish and unstage it first",
            if places.is_empty() { "its device is open".to_owned() } else { places.join(", ") }
        )));
    }
    if view.volume.attached.is_some() {
        return Err(Error::Precondition(format!("volume {id} is attached: detach it first")));
    }
    let mut plan = Plan::default();
    if view.run.is_some() {
        plan.steps.push(Effect::RemoveFile { path: pool.layout.run(id) });
        plan.changes.push(Change::NoRun(id.clone()));
    }
    to_trash(&mut plan, &pool.layout.volume(id), &pool.layout.trash_entry(&id.to_string()));
    plan.changes.push(Change::NoVolume(id.clone()));
    Ok(plan)
}

/// A snapshot.
pub fn delete_snapshot(pool: &Pool, id: &SnapshotId) -> Plan {
    let mut plan = Plan::default();
    to_trash(&mut plan, &pool.layout.snapshot(id), &pool.layout.trash_entry(&id.to_string()));
    plan.changes.push(Change::NoSnapshot(id.clone()));
    plan
}

fn to_trash(plan: &mut Plan, from: &Path, to: &Path) {
    plan.steps.push(Effect::Rename { from: from.to_owned(), to: to.to_owned() });
    plan.steps.push(Effect::SyncDir { path: parent(from) });
    plan.steps.extend(discard(to));
}
