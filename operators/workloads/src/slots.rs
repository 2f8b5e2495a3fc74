//! Which names new pods get: the free slots after the furthest one ever seen.
//!
//! The furthest slot counts what was *seen*, not what was asked for. So a create repeated because its reply was
//! lost draws the same name and meets `AlreadyExists`, while a name whose pod was seen is not drawn again until
//! the ring of slots has gone round.

use std::sync::Arc;

use trysail_core::{
    Meta,
    names::{SLOTS, child_name, slot_of},
    pod::Pod,
};

/// The furthest slot on the ring among `remembered` and the children at hand.
pub(crate) fn furthest(owner: &Meta, remembered: Option<u32>, children: &[Arc<Pod>]) -> Option<u32> {
    let slots = children.iter().filter_map(|pod| slot_of(&pod.meta.key.name, &owner.key.name, &owner.uid));
    match remembered {
        None => slots.max(),
        // Half the ring lies ahead, the other half behind: adopted pods have arbitrary slots.
        Some(from) => slots
            .map(|slot| (slot + SLOTS - from) % SLOTS)
            .filter(|ahead| *ahead < SLOTS / 2)
            .max()
            .map_or(Some(from), |ahead| Some((from + ahead) % SLOTS)),
    }
}

/// The next `count` slots after `furthest` whose names nobody has taken.
pub(crate) fn free(
    owner: &Meta,
    furthest: Option<u32>,
    count: usize,
    is_taken: impl Fn(&str) -> bool,
) -> Vec<u32> {
    let start = furthest.map_or(0, |slot| (slot + 1) % SLOTS);
    (0..SLOTS)
        .map(|offset| (start + offset) % SLOTS)
        .filter(|slot| !is_taken(&child_name(&owner.key.name, &owner.uid, *slot)))
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Meta {
        serde_json::from_str(r#"{"name":"web","namespace":"shop","uid":"u"}"#).unwrap()
    }

    fn pods(slots: &[u32]) -> Vec<Arc<Pod>> {
        let name = |slot: &u32| child_name("web", &owner().uid, *slot);
        let pod = |name: String| serde_json::from_value(serde_json::json!({"metadata": {"name": name}}));
        slots.iter().map(|slot| Arc::new(pod(name(slot)).unwrap())).collect()
    }

    #[test]
    fn a_deleted_pods_name_is_not_drawn_again_at_once() {
        let seen = furthest(&owner(), None, &pods(&[0, 2]));
        assert_eq!(seen, Some(2));
        let later = furthest(&owner(), seen, &pods(&[0]));
        assert_eq!(free(&owner(), later, 2, |_| false), [3, 4]);
    }

    #[test]
    fn a_repeated_create_draws_the_same_name() {
        let seen = furthest(&owner(), None, &[]);
        assert_eq!(free(&owner(), seen, 2, |_| false), free(&owner(), seen, 2, |_| false));
    }

    #[test]
    fn the_ring_goes_round_past_taken_names() {
        let seen = furthest(&owner(), Some(SLOTS - 2), &pods(&[0, SLOTS - 1]));
        assert_eq!(seen, Some(0), "0 lies ahead of the last slot");
        let taken = child_name("web", &owner().uid, 0);
        assert_eq!(free(&owner(), Some(SLOTS - 2), 2, |name| name == taken), [SLOTS - 1, 1]);
    }
}
