//! The least number of status writes that would have told the same story.
//!
//! An owner's status is a function of its pods. Whoever watches them may gather changes for 100 ms and write once
//! for each distinct state that is left: that is the number counted here, per owner, from the bench's own watch.

use std::time::{Duration, Instant};

/// How long changes may be gathered before the status must be written.
pub(crate) const COALESCING: Duration = Duration::from_millis(100);

/// A state, and how often an ideal writer would have written it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coalesced<S> {
    written: S,
    current: S,
    due: Option<Instant>,
    writes: u64,
}

impl<S: Clone + PartialEq> Coalesced<S> {
    /// A writer whose last write said `state`.
    #[cfg(test)]
    pub(crate) fn at(state: S) -> Self {
        Self { written: state.clone(), current: state, due: None, writes: 0 }
    }

    /// The state became `state`.
    pub(crate) fn set(&mut self, state: S, now: Instant) {
        self.write_due(now);
        self.current = state;
        if self.due.is_none() && self.current != self.written {
            self.due = Some(now + COALESCING);
        }
    }

    fn write_due(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            self.writes += u64::from(self.current != self.written);
            self.written = self.current.clone();
        }
    }

    /// The writes since the last call, after all changes were written out.
    pub(crate) fn take(&mut self) -> u64 {
        if let Some(due) = self.due {
            self.write_due(due);
        }
        std::mem::take(&mut self.writes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(changes: &[(u64, u32)]) -> u64 {
        let start = Instant::now();
        let mut status = Coalesced::at(0);
        for (millis, state) in changes {
            status.set(*state, start + Duration::from_millis(*millis));
        }
        status.take()
    }

    #[test]
    fn changes_within_the_window_are_one_write() {
        assert_eq!(writes(&[(0, 1), (50, 2), (99, 3)]), 1);
    }

    #[test]
    fn a_change_after_the_window_is_another_write() {
        assert_eq!(writes(&[(0, 1), (100, 2)]), 2);
    }

    /// A state that came and went while it was gathered was never worth a write.
    #[test]
    fn a_change_that_is_taken_back_needs_none() {
        assert_eq!(writes(&[(0, 1), (50, 0)]), 0);
        assert_eq!(writes(&[(0, 1), (50, 0), (200, 0), (300, 2)]), 1);
    }

    #[test]
    fn the_last_change_is_written_out_and_counted_once() {
        let mut status = Coalesced::at(0);
        status.set(1, Instant::now());
        assert_eq!((status.take(), status.take()), (1, 0));
    }
}
