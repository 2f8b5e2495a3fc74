//! What a refusal means for the next look: the rules of the SDK's `controller::memory`, to the letter.

use jiff::{SignedDuration, Timestamp};
use trysail_core::plan::{Action, Refusal, Verb};

/// A key that fails is tried again after 5 ms, 10 ms, 20 ms … 30 s: the SDK's queue.
const BASE_DELAY: SignedDuration = SignedDuration::from_millis(5);
const MAX_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// How the refusal stood when a plan was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// There was none.
    First,
    /// Its time had come: the plan tried again.
    Again,
    /// Its time had not come: the plan left out what was refused.
    Holding,
}

impl Attempt {
    pub(super) fn at(refusal: Option<&Refusal>, now: Timestamp) -> Self {
        match refusal {
            None => Self::First,
            Some(refusal) if refusal.retry_at <= now => Self::Again,
            Some(_) => Self::Holding,
        }
    }
}

/// What became of one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is as wanted.
    Done,
    /// The server does not want it.
    Refused(String),
    /// Overtaken, unanswered or not tried.
    Open,
}

/// An action and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) reason: &'static str,
    is_status_write: bool,
    is_create_or_delete: bool,
    pub(super) verdict: Verdict,
}

impl Report {
    pub(super) fn new(action: &Action, verdict: Verdict) -> Self {
        Self {
            reason: action.reason,
            is_status_write: matches!(action.verb, Verb::Patch { subresource: Some(_), .. }),
            is_create_or_delete: matches!(action.verb, Verb::Create { .. } | Verb::Delete { .. }),
            verdict,
        }
    }
}

/// What a plan's outcome means for the next look.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    /// What is remembered.
    pub(super) refusal: Option<Refusal>,
    /// The refusal is new, or gone: the planner is to know at once.
    pub(super) look_again: bool,
}

/// Status writes are not counted: the one that tells of a refusal must not end it.
pub(super) fn judge(before: Option<Refusal>, attempt: Attempt, reports: &[Report], now: Timestamp) -> Judged {
    let counted = || reports.iter().filter(|report| !report.is_status_write);
    let refused = counted().find_map(|report| match &report.verdict {
        Verdict::Refused(message) => Some((report.reason, message)),
        Verdict::Done | Verdict::Open => None,
    });
    if let Some((action, message)) = refused {
        let attempts = before.map_or(0, |before| before.attempts).saturating_add(1);
        let refusal = Refusal { action, message: message.clone(), attempts, retry_at: now + delay(attempts) };
        return Judged { refusal: Some(refusal), look_again: attempt != Attempt::Holding };
    }
    let risked = counted().any(|report| report.is_create_or_delete);
    let done = counted().all(|report| report.verdict == Verdict::Done);
    let over = match attempt {
        Attempt::First => false,
        // Also without anything left to try: there is nothing the server could refuse.
        Attempt::Again => done,
        // A patch that tells of the refusal must not end it.
        Attempt::Holding => risked && done,
    };
    if over {
        Judged { refusal: None, look_again: true }
    } else {
        Judged { refusal: before, look_again: false }
    }
}

/// The delay after so many failures in a row.
pub(super) fn delay(failures: u32) -> SignedDuration {
    BASE_DELAY.checked_mul(1 << failures.saturating_sub(1).min(20)).unwrap_or(MAX_DELAY).min(MAX_DELAY)
}
