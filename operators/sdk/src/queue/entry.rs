//! What the queue knows of one key: where it is, why, and when it is to be looked at.

use std::time::Duration;

use super::{Cause, Causes, NORMAL_PRIORITY, Priority};

/// An early attempt at a failing key waits for this share of its backoff.
const EARLY_SHARE: u32 = 10;

/// Delays of failing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// After the first failure; doubled by each further one.
    pub base_delay: Duration,
    /// Never longer than this.
    pub max_delay: Duration,
    /// After a success, a key is not worked on again for this time, however much happens to it meanwhile: one
    /// look for a burst of events. The first event of a burst is not delayed. Zero switches it off.
    pub pace: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        // client-go starts at 5 ms. Its cap of 1000 s leaves a repaired object alone for a quarter of an hour.
        Self {
            base_delay: Duration::from_millis(5),
            max_delay: Duration::from_secs(30),
            pace: Duration::ZERO,
        }
    }
}

impl QueueConfig {
    /// The delay after so many failures in a row.
    pub fn delay(&self, failures: u32) -> Duration {
        // 2^31 * 5 ms is past any sensible cap.
        let doublings = failures.saturating_sub(1).min(31);
        self.base_delay.saturating_mul(1 << doublings).min(self.max_delay)
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) phase: Phase,
    /// Asked for by `add_at`, or an early attempt that is held back.
    pub(super) requested: Option<Duration>,
    /// Asked for by the last turn.
    pub(super) planned: Option<Duration>,
    /// When a failing key is tried again.
    pub(super) retry: Option<Duration>,
    /// Attempts that failed in a row, early ones not counted.
    pub(super) failures: u32,
    /// Events make the key ready no sooner: it failed, or was worked on just now.
    pub(super) early_from: Duration,
    /// The entry is kept until then, for `early_from`.
    pub(super) kept: Option<Duration>,
    /// A worker had it and could not begin: it waits to be released.
    pub(super) held: bool,
    /// For retries and early attempts.
    pub(super) priority: Priority,
    pub(super) causes: Causes,
    /// Under which number it stands among the timers.
    pub(super) timer: Option<(Duration, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Ready { seq: u64, priority: Priority, since: Duration },
    Running { since: Duration, early: bool, again: Option<Priority> },
}

impl Entry {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Idle,
            requested: None,
            planned: None,
            retry: None,
            failures: 0,
            early_from: Duration::ZERO,
            kept: None,
            held: false,
            priority: NORMAL_PRIORITY,
            causes: Causes::default(),
            timer: None,
        }
    }

    pub(super) fn due(&self) -> Option<Duration> {
        [self.requested, self.planned, self.retry, self.kept].into_iter().flatten().min()
    }

    pub(super) fn is_forgettable(&self) -> bool {
        self.phase == Phase::Idle && self.failures == 0 && self.due().is_none() && self.causes.is_empty()
    }

    /// Takes out every deadline that has passed; `None` when that is no reason to work.
    pub(super) fn come_due(&mut self, now: Duration) -> Option<Priority> {
        let mut due = None;
        if self.requested.take_if(|requested| *requested <= now).is_some() {
            due = due.max(Some(self.priority));
        }
        if self.planned.take_if(|planned| *planned <= now).is_some() {
            self.causes.push(Cause::Timer);
            due = due.max(Some(NORMAL_PRIORITY));
        }
        if self.retry.take_if(|retry| *retry <= now).is_some() && !matches!(self.phase, Phase::Running { .. })
        {
            // A running attempt is the retry: if it fails, another one is set.
            self.causes.push(Cause::Retry { failures: self.failures });
            due = due.max(Some(self.priority));
        }
        due
    }

    pub(super) fn fail(&mut self, config: &QueueConfig, early: bool, now: Duration) {
        // An early attempt that was still running when the retry came due has taken its place.
        if !early || self.retry.is_none_or(|retry| retry <= now) {
            self.failures = self.failures.saturating_add(1);
        }
        let delay = config.delay(self.failures);
        if self.retry.is_none_or(|retry| retry <= now) {
            self.retry = Some(now.saturating_add(delay));
        }
        self.early_from = now.saturating_add(delay / EARLY_SHARE);
    }
}
