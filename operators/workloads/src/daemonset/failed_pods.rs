//! Failed pods are deleted to be replaced, at most as fast as a back-off per node allows: a node that refuses a pod
//! (for want of resources, say) would otherwise make it fail in a hot loop.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use trysail_core::{Symbol, Uid, pod::Pod};

/// Upstream's: the first wait and the longest. A back-off is forgotten after twice the longest.
const FIRST: SignedDuration = SignedDuration::from_secs(1);
const LONGEST: SignedDuration = SignedDuration::from_mins(15);

/// A node whose pods fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failing {
    /// The spec that was failing: another one starts afresh.
    generation: i64,
    /// The pod that was last given up.
    pod: Uid,
    /// When it was.
    since: Timestamp,
    /// How long the next one stays.
    wait: SignedDuration,
}

impl Failing {
    fn is_forgotten(&self, generation: i64, now: Timestamp) -> bool {
        self.generation != generation || now.duration_since(self.since) > LONGEST * 2
    }
}

/// What becomes of a failed pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes now.
    Delete {
        /// That is news.
        is_news: bool,
    },
    /// It stays until then.
    Wait(Timestamp),
}

/// The back-offs of one look; changed ones are copied on write.
pub(super) struct Backoffs<'a> {
    held: &'a mut Arc<BTreeMap<Symbol, Failing>>,
    generation: i64,
    now: Timestamp,
}

impl<'a> Backoffs<'a> {
    pub(super) fn new(held: &'a mut Arc<BTreeMap<Symbol, Failing>>, generation: i64, now: Timestamp) -> Self {
        if held.values().any(|failing| failing.is_forgotten(generation, now)) {
            Arc::make_mut(held).retain(|_, failing| !failing.is_forgotten(generation, now));
        }
        Self { held, generation, now }
    }

    /// Decides about a failed pod on that node.
    pub(super) fn judge(&mut self, node: &str, pod: &Pod) -> Fate {
        let (uid, now) = (&pod.meta.uid, self.now);
        let wait = match self.held.get(node) {
            // Given up before, but it is still there.
            Some(failing) if failing.pod == *uid => return Fate::Delete { is_news: false },
            Some(failing) => {
                let due = failing.since.checked_add(failing.wait).unwrap_or(now);
                // A clock that stepped back must not hold a pod for longer than its wait.
                if now < due && failing.since <= now {
                    return Fate::Wait(due);
                }
                (failing.wait * 2).min(LONGEST)
            }
            None => FIRST,
        };
        let failing = Failing { generation: self.generation, pod: uid.clone(), since: now, wait };
        Arc::make_mut(self.held).insert(Symbol::from(node), failing);
        Fate::Delete { is_news: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "uid": uid}})).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_fifteen_minutes() {
        let mut held = Arc::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for failure in 0..13 {
            let pod = pod(&failure.to_string());
            let mut judge = |now| Backoffs::new(&mut held, 1, at(now)).judge("n", &pod);
            let mut fate = judge(now);
            if let Fate::Wait(until) = fate {
                waits.push(until.duration_since(at(now)).as_secs());
                now += waits.last().unwrap();
                fate = judge(now);
            }
            assert_eq!(fate, Fate::Delete { is_news: true });
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
    }

    #[test]
    fn nodes_and_generations_have_back_offs_of_their_own() {
        let mut held = Arc::default();
        let fresh = Fate::Delete { is_news: true };
        assert_eq!(Backoffs::new(&mut held, 1, at(0)).judge("n", &pod("a")), fresh);
        assert_eq!(Backoffs::new(&mut held, 1, at(0)).judge("m", &pod("b")), fresh);
        assert_eq!(Backoffs::new(&mut held, 1, at(0)).judge("n", &pod("c")), Fate::Wait(at(1)));
        assert_eq!(Backoffs::new(&mut held, 2, at(0)).judge("n", &pod("c")), fresh);
        assert_eq!(held.len(), 1, "what is forgotten is not kept");
    }

    /// A delete that was refused, or whose effect is not in view yet, is neither news nor another failure.
    #[test]
    fn a_pod_is_given_up_once() {
        let mut held = Arc::default();
        Backoffs::new(&mut held, 1, at(0)).judge("n", &pod("a"));
        let before = Arc::clone(&held);
        assert_eq!(Backoffs::new(&mut held, 1, at(0)).judge("n", &pod("a")), Fate::Delete { is_news: false });
        assert!(Arc::ptr_eq(&before, &held));
    }

    #[test]
    fn a_clock_that_stepped_back_holds_nothing() {
        let mut held = Arc::default();
        Backoffs::new(&mut held, 1, at(900)).judge("n", &pod("a"));
        assert_eq!(Backoffs::new(&mut held, 1, at(0)).judge("n", &pod("b")), Fate::Delete { is_news: true });
    }
}
