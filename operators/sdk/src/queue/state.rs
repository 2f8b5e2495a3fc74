//! The queue as a state machine: every operation takes the time, as a duration since the queue began.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

use super::{
    Cause, Causes, NORMAL_PRIORITY, Priority, QueueConfig,
    entry::{Entry, Phase},
};

/// One turn in this many goes to the key that has waited longest. Eight leaves live changes 7/8 of the workers
/// during an initial list, and lets a list of 10 000 keys end after 80 000 turns at the latest.
pub const AGING_SHARE: u64 = 8;

/// How a worker's turn with a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Failures are forgotten. `again_after` replaces what an earlier turn had asked for.
    Success {
        /// Look again after this time.
        again_after: Option<Duration>,
    },
    /// Look again at once, behind the others. Says nothing about failures.
    Again,
    /// The turn could not take place yet: look again after this time. Says nothing about failures.
    Later(Duration),
    /// Try again after a backoff: somebody else was faster.
    Retry,
    /// Try again after a backoff: it failed.
    Failure,
    /// Failures are forgotten, and it is not tried again until something happens.
    Terminal,
}

/// A key for a worker.
#[derive(Clone, Debug)]
pub struct Item<K> {
    /// The key.
    pub key: K,
    /// Why.
    pub causes: Causes,
    /// With which priority it waited.
    pub priority: Priority,
    /// How many attempts failed in a row.
    pub failures: u32,
    /// How long it was ready.
    pub waited: Duration,
}

/// The answer of [`QueueState::next`].
#[derive(Debug)]
pub enum Next<K> {
    /// This key.
    Item(Item<K>),
    /// None before this time, unless something is added.
    At(Duration),
    /// None, until something is added.
    Idle,
    /// None any more.
    ShutDown,
}

/// See the [module](super)'s rules.
#[derive(Debug)]
pub struct QueueState<K> {
    config: QueueConfig,
    entries: HashMap<K, Entry>,
    by_priority: BTreeMap<(Reverse<Priority>, u64), K>,
    by_age: BTreeMap<u64, K>,
    timers: BTreeMap<(Duration, u64), K>,
    depth: BTreeMap<Priority, usize>,
    seq: u64,
    turns: u64,
    shut_down: bool,
}

impl<K> QueueState<K> {
    /// An empty queue.
    pub fn new(config: QueueConfig) -> Self {
        Self {
            config,
            entries: HashMap::new(),
            by_priority: BTreeMap::new(),
            by_age: BTreeMap::new(),
            timers: BTreeMap::new(),
            depth: BTreeMap::new(),
            seq: 0,
            turns: 0,
            shut_down: false,
        }
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// True when no key is ready.
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Ready keys by priority; priorities that were seen once stay listed.
    pub fn depth(&self) -> &BTreeMap<Priority, usize> {
        &self.depth
    }

    /// How long all workers, and the slowest of them, have been at their keys.
    pub fn running(&self, now: Duration) -> (Duration, Duration) {
        let times = self.entries.values().filter_map(|entry| match entry.phase {
            Phase::Running { since, .. } => Some(now.saturating_sub(since)),
            Phase::Idle | Phase::Ready { .. } => None,
        });
        times.fold((Duration::ZERO, Duration::ZERO), |(sum, longest), time| (sum + time, longest.max(time)))
    }

    /// True when a worker would find something, now.
    pub fn has_ready(&self) -> bool {
        !self.shut_down && !self.is_empty()
    }

    /// Drops everything that waits.
    pub fn shut_down(&mut self) {
        self.shut_down = true;
        self.by_priority.clear();
        self.by_age.clear();
        self.timers.clear();
        self.entries.clear();
        self.depth.values_mut().for_each(|depth| *depth = 0);
    }
}

impl<K: Clone + Eq + Hash> QueueState<K> {
    /// Something happened to `key`.
    pub fn add(&mut self, key: &K, priority: Priority, cause: Cause, now: Duration) {
        if self.shut_down {
            return;
        }
        self.promote(now);
        let entry = self.entries.entry(key.clone()).or_insert_with(Entry::new);
        entry.causes.push(cause);
        self.trigger(key, priority, now);
    }

