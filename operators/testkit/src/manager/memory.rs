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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trysail_core::{Key, plan::Target, resource::PODS};

    use super::*;

    fn report(verb: Verb, verdict: Verdict) -> Report {
        let target = Target { resource: PODS, key: Key::new("shop", "x"), uid: None, resource_version: 0 };
        let because = String::new();
        let action = Action { target, verb, reason: "Create", because, on_success: None, on_failure: None };
        Report::new(&action, verdict)
    }

    fn create(verdict: Verdict) -> Report {
        report(Verb::Create { controller: None, body: json!({}).into() }, verdict)
    }

    fn status(verdict: Verdict) -> Report {
        report(Verb::Patch { subresource: Some("status"), body: json!({}) }, verdict)
    }

    fn refused() -> Verdict {
        Verdict::Refused("exceeded quota".to_owned())
    }

    /// The same story as in the SDK's own test.
    #[test]
    fn a_refusal_is_told_at_once_kept_while_its_condition_is_written_and_ends_with_success() {
        let now = Timestamp::UNIX_EPOCH;
        let first = judge(None, Attempt::First, &[create(refused()), status(Verdict::Open)], now);
        assert!(first.look_again);
        let refusal = first.refusal.unwrap();
        assert_eq!(refusal.retry_at, now + SignedDuration::from_millis(5));
        let told = judge(Some(refusal), Attempt::Holding, &[status(Verdict::Done)], now);
        assert!(!told.look_again);
        let again = judge(told.refusal, Attempt::Again, &[create(refused())], now);
        assert_eq!(again.refusal.as_ref().map(|refusal| refusal.attempts), Some(2));
        let over = judge(again.refusal, Attempt::Again, &[create(Verdict::Done)], now);
        assert!(over.look_again && over.refusal.is_none());
    }

    #[test]
    fn a_refusal_ends_when_there_is_nothing_left_to_try_and_never_spins() {
        let now = Timestamp::UNIX_EPOCH;
        let held = || judge(None, Attempt::First, &[create(refused())], now).refusal;
        assert!(judge(held(), Attempt::Again, &[], now).refusal.is_none());
        assert!(judge(held(), Attempt::Holding, &[], now).refusal.is_some());
        assert!(!judge(held(), Attempt::Holding, &[create(refused())], now).look_again);
        assert!(judge(None, Attempt::First, &[status(refused())], now).refusal.is_none());
    }

    #[test]
    fn delays_double_up_to_half_a_minute() {
        assert_eq!(delay(1), SignedDuration::from_millis(5));
        assert_eq!(delay(4), SignedDuration::from_millis(40));
        assert_eq!(delay(100), SignedDuration::from_secs(30));
    }
}
