//! Who waits for what. Every wait is found from both sides: by the key that waits, and by the progress it waits
//! for, so that an event costs no more than what it opens.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;
use trysail_core::{Key, Uid};

use super::WaitingFor;

/// Everything that is waited for. An informer is known by its id.
#[derive(Debug, Default)]
pub(super) struct State {
    keys: HashMap<Key, Held>,
    /// Per informer, in the order in which it will pass them.
    versions: HashMap<usize, BTreeSet<(u64, Key)>>,
    leaving: HashMap<(usize, Uid), Vec<Key>>,
}

/// What one key waits for.
#[derive(Debug)]
pub(super) struct Held {
    since: Instant,
    reported: bool,
    /// The newest of our writes, per informer.
    pub(super) versions: Vec<(usize, u64)>,
    pub(super) leaving: usize,
    pub(super) answers: usize,
}

/// Keys that have waited for too long.
pub(super) struct Stuck {
    pub(super) total: usize,
    /// Those not reported before.
    pub(super) news: Vec<(Key, WaitingFor)>,
}

impl State {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn held(&self, key: &Key) -> Option<&Held> {
        self.keys.get(key)
    }

    pub(super) fn wait_for_version(&mut self, key: &Key, informer: usize, version: u64) {
        let held = self.keys.entry(key.clone()).or_insert_with(Held::new);
        let waiting = self.versions.entry(informer).or_default();
        match held.versions.iter_mut().find(|(held, _)| *held == informer) {
            Some((_, newest)) if *newest >= version => {}
            Some((_, newest)) => {
                waiting.remove(&(*newest, key.clone()));
                waiting.insert((version, key.clone()));
                *newest = version;
            }
            None => {
                held.versions.push((informer, version));
                waiting.insert((version, key.clone()));
            }
        }
    }

    pub(super) fn wait_for_leave(&mut self, key: &Key, informer: usize, uid: &Uid) {
        let waiting = self.leaving.entry((informer, uid.clone())).or_default();
        if !waiting.contains(key) {
            waiting.push(key.clone());
            self.keys.entry(key.clone()).or_insert_with(Held::new).leaving += 1;
        }
    }

    pub(super) fn wait_for_answer(&mut self, key: &Key) {
        self.keys.entry(key.clone()).or_insert_with(Held::new).answers += 1;
    }

    /// The store of that informer shows everything up to `version`. Returns the keys that wait no longer.
    pub(super) fn advanced(&mut self, informer: usize, version: u64) -> Vec<Key> {
        let mut opened = Vec::new();
        let Some(waiting) = self.versions.get_mut(&informer) else { return opened };
        while waiting.first().is_some_and(|(first, _)| *first <= version) {
            let Some((passed, key)) = waiting.pop_first() else { break };
            let Some(held) = self.keys.get_mut(&key) else { continue };
            held.versions.retain(|wait| *wait != (informer, passed));
            if held.is_open() {
                self.keys.remove(&key);
                opened.push(key);
            }
        }
        if waiting.is_empty() {
            self.versions.remove(&informer);
        }
        opened
    }

    /// The store of that informer shows this incarnation gone or terminating.
    pub(super) fn left(&mut self, informer: usize, uid: &Uid) -> Vec<Key> {
        // Most deletions are not ours: no clone for those.
        if self.leaving.is_empty() {
            return Vec::new();
        }
        let waiting = self.leaving.remove(&(informer, uid.clone())).unwrap_or_default();
        waiting.into_iter().filter(|key| self.less(key, |held| &mut held.leaving)).collect()
    }

    /// Nothing is waited for from that informer any more. Returns the keys that wait no longer.
    pub(super) fn removed(&mut self, informer: usize) -> Vec<Key> {
        let mut opened = self.advanced(informer, u64::MAX);
        let leaving: Vec<_> = self.leaving.keys().filter(|(id, _)| *id == informer).cloned().collect();
        for (id, uid) in leaving {
            opened.extend(self.left(id, &uid));
        }
        opened
    }

