//! What is told about a CronJob: each thing once, as long as it holds.
//!
//! Upstream tells what it finds at every sync: a missed start, an unknown zone, a Job that holds up the next one, again
//! and again.

use trysail_core::plan::EventNote;

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

    /// What is to be told now, and what is to be remembered as told.
    pub(super) fn since(self, told: &[EventNote]) -> (Vec<EventNote>, Vec<EventNote>) {
        let news = self.0.iter().filter(|note| !told.contains(note)).cloned().collect();
        (news, self.0)
    }
}
