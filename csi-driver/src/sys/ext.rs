//! Running a plan: a loop, and an undo when it breaks.

use std::io;

use super::System;
use crate::model::Error;
use crate::plan::{Effect, Plan};

/// Runs the steps in order. After a failed one, what may have been done is undone; the error says whether something is
/// left.
pub fn execute(system: &dyn System, plan: &Plan) -> Result<(), Failed> {
    for step in &plan.steps {
        let Err(error) = system.apply(step) else { continue };
        let left = plan
            .undo
            .iter()
            .filter_map(|undo| system.apply(undo).err().map(|error| format!("{undo}: {error}")))
            .collect();
        return Err(Failed { step: step.clone(), error, left });
    }
    Ok(())
}

/// A step of a plan failed.
#[derive(Debug)]
pub struct Failed {
    /// The step.
    pub step: Effect,
    /// Why.
    pub error: io::Error,
    /// What could not be undone.
    pub left: Vec<String>,
}

impl Failed {
    /// Whether it is unknown what is on disk.
    pub fn is_lost_sync(&self) -> bool {
        // A file that has no room was not renamed yet, so nobody has seen it.
        let harmless = matches!(self.step, Effect::SyncFile { .. })
            && matches!(self.error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::NotFound);
        self.step.is_sync() && !harmless
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        let Failed { step, error, left } = failed;
        let text = format!("failed to {step}: {error}");
        if !left.is_empty() {
            return Self::Unfinished(format!("{text}; not undone: {}", left.join("; ")));
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Exhausted(text),
            // Only growing a mounted ext4 is forbidden to a process that is root.
            io::ErrorKind::PermissionDenied if matches!(step, Effect::Grow { mounted: Some(_), .. }) => {
                Self::Precondition(format!(
                    "{text}; growing a mounted ext4 needs CAP_SYS_RESOURCE, without it the volume grows when it is \
                     staged next: restart its pod"
                ))
            }
            io::ErrorKind::ResourceBusy | io::ErrorKind::TimedOut => Self::Unfinished(text),
            _ => Self::Effect(text),
        }
    }
}