    /// A read told what became of one write of unknown outcome.
    pub(super) fn answered(&mut self, key: &Key) -> Vec<Key> {
        let opened = self.less(key, |held| &mut held.answers);
        if opened { vec![key.clone()] } else { Vec::new() }
    }

    /// Takes one from a count; true when the key waits for nothing any more.
    fn less(&mut self, key: &Key, count: impl Fn(&mut Held) -> &mut usize) -> bool {
        let Some(held) = self.keys.get_mut(key) else { return false };
        let count = count(held);
        *count = count.saturating_sub(1);
        let open = held.is_open();
        if open {
            self.keys.remove(key);
        }
        open
    }

    pub(super) fn stuck(&mut self, now: Instant, limit: Duration) -> Stuck {
        let mut stuck = Stuck { total: 0, news: Vec::new() };
        for (key, held) in &mut self.keys {
            if now.saturating_duration_since(held.since) < limit {
                continue;
            }
            stuck.total += 1;
            if !held.reported {
                held.reported = true;
                stuck.news.push((key.clone(), held.waiting_for()));
            }
        }
        stuck
    }
}

impl Held {
    fn new() -> Self {
        Self { since: Instant::now(), reported: false, versions: Vec::new(), leaving: 0, answers: 0 }
    }

    fn is_open(&self) -> bool {
        self.versions.is_empty() && self.leaving == 0 && self.answers == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("shop", name)
    }

    #[tokio::test]
    async fn a_key_waits_for_the_newest_of_its_writes_in_every_store() {
        let mut state = State::default();
        let web = key("web");
        state.wait_for_version(&web, 1, 10);
        state.wait_for_version(&web, 1, 12);
        state.wait_for_version(&web, 1, 11);
        state.wait_for_version(&web, 2, 20);
        state.wait_for_leave(&web, 1, &Uid::from("u"));
        state.wait_for_leave(&web, 1, &Uid::from("u"));
        assert!(state.advanced(1, 11).is_empty());
        assert!(state.advanced(1, 12).is_empty());
        assert!(state.left(1, &Uid::from("u")).is_empty());
        assert!(state.left(2, &Uid::from("u")).is_empty());
        assert_eq!(state.advanced(2, 25), std::slice::from_ref(&web));
        assert_eq!(state.len(), 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_an_informer_that_was_removed() {
        let mut state = State::default();
        state.wait_for_version(&key("web"), 1, 10);
        state.wait_for_leave(&key("web"), 1, &Uid::from("u"));
        state.wait_for_version(&key("db"), 2, 10);
        assert_eq!(state.removed(1), [key("web")]);
        assert_eq!(state.len(), 1);
    }

    #[tokio::test]
    async fn an_unknown_outcome_holds_until_answered() {
        let mut state = State::default();
        state.wait_for_answer(&key("web"));
        state.wait_for_answer(&key("web"));
        assert!(state.answered(&key("web")).is_empty());
        assert_eq!(state.answered(&key("web")), [key("web")]);
    }

    /// Nothing is kept of what was waited for: a controller that runs for a year must not grow.
    #[tokio::test]
    async fn nothing_is_left_behind() {
        let mut state = State::default();
        for n in 0..1000u64 {
            let key = key(&format!("k{}", n % 7));
            state.wait_for_version(&key, 1, n);
            state.wait_for_leave(&key, 1, &Uid::from(format!("u{n}").as_str()));
        }
        state.advanced(1, 1000);
        for n in 0..1000u64 {
            state.left(1, &Uid::from(format!("u{n}").as_str()));
        }
        assert!(state.keys.is_empty() && state.versions.is_empty() && state.leaving.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_key_is_reported_once() {
        let mut state = State::default();
        state.wait_for_version(&key("web"), 1, 10);
        let limit = Duration::from_secs(30);
        assert_eq!(state.stuck(Instant::now(), limit).total, 0);
        tokio::time::advance(limit).await;
        assert_eq!(state.stuck(Instant::now(), limit).news.len(), 1);
        let again = state.stuck(Instant::now(), limit);
        assert_eq!((again.total, again.news.len()), (1, 0));
    }
}
