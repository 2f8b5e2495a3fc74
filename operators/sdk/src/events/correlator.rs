//! Which events are written, which are counted, combined or dropped. Pure: the time is an argument.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use trysail_core::{Timestamp, intern::fnv64};

use super::{
    Happened, Regarding,
    limits::{Bounded, TokenBucket},
};

/// Entries per cache: client-go's number.
const CACHE: usize = 4096;
/// More different messages than this for one reason are combined …
const MAX_SIMILAR: usize = 10;
/// … while each comes within this time of the one before.
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
/// An object may talk so often at once …
const SPAM_BURST: u32 = 25;
/// … and then once per this time.
const SPAM_PERIOD: Duration = Duration::from_secs(300);
/// The API server refuses longer ones.
const MAX_MESSAGE: usize = 1024;
/// Leaves room for the suffix within the 253 characters of a name.
const MAX_NAME_PREFIX: usize = 230;

const COMBINED: &str = "(combined from similar events): ";

/// What is to be written.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) event: Happened,
    /// Of the Event object.
    pub(super) name: String,
    pub(super) count: u32,
    pub(super) first: Timestamp,
    /// The Event object was written before: only its count moves.
    pub(super) seen: bool,
}

type Source = (Arc<str>, Regarding);
/// Everything but the message.
type Similar = (Source, bool, &'static str);

#[derive(Debug, Default)]
struct Messages {
    different: BTreeSet<u64>,
    last: Duration,
}

#[derive(Debug)]
struct Written {
    name: String,
    count: u32,
    first: Timestamp,
}

#[derive(Debug)]
pub(super) struct Correlator {
    sources: Bounded<Source, TokenBucket>,
    similar: Bounded<Similar, Messages>,
    written: Bounded<(Similar, Option<u64>), Written>,
    last_name: i128,
}

impl Default for Correlator {
    fn default() -> Self {
        Self {
            sources: Bounded::new(CACHE),
            similar: Bounded::new(CACHE),
            written: Bounded::new(CACHE),
            last_name: 0,
        }
    }
}

impl Correlator {
    /// `None` when the object has talked too much.
    pub(super) fn correlate(&mut self, mut event: Happened, now: Duration) -> Option<Write> {
        let source = (Arc::clone(&event.component), event.regarding.clone());
        let similar = (source.clone(), event.note.warning, event.note.reason);
        let combined = self.is_one_of_many(&similar, &event.note.message, now);
        let bucket = self.sources.get_or_insert_with(source, || TokenBucket::full(SPAM_BURST, now));
        if !bucket.take(SPAM_BURST, SPAM_PERIOD, now) {
            return None;
        }
        let message = (!combined).then(|| fnv64(&[event.note.message.as_bytes()]));
        if combined {
            event.note.message.insert_str(0, COMBINED);
        }
        truncate(&mut event.note.message, MAX_MESSAGE);
        let (at, last_name) = (event.at, &mut self.last_name);
        let object = event.regarding.key.name.clone();
        let written = self.written.get_or_insert_with((similar, message), || Written {
            name: event_name(&object, at, last_name),
            count: 0,
            first: at,
        });
        written.count = written.count.saturating_add(1);
        let Written { ref name, count, first } = *written;
        Some(Write { event, name: name.clone(), count, first, seen: count > 1 })
    }

    fn is_one_of_many(&mut self, similar: &Similar, message: &str, now: Duration) -> bool {
        let messages = self.similar.get_or_insert_with(similar.clone(), Messages::default);
        if now.saturating_sub(messages.last) > SIMILAR_WITHIN {
            messages.different.clear();
        }
        messages.last = now;
        if messages.different.len() > MAX_SIMILAR {
            return true;
        }
        messages.different.insert(fnv64(&[message.as_bytes()]));
        messages.different.len() > MAX_SIMILAR
    }
}

/// `OBJECT.NANOSECONDS`, never the same twice, even when the clock stands still or steps back by a little.
fn event_name(object: &str, at: Timestamp, last: &mut i128) -> String {
    let mut nanos = at.as_nanosecond();
    if nanos <= *last && *last - nanos < 1_000_000_000 {
        nanos = *last + 1;
    }
    *last = nanos;
    let mut prefix = object.to_owned();
    truncate(&mut prefix, MAX_NAME_PREFIX);
    format!("{prefix}.{nanos:x}")
}

fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let mut at = max;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.truncate(at);
    }
}

#[cfg(test)]
mod tests {
    use trysail_core::{Key, Uid, plan::EventNote, resource::PODS};

    use super::*;

    fn happened(name: &str, message: &str) -> Happened {
        Happened {
            component: "sail-controller".into(),
            regarding: Regarding { resource: PODS, key: Key::new("shop", name), uid: Uid::from(name) },
            note: EventNote::normal("Hoisted", message),
            at: Timestamp::from_second(1_000_000).unwrap(),
        }
    }

    #[test]
    fn equal_events_are_counted_in_one_object() {
        let mut correlator = Correlator::default();
        let first = correlator.correlate(happened("a", "m"), Duration::ZERO).unwrap();
        let second = correlator.correlate(happened("a", "m"), Duration::from_secs(1)).unwrap();
        let other = correlator.correlate(happened("b", "m"), Duration::from_secs(1)).unwrap();
        assert_eq!((first.count, first.seen), (1, false));
        assert_eq!((second.count, second.seen, &second.name), (2, true, &first.name));
        assert_ne!(other.name.rsplit_once('.').unwrap().1, first.name.rsplit_once('.').unwrap().1);
    }

    #[test]
    fn more_than_ten_similar_ones_are_combined_until_ten_quiet_minutes_have_passed() {
        let mut correlator = Correlator::default();
        let mut names = BTreeSet::new();
        for n in 0..20 {
            let write = correlator.correlate(happened("a", &n.to_string()), Duration::from_secs(n)).unwrap();
            assert_eq!(write.event.note.message.starts_with(COMBINED), n >= 10, "{n}");
            names.insert(write.name);
        }
        assert_eq!(names.len(), 11);
        let later = Duration::from_secs(20 + 3600);
        let write = correlator.correlate(happened("a", "again"), later).unwrap();
        assert_eq!(write.event.note.message, "again");
    }

    #[test]
    fn an_object_that_talks_too_much_is_silenced_and_others_are_not() {
        let mut correlator = Correlator::default();
        let mut talk = |name: &str, second| {
            correlator.correlate(happened(name, "m"), Duration::from_secs(second)).is_some()
        };
        assert_eq!((0..100).filter(|_| talk("a", 0)).count(), 25);
        assert!(talk("b", 0));
        assert!(!talk("a", 299));
        assert!(talk("a", 301));
        assert!(!talk("a", 302));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let mut correlator = Correlator::default();
        let write = correlator.correlate(happened("a", &"ä".repeat(1000)), Duration::ZERO).unwrap();
        assert_eq!(write.event.note.message, "ä".repeat(512));
        let long = "x".repeat(253);
        assert!(correlator.correlate(happened(&long, "m"), Duration::ZERO).unwrap().name.len() <= 253);
    }
}