    /// What held `key` back is over, or its own writes show. A key that failed is tried when its backoff is over:
    /// what an attempt itself brings about must not shorten it.
    pub fn release(&mut self, key: &K, cause: Cause, now: Duration) {
        self.promote(now);
        let waits = self.entries.get(key).is_some_and(|entry| {
            entry.phase == Phase::Idle && entry.failures > 0 && !entry.held && entry.due().is_some()
        });
        if !waits {
            self.add(key, NORMAL_PRIORITY, cause, now);
        }
    }

    /// Looks at `key` at `time`; the earliest of several such times counts.
    pub fn add_at(&mut self, key: &K, time: Duration, cause: Cause, now: Duration) {
        if time <= now {
            return self.add(key, NORMAL_PRIORITY, cause, now);
        }
        if self.shut_down {
            return;
        }
        self.promote(now);
        let entry = self.entries.entry(key.clone()).or_insert_with(Entry::new);
        entry.causes.push(cause);
        entry.requested = Some(entry.requested.map_or(time, |already| already.min(time)));
        self.set_timer(key);
    }

    /// Counts a failure of a key that no worker has, and tries it again after its backoff.
    pub fn add_rate_limited(&mut self, key: &K, now: Duration) {
        if self.shut_down {
            return;
        }
        self.promote(now);
        let entry = self.entries.entry(key.clone()).or_insert_with(Entry::new);
        if !matches!(entry.phase, Phase::Running { .. }) {
            entry.fail(&self.config, false, now);
            self.set_timer(key);
        }
    }

    /// Forgets failures of `key`, and the retry they led to.
    pub fn forget(&mut self, key: &K, now: Duration) {
        self.promote(now);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.failures = 0;
            entry.early_from = Duration::ZERO;
            // A key that was to be retried is still looked at, at once instead of later.
            let retry = entry.retry.take().is_some();
            let priority = entry.priority;
            if retry {
                self.trigger(key, priority, now);
            }
            self.set_timer(key);
        }
    }

    /// The key that is to be worked on now.
    pub fn next(&mut self, now: Duration) -> Next<K> {
        if self.shut_down {
            return Next::ShutDown;
        }
        self.promote(now);
        let oldest = self.turns.is_multiple_of(AGING_SHARE);
        let key = if oldest { self.by_age.values().next() } else { self.by_priority.values().next() };
        let Some(key) = key.cloned() else {
            return self.timers.keys().next().map_or(Next::Idle, |&(time, _)| Next::At(time));
        };
        self.turns += 1;
        let (priority, since) = self.unready(&key).unwrap_or((NORMAL_PRIORITY, now));
        let entry = self.entries.entry(key.clone()).or_insert_with(Entry::new);
        let early = entry.failures > 0 && entry.retry.is_some_and(|retry| now < retry);
        if !early {
            entry.retry = None;
        }
        entry.planned = None;
        entry.priority = priority;
        entry.held = false;
        entry.phase = Phase::Running { since: now, early, again: None };
        let (causes, failures) = (std::mem::take(&mut entry.causes), entry.failures);
        self.set_timer(&key);
        Next::Item(Item { key, causes, priority, failures, waited: now.saturating_sub(since) })
    }

    /// The worker could not begin: `item` waits, with its causes, until its key is [released](Self::release) or
    /// added. Whoever holds it back must do so.
    pub fn hold(&mut self, item: Item<K>, now: Duration) {
        self.promote(now);
        let Some(entry) = self.entries.get_mut(&item.key) else { return };
        let Phase::Running { again, .. } = entry.phase else { return };
        entry.phase = Phase::Idle;
        entry.held = true;
        let since = std::mem::replace(&mut entry.causes, item.causes);
        entry.causes.extend(since);
        if let Some(priority) = again {
            // It may begin by now, and that is why it was added.
            self.make_ready(&item.key, priority, now);
        }
        self.set_timer(&item.key);
    }

