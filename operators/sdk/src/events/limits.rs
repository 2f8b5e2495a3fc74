//! A map that forgets what was not used for longest, and a token bucket. Pure: the time is an argument.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// At most so many entries; when full, an eighth is forgotten at once, so that finding the oldest costs little.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    entries: HashMap<K, (V, u64)>,
    capacity: usize,
    uses: u64,
}

impl<K: Eq + Hash, V> Bounded<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity, uses: 0 }
    }

    pub(super) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.forget_some();
        }
        self.uses += 1;
        let uses = self.uses;
        let (value, used) = self.entries.entry(key).or_insert_with(|| (make(), uses));
        *used = uses;
        value
    }

    fn forget_some(&mut self) {
        let mut used: Vec<u64> = self.entries.values().map(|(_, used)| *used).collect();
        let (_, &mut threshold, _) = used.select_nth_unstable(self.capacity / 8);
        self.entries.retain(|_, (_, used)| *used > threshold);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// So many at once, then one per period.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    tokens: f64,
    filled: Duration,
}

impl TokenBucket {
    pub(super) fn full(burst: u32, now: Duration) -> Self {
        Self { tokens: f64::from(burst), filled: now }
    }

    pub(super) fn take(&mut self, burst: u32, period: Duration, now: Duration) -> bool {
        let gained = now.saturating_sub(self.filled).div_duration_f64(period);
        self.tokens = (self.tokens + gained).min(f64::from(burst));
        self.filled = now;
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_are_forgotten() {
        let mut map = Bounded::new(16);
        for key in 0..1000 {
            map.get_or_insert_with("kept".to_owned(), || 0);
            map.get_or_insert_with(key.to_string(), || key);
            assert!(map.len() <= 16);
        }
        assert_eq!(*map.get_or_insert_with("999".to_owned(), || -1), 999);
        assert_eq!(*map.get_or_insert_with("kept".to_owned(), || -1), 0);
        assert_eq!(*map.get_or_insert_with("0".to_owned(), || -1), -1);
    }
}
