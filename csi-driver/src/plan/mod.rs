//! Decisions: from what was seen to a list of effects. Nothing is chosen after a plan; it reads no clock, draws no
//! random number and touches nothing.

mod attach;
mod create_snapshot;
mod create_volume;
mod delete;
pub mod effect;
mod expand;
mod init_pool;
mod publish;
mod reconcile;
mod stage;
mod view;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::{Result, RunRecord, layout, pool::Change, record};

pub use attach::{attach, detach};
pub use create_snapshot::{CreateSnapshot, SnapshotSpec, create_snapshot, existing_snapshot};
pub use create_volume::{CreateVolume, Fresh, Origin, Wanted, create_volume};
pub use delete::{delete_snapshot, delete_volume};
pub use effect::{Effect, TargetKind};
pub use expand::{controller_expand, node_expand};
pub use init_pool::init_pool;
pub use publish::{Publish, Target, publish, unpublish};
pub use reconcile::{Entry, Finding, Reconciled, Repair, RunEntry, Scan, reconcile};
pub use stage::{Stage, stage, unstage};
pub use view::{LoopDevice, Mount, PathKind, View};

/// What to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The effects.
    pub steps: Vec<Effect>,
    /// When a step fails: what to do about everything that may have been done. Each is tried, whatever becomes of the
    /// others.
    pub undo: Vec<Effect>,
    /// What the index has to learn when all steps are done.
    pub changes: Vec<Change>,
}

impl Plan {
    /// Replaces a record in one step and makes it last.
    fn commit<T: Serialize>(&mut self, path: &Path, record: &T) -> Result<()> {
        self.replace(path, record)?;
        self.steps.push(Effect::SyncDir { path: parent(path) });
        Ok(())
    }

    /// Replaces a record in one step: a power cut leaves the old one or the new one. For what would be done again.
    fn replace<T: Serialize>(&mut self, path: &Path, record: &T) -> Result<()> {
        let temporary = layout::temporary(path);
        self.steps.extend([
            Effect::Write { path: temporary.clone(), content: record::encode(record)? },
            Effect::SyncFile { path: temporary.clone() },
            Effect::Rename { from: temporary.clone(), to: path.to_owned() },
        ]);
        self.undo.push(Effect::RemoveFile { path: temporary });
        Ok(())
    }

    /// Replaces a run record in one step. A power cut ends what it describes, so nothing of it has to last.
    fn note(&mut self, path: &Path, record: &RunRecord) -> Result<()> {
        let temporary = layout::temporary(path);
        self.steps.extend([
            Effect::Write { path: temporary.clone(), content: record::encode(record)? },
            Effect::Rename { from: temporary.clone(), to: path.to_owned() },
        ]);
        self.undo.push(Effect::RemoveFile { path: temporary });
        Ok(())
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        self.undo.iter().try_for_each(|step| writeln!(f, "undo: {step}"))
    }
}
