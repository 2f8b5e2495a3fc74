//! What the log adds up to.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::IpAddr;

use super::record::{Event, Key, Phase, Record};

/// How many freed addresses are remembered. Beyond that the longest-freed counts as never used, which is the same
/// thing for a pool of that size; and a reader parses no more than this.
const MAX_QUARANTINE: usize = 1024;

/// All attachments of the node, and the order in which addresses were freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    records: BTreeMap<Key, Record>,
    quarantine: VecDeque<IpAddr>,
}

impl State {
    /// The state after these events.
    pub fn replay(events: impl IntoIterator<Item = Event>) -> Self {
        let mut state = Self::default();
        events.into_iter().for_each(|event| state.apply(event));
        state
    }

    /// Takes one event in. Total: an event about an attachment that is not known changes nothing.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Record(record) => {
                let ips = record.ips.clone();
                self.quarantine.retain(|ip| !(record.owns_ips && ips.contains(ip)));
                if let Some(old) = self.records.insert(record.key.clone(), *record) {
                    self.free(&old, &ips);
                }
            }
            Event::Commit(key) => {
                if let Some(record) = self.records.get_mut(&key) {
                    record.phase = Phase::Committed;
                }
            }
            Event::Release(key) => {
                if let Some(old) = self.records.remove(&key) {
                    self.free(&old, &[]);
                }
            }
            Event::Quarantine(ips) => self.quarantine = ips.into(),
        }
    }

    fn free(&mut self, old: &Record, kept: &[IpAddr]) {
        if !old.owns_ips {
            return;
        }
        let freed = old.ips.iter().filter(|ip| !kept.contains(ip));
        self.quarantine.extend(freed);
        let surplus = self.quarantine.len().saturating_sub(MAX_QUARANTINE);
        self.quarantine.drain(..surplus);
    }

    /// The shortest log that leads here.
    pub fn to_events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.quarantine.is_empty() {
            events.push(Event::Quarantine(self.quarantine.iter().copied().collect()));
        }
        events.extend(self.records.values().map(|record| Event::Record(Box::new(record.clone()))));
        events
    }

    /// One attachment.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// All attachments.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Addresses that this store gave out.
    pub fn used(&self) -> HashSet<IpAddr> {
        self.records
            .values()
            .filter(|record| record.owns_ips)
            .flat_map(|record| record.ips.iter().copied())
            .collect()
    }

    /// Freed addresses, longest-freed first.
    pub fn quarantine(&self) -> impl Iterator<Item = IpAddr> {
        self.quarantine.iter().copied()
    }
}
