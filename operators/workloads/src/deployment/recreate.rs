//! `spec.strategy.type: Recreate`: no new pod before the last old one has ended.
//!
//! Terminating pods still run, so they block; finished ones (evicted, say) never do.

use std::sync::Arc;

use trysail_core::plan::WaitingOn;

use super::{DeploymentPlanner, Snapshot, edits::Edits, fleet::Fleet, scaling::observation};

/// Scales the old ones to nothing; answers what the new one has to wait for.
pub(super) fn drain<'a>(
    planner: DeploymentPlanner,
    snapshot: &Snapshot,
    fleet: &Fleet<'a>,
    edits: &mut Edits<'a>,
) -> Option<WaitingOn> {
    for old in fleet.old.iter().filter(|old| old.replicas > 0) {
        edits.scale(fleet, old, 0, "Recreate: old pods go first");
    }
    // Neither our pods nor the set's status alone tells: either may be ahead of the other.
    let busy = fleet.old.iter().find(|old| {
        let reported = [old.status.replicas, old.status.terminating_replicas];
        old.replicas > 0 || !old.is_observed() || reported.iter().any(|count| count.unwrap_or(0) > 0)
    });
    if let Some(busy) = busy {
        return Some(observation(planner, busy));
    }
    let is_new = |controller: &trysail_core::Uid| fleet.new.is_some_and(|new| new.meta.uid == *controller);
    let running =
        snapshot.pods.iter().filter(|pod| !pod.meta.controller.as_ref().is_some_and(is_new)).count();
    (running > 0).then_some(WaitingOn::Terminating { pods: running as i32 })
}

/// Gives the new one its full size at once.
pub(super) fn fill<'a>(fleet: &Fleet<'a>, edits: &mut Edits<'a>) {
    if let Some(new) = fleet.new.filter(|new: &&Arc<_>| new.replicas != fleet.bounds.replicas) {
        edits.scale(fleet, new, fleet.bounds.replicas, "Recreate: the old pods are gone");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::fixture::rollout;

    #[test]
    fn old_pods_go_before_new_ones_come() {
        let step = |sets: &[&str]| rollout(json!({"replicas": 3, "strategy": {"type": "Recreate"}}), sets);
        assert_eq!(step(&[]), "new 3");
        assert_eq!(step(&["v1 3/3/3"]), "v1 0");
        assert_eq!(step(&["v1 0/1/0"]), "", "one is still there");
        assert_eq!(step(&["v1 0/0/0!"]), "", "nobody knows yet how many there are");
        assert_eq!(step(&["v1 0/0/0"]), "new 3");
        assert_eq!(step(&["v1 0/0/0", "v2 0/0/0"]), "v2 3");
    }
}