    /// The worker of `key` is done. Says how long it took; `None` when no worker had the key.
    pub fn finish(&mut self, key: &K, finish: Finish, now: Duration) -> Option<Duration> {
        self.promote(now);
        let entry = self.entries.get_mut(key)?;
        let Phase::Running { since, early, again } = entry.phase else { return None };
        entry.phase = Phase::Idle;
        let mut again = again;
        match finish {
            Finish::Success { again_after } => {
                entry.failures = 0;
                entry.retry = None;
                entry.planned = again_after.map(|delay| now.saturating_add(delay));
                entry.early_from = now.saturating_add(self.config.pace);
                entry.kept = (!self.config.pace.is_zero()).then_some(entry.early_from);
            }
            Finish::Terminal => {
                entry.failures = 0;
                entry.retry = None;
                entry.early_from = Duration::ZERO;
            }
            Finish::Again => again = again.max(Some(entry.priority)),
            Finish::Later(delay) => {
                let at = now.saturating_add(delay);
                entry.planned = Some(entry.planned.map_or(at, |already| already.min(at)));
            }
            Finish::Retry | Finish::Failure => entry.fail(&self.config, early, now),
        }
        if let Some(priority) = again {
            self.trigger(key, priority, now);
        }
        self.set_timer(key);
        self.forget_if_idle(key);
        Some(now.saturating_sub(since))
    }

    /// Makes `key` ready as soon as it may be.
    fn trigger(&mut self, key: &K, priority: Priority, now: Duration) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match entry.phase {
            Phase::Idle if now < entry.early_from => {
                entry.priority = entry.priority.max(priority);
                let from = entry.early_from;
                entry.requested = Some(entry.requested.map_or(from, |already| already.min(from)));
                self.set_timer(key);
            }
            Phase::Idle => self.make_ready(key, priority, now),
            Phase::Ready { seq, priority: held, since } => {
                if priority > held {
                    // Lifted with its age: it has waited longer than those that came since.
                    self.unready(key);
                    self.insert_ready(key, seq, priority, since);
                }
            }
            Phase::Running { since, early, again } => {
                let again = again.max(Some(priority));
                entry.phase = Phase::Running { since, early, again };
            }
        }
    }

    /// Everything whose time has come becomes ready, in the order of those times.
    fn promote(&mut self, now: Duration) {
        while let Some((&(time, seq), _)) = self.timers.first_key_value() {
            if time > now {
                break;
            }
            let Some(key) = self.timers.remove(&(time, seq)) else { break };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.timer = None;
            entry.kept.take_if(|kept| *kept <= now);
            match entry.come_due(now) {
                None => {}
                // Its own deadline has come: nothing holds it back.
                Some(priority) if entry.phase == Phase::Idle => self.make_ready(&key, priority, time),
                Some(priority) => self.trigger(&key, priority, now),
            }
            self.set_timer(&key);
            self.forget_if_idle(&key);
        }
    }

    fn forget_if_idle(&mut self, key: &K) {
        if self.entries.get(key).is_some_and(Entry::is_forgettable) {
            self.entries.remove(key);
        }
    }

    fn make_ready(&mut self, key: &K, priority: Priority, since: Duration) {
        self.seq += 1;
        self.insert_ready(key, self.seq, priority, since);
    }

    fn insert_ready(&mut self, key: &K, seq: u64, priority: Priority, since: Duration) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.phase = Phase::Ready { seq, priority, since };
        self.by_priority.insert((Reverse(priority), seq), key.clone());
        self.by_age.insert(seq, key.clone());
        *self.depth.entry(priority).or_default() += 1;
    }

    fn unready(&mut self, key: &K) -> Option<(Priority, Duration)> {
        let entry = self.entries.get_mut(key)?;
        let Phase::Ready { seq, priority, since } = entry.phase else { return None };
        entry.phase = Phase::Idle;
        self.by_priority.remove(&(Reverse(priority), seq));
        self.by_age.remove(&seq);
        if let Some(depth) = self.depth.get_mut(&priority) {
            *depth = depth.saturating_sub(1);
        }
        Some((priority, since))
    }

    /// One timer per key, at its earliest time.
    fn set_timer(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let due = entry.due();
        if entry.timer.map(|(time, _)| time) == due {
            return;
        }
        if let Some(old) = entry.timer.take() {
            self.timers.remove(&old);
        }
        if let Some(due) = due {
            self.seq += 1;
            entry.timer = Some((due, self.seq));
            self.timers.insert((due, self.seq), key.clone());
        }
    }
}
