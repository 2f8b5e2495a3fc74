//! What is told about a CronJob: each thing once, as long as it holds.
//!
//! Upstream tells what it finds at every sync: a missed start, an unknown zone, a Job that holds up the next one, again
//! and again.

use trysail_core::plan::{EventNote, Plan};

use super::Memory;

/// What holds at this look.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<EventNote>);

impl Notes {
    pub(super) fn normal(&mut self, reason: &'static str, message: impl Into<String>) {
        self.0.push(EventNote::normal(reason, message));
    }

    pub(super) fn warning(&mut self, reason: &'static str, message: impl Into<String>) {
        self.0.push(EventNote::warning(reason, message));
    }

    /// Has the plan tell what is news, and remember what was told.
    pub(super) fn tell(self, plan: &mut Plan<Memory>) {
        plan.events = self.0.iter().filter(|note| !plan.memory.told.contains(note)).cloned().collect();
        if let Some(memory) = &mut plan.memory_when_done {
            memory.told.clone_from(&self.0);
        }
        plan.memory.told = self.0;
    }
}
