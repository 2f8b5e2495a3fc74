//! Which name the next pod of a node gets: that of the attempt after the furthest one ever seen on this node.
//!
//! The name follows from the owner, the node and the attempt. So a create that is carried out late, or repeated
//! because its reply was lost, can only make the one pod that was meant for this node.

use std::{collections::BTreeSet, sync::Arc};

use trysail_core::{
    Meta,
    names::{ATTEMPTS, attempt_of, child_name, scoped_slot, slot_of},
    pod::Pod,
};

/// The attempt after the furthest among `remembered` and the pods at hand.
pub(super) fn next_attempt(owner: &Meta, node: &str, remembered: u32, pods: &[Arc<Pod>]) -> u32 {
    let seen = pods.iter().filter_map(|pod| {
        let slot = slot_of(&pod.meta.key.name, &owner.key.name, &owner.uid)?;
        attempt_of(slot, &owner.uid, node)
    });
    seen.map(|attempt| (attempt + 1) % ATTEMPTS).max().unwrap_or(0).max(remembered)
}

/// The first slot from `attempt` on that no other node draws now and whose name nobody has taken.
pub(super) fn free(
    owner: &Meta,
    node: &str,
    attempt: u32,
    drawn: &mut BTreeSet<u32>,
    is_taken: impl Fn(&str) -> bool,
) -> Option<u32> {
    let slot = (attempt..ATTEMPTS)
        .chain(0..attempt)
        .map(|attempt| scoped_slot(&owner.uid, node, attempt))
        .find(|slot| !drawn.contains(slot) && !is_taken(&child_name(&owner.key.name, &owner.uid, *slot)))?;
    drawn.insert(slot);
    Some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Meta {
        serde_json::from_str(r#"{"name":"agent","namespace":"shop","uid":"u"}"#).unwrap()
    }

    fn name(node: &str, attempt: u32) -> String {
        child_name("agent", &owner().uid, scoped_slot(&owner().uid, node, attempt))
    }

    fn pod(name: &str) -> Arc<Pod> {
        Arc::new(serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap())
    }

    #[test]
    fn a_name_is_not_used_again_at_once() {
        assert_eq!(next_attempt(&owner(), "n", 0, &[]), 0);
        let pods = [pod(&name("n", 3)), pod(&name("n", 1)), pod("somebody")];
        assert_eq!(next_attempt(&owner(), "n", 0, &pods), 4);
        assert_eq!(next_attempt(&owner(), "n", 9, &pods), 9);
    }

    #[test]
    fn a_taken_name_and_one_that_another_node_draws_are_passed_over() {
        let mut drawn = BTreeSet::from([scoped_slot(&owner().uid, "n", 1)]);
        let taken = name("n", 0);
        let slot = free(&owner(), "n", 0, &mut drawn, |name| name == taken);
        assert_eq!(slot, Some(scoped_slot(&owner().uid, "n", 2)));
        assert_eq!(drawn.len(), 2);
    }
}
