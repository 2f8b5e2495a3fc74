//! What is remembered of a key between two looks: the planner's own memory, the server's last refusal, and that
//! nothing can be created any more where it lives.
//! Bound to one incarnation, kept only while it says something, lost on restart.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use trysail_core::{
    Key, Timestamp, Uid,
    plan::{Refusal, Verb},
};

use crate::{
    apply::{Outcome, Report, Verdict},
    queue::QueueConfig,
};

#[derive(Debug)]
struct Memory<M> {
    uid: Uid,
    planners: M,
    refusal: Option<Refusal>,
    /// Its namespace is being deleted.
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Memories<M>(Mutex<HashMap<Key, Memory<M>>>);

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

/// What a plan's outcome means for the next look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    /// The refusal is new, or gone: the planner is to know at once.
    pub(super) look_again: bool,
    /// When what was refused is tried again.
    pub(super) retry_at: Option<Timestamp>,
}

impl<M> Default for Memories<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M: Clone + Default + PartialEq> Memories<M> {
    pub(super) fn recall(&self, key: &Key, uid: &Uid) -> (M, Option<Refusal>) {
        match self.lock().get(key).filter(|memory| memory.uid == *uid) {
            Some(memory) => (memory.planners.clone(), memory.refusal.clone()),
            None => (M::default(), None),
        }
    }

    pub(super) fn remember(&self, key: &Key, uid: &Uid, planners: M) {
        self.change(key, uid, |memory| memory.planners = planners);
    }

    pub(super) fn close(&self, key: &Key, uid: &Uid) {
        self.change(key, uid, |memory| memory.closed = true);
    }

    pub(super) fn is_closed(&self, key: &Key, uid: &Uid) -> bool {
        self.lock().get(key).is_some_and(|memory| memory.uid == *uid && memory.closed)
    }

