//! How often the status is written: what finishes within a second is counted by one write.
//!
//! Upstream delays every look by a second for the same reason; here pods are replaced at once, and only the writing
//! waits. A change that somebody waits for (a condition, the start, the last pod) is written at once.

use jiff::SignedDuration;
use trysail_core::Timestamp;

/// Upstream's `SyncJobBatchPeriod`.
const PERIOD: SignedDuration = SignedDuration::from_secs(1);

/// Since when a change of the status waits to be written. Lost on restart, harmlessly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    since: Option<Timestamp>,
}

impl Batch {
    /// When to write a change; `None` for now.
    pub(super) fn hold_until(self, now: Timestamp) -> Option<Timestamp> {
        let due = self.since(now).checked_add(PERIOD).ok()?;
        (now < due).then_some(due)
    }

    /// While a change waits.
    pub(super) fn waiting(self, now: Timestamp) -> Self {
        Self { since: Some(self.since(now)) }
    }

    /// A clock that stepped back must not hold a status for ever.
    fn since(self, now: Timestamp) -> Timestamp {
        self.since.filter(|since| *since <= now).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_waits_a_second_and_no_longer() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let batch = Batch::default();
        assert_eq!(batch.hold_until(at(5000)), Some(at(6000)));
        let waiting = batch.waiting(at(5000)).waiting(at(5900));
        assert_eq!(waiting.hold_until(at(5999)), Some(at(6000)), "from the first change on");
        assert_eq!(waiting.hold_until(at(6000)), None);
        assert_eq!(waiting.hold_until(at(4000)), Some(at(5000)), "the clock stepped back");
    }
}
