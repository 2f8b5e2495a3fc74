//! From what the kernel has to what it should have, in an order in which nothing is lost on the way.
//!
//! What a route needs is there before the route is, and goes after it. A route to the same range through another path
//! replaces the old one in one step; a neighbour or forwarding entry is replaced likewise.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::desired::Entry;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add, or put in place of what has the same key.
    Set(Entry),
    /// Remove.
    Remove(Entry),
}

/// What of an entry can exist only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Neighbour(IpAddr),
    Forwarding([u8; 6]),
    Route(IpNet),
}

fn key(entry: &Entry) -> Key {
    match entry {
        Entry::Neighbour(neighbour) => Key::Neighbour(neighbour.ip),
        Entry::Forwarding(forwarding) => Key::Forwarding(forwarding.mac),
        Entry::Route(pods, _) => Key::Route(*pods),
    }
}

/// The steps. `actual` holds only what is ours: whoever reads the kernel leaves out what others made.
///
/// A forwarding entry is the exception to replacing: the kernel appends a second destination to a hardware address, so
/// the old one is removed first.
pub fn delta(actual: &BTreeSet<Entry>, desired: &BTreeSet<Entry>) -> Vec<Change> {
    let wanted: BTreeSet<Key> = desired.iter().map(key).collect();
    let missing = desired.difference(actual);
    let surplus: Vec<&Entry> = actual.difference(desired).collect();
    let moved =
        surplus.iter().filter(|entry| matches!(entry, Entry::Forwarding(_)) && wanted.contains(&key(entry)));
    let gone = surplus.iter().filter(|entry| !wanted.contains(&key(entry)));
    let mut changes: Vec<Change> = moved.map(|entry| Change::Remove((*entry).clone())).collect();
    // Entries are ordered: neighbours, forwarding entries, routes.
    changes.extend(missing.cloned().map(Change::Set));
    changes.extend(gone.rev().map(|entry| Change::Remove((*entry).clone())));
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::overlay::{Forwarding, Neighbour, Path};

    fn entry() -> impl Strategy<Value = Entry> {
        let ip = (0_u8..6).prop_map(|n| IpAddr::from([10, 0, n, 0]));
        let mac = (0_u8..4).prop_map(|n| [2, 0, 0, 0, 0, n]);
        let pods = (0_u8..6).prop_map(|n| IpNet::new(IpAddr::from([10, 0, n, 0]), 24).unwrap());
        prop_oneof![
            (ip.clone(), mac.clone()).prop_map(|(ip, mac)| Entry::Neighbour(Neighbour { ip, mac })),
            (mac, ip.clone()).prop_map(|(mac, to)| Entry::Forwarding(Forwarding { mac, to })),
            (pods.clone(), ip.clone())
                .prop_map(|(pods, via)| Entry::Route(pods, Path::Tunnel { via, link: "trysail.1".into() })),
            (pods, ip).prop_map(|(pods, via)| Entry::Route(pods, Path::Direct { via, link: "eth0".into() })),
        ]
    }

    fn entries() -> impl Strategy<Value = BTreeSet<Entry>> {
        proptest::collection::vec(entry(), 0..20).prop_map(|all| {
            let mut keys = BTreeSet::new();
            all.into_iter().filter(|entry| keys.insert(key(entry))).collect()
        })
    }

    /// The kernel's rules: setting replaces what has the same key, but for forwarding entries, which pile up.
    fn apply(state: &mut BTreeSet<Entry>, change: &Change) {
        match change {
            Change::Remove(entry) => assert!(state.remove(entry), "removed what was not there: {entry:?}"),
            Change::Set(entry) => {
                if !matches!(entry, Entry::Forwarding(_)) {
                    state.retain(|other| key(other) != key(entry));
                }
                state.insert(entry.clone());
            }
        }
    }

    proptest! {
        /// It arrives, has then nothing left to do, and no range that is wanted before and after is ever without a
        /// route.
        #[test]
        fn it_arrives_without_a_gap(actual in entries(), desired in entries()) {
            let range = |entry: &Entry| match entry {
                Entry::Route(pods, _) => Some(*pods),
                _ => None,
            };
            let before: BTreeSet<IpNet> = actual.iter().filter_map(range).collect();
            let kept: Vec<IpNet> = desired.iter().filter_map(range).filter(|pods| before.contains(pods)).collect();
            let mut state = actual.clone();
            for change in delta(&actual, &desired) {
                apply(&mut state, &change);
                let routed: BTreeSet<IpNet> = state.iter().filter_map(range).collect();
                prop_assert!(kept.iter().all(|pods| routed.contains(pods)), "a gap after {:?}", change);
            }
            prop_assert_eq!(&state, &desired);
            prop_assert!(delta(&desired, &desired).is_empty());
        }

        /// Killed after any step, it goes on from there.
        #[test]
        fn any_prefix_can_be_continued(actual in entries(), desired in entries(), steps in 0_usize..40) {
            let mut state = actual.clone();
            for change in delta(&actual, &desired).iter().take(steps) {
                apply(&mut state, change);
            }
            for change in delta(&state.clone(), &desired) {
                apply(&mut state, &change);
            }
            prop_assert_eq!(state, desired);
        }
    }
}