    pub(super) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Status writes are not counted: the one that tells of a refusal must not end it, and one that is refused
    /// itself is backed off like any failure.
    pub(super) fn judge(
        &self,
        key: &Key,
        uid: &Uid,
        attempt: Attempt,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Judged {
        let (mut risked, mut done, mut refused) = (false, true, None);
        for report in outcome.reports.iter().filter(|report| !is_status_write(report)) {
            risked |= matches!(report.action.verb, Verb::Create { .. } | Verb::Delete { .. });
            done &= report.verdict.is_done();
            if let (Verdict::Refused { message }, None) = (&report.verdict, refused) {
                refused = Some((report.action.reason, message));
            }
        }
        if let Some((action, message)) = refused {
            let look_again = attempt != Attempt::Holding;
            return self.change(key, uid, |memory| {
                let attempts = memory.refusal.as_ref().map_or(0, |before| before.attempts).saturating_add(1);
                let retry_at = later(now, QueueConfig::default().delay(attempts));
                memory.refusal = Some(Refusal { action, message: message.clone(), attempts, retry_at });
                Judged { look_again, retry_at: Some(retry_at) }
            });
        }
        let over = match attempt {
            Attempt::First => false,
            // Also without anything left to try: there is nothing the server could refuse.
            Attempt::Again => done,
            // A patch that tells of the refusal must not end it.
            Attempt::Holding => risked && done,
        };
        if over {
            self.change(key, uid, |memory| memory.refusal = None);
            return Judged { look_again: true, retry_at: None };
        }
        let (_, refusal) = self.recall(key, uid);
        Judged { look_again: false, retry_at: refusal.map(|refusal| refusal.retry_at) }
    }

    fn change<R>(&self, key: &Key, uid: &Uid, change: impl FnOnce(&mut Memory<M>) -> R) -> R {
        let mut memories = self.lock();
        let mut memory = match memories.remove(key) {
            Some(memory) if memory.uid == *uid => memory,
            Some(_) | None => {
                Memory { uid: uid.clone(), planners: M::default(), refusal: None, closed: false }
            }
        };
        let result = change(&mut memory);
        if memory.closed || memory.refusal.is_some() || memory.planners != M::default() {
            memories.insert(key.clone(), memory);
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Memory<M>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_status_write(report: &Report) -> bool {
    matches!(report.action.verb, Verb::Patch { subresource: Some(_), .. })
}

fn later(now: Timestamp, delay: Duration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trysail_core::{Action, plan::Target, resource::PODS};

    use super::*;

    fn report(verb: Verb, verdict: Verdict) -> Report {
        let target = Target { resource: PODS, key: Key::new("shop", "x"), uid: None, resource_version: 0 };
        let action = Action {
            target,
            verb,
            reason: "Create",
            because: String::new(),
            on_success: None,
            on_failure: None,
        };
        Report { action, verdict }
    }

    fn create(verdict: Verdict) -> Report {
        report(Verb::Create { controller: None, body: json!({}).into() }, verdict)
    }

    fn status(verdict: Verdict) -> Report {
        report(Verb::Patch { subresource: Some("status"), body: json!({}) }, verdict)
    }

    fn refused() -> Verdict {
        Verdict::Refused { message: "exceeded quota".to_owned() }
    }

    struct Case {
        memories: Memories<u32>,
        key: Key,
        uid: Uid,
        now: Timestamp,
    }

    impl Case {
        fn new() -> Self {
            let now = Timestamp::from_second(1000).unwrap();
            Self { memories: Memories::default(), key: Key::new("shop", "web"), uid: Uid::from("u"), now }
        }

        fn judge(&mut self, later: Duration, reports: Vec<Report>) -> Judged {
            self.now = self.now.checked_add(later).unwrap();
            let (_, refusal) = self.memories.recall(&self.key, &self.uid);
            let attempt = Attempt::at(refusal.as_ref(), self.now);
            self.memories.judge(&self.key, &self.uid, attempt, &Outcome { reports }, self.now)
        }

        fn attempts(&self) -> Option<u32> {
            self.memories.recall(&self.key, &self.uid).1.map(|refusal| refusal.attempts)
        }
    }

    #[test]
    fn a_refusal_is_told_at_once_kept_while_its_condition_is_written_and_ends_with_success() {
        let mut case = Case::new();
        let second = Duration::from_secs(1);
        let first = case.judge(second, vec![create(refused()), status(Verdict::Skipped)]);
        assert!(first.look_again);
        assert_eq!(first.retry_at.unwrap(), later(case.now, Duration::from_millis(5)));
        let told = case.judge(Duration::ZERO, vec![status(Verdict::Done)]);
        assert_eq!(told, Judged { look_again: false, retry_at: first.retry_at });
        assert!(case.judge(second, vec![create(refused())]).look_again);
        assert_eq!(case.attempts(), Some(2));
        assert!(case.judge(second, vec![create(Verdict::Done)]).look_again);
        assert_eq!(case.attempts(), None);
        assert!(case.memories.lock().is_empty(), "nothing is kept that says nothing");
    }

    #[test]
    fn a_refusal_ends_when_there_is_nothing_left_to_try() {
        let mut case = Case::new();
        case.judge(Duration::ZERO, vec![create(refused())]);
        assert_eq!(
            case.judge(Duration::ZERO, vec![]).retry_at,
            Some(later(case.now, Duration::from_millis(5)))
        );
        assert!(case.judge(Duration::from_secs(1), vec![]).look_again);
        assert_eq!(case.attempts(), None);
    }

    /// A planner that goes on though it was told to hold must not spin.
    #[test]
    fn what_is_refused_while_holding_is_not_looked_at_at_once() {
        let mut case = Case::new();
        case.judge(Duration::ZERO, vec![create(refused())]);
        assert!(!case.judge(Duration::ZERO, vec![create(refused())]).look_again);
        assert!(!case.judge(Duration::ZERO, vec![status(refused())]).look_again);
    }

    #[test]
    fn a_new_incarnation_remembers_nothing() {
        let case = Case::new();
        case.memories.remember(&case.key, &case.uid, 7);
        assert_eq!(case.memories.recall(&case.key, &case.uid).0, 7);
        assert_eq!(case.memories.recall(&case.key, &Uid::from("other")).0, 0);
        case.memories.remember(&case.key, &Uid::from("other"), 0);
        assert!(case.memories.lock().is_empty());
    }
}
