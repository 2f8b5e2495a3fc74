//! `spec.replicas` changed: the ReplicaSets grow or shrink in proportion, so that a half-done rollout does not
//! run ahead because of it. Also while `spec.paused`.
//!
//! Whether it changed is read from an annotation on the ReplicaSets. Therefore every path from here rewrites
//! that annotation, also where no size changes: one left stale would make every look a change of scale, and no
//! rollout would ever go on.

use std::{cmp::Reverse, sync::Arc};

use trysail_core::plan::WaitingOn;

use super::{
    DeploymentPlanner,
    annotations::{self, DESIRED_REPLICAS, MAX_REPLICAS},
    edits::Edits,
    fleet::Fleet,
};
use crate::views::{ReplicaSet, Strategy};

const SCALED: &str = "spec.replicas changed";

/// True when some ReplicaSet was sized for another `spec.replicas`.
pub(super) fn is_due(fleet: &Fleet<'_>) -> bool {
    let desired = |set: &Arc<ReplicaSet>| annotations::count(&set.annotations, DESIRED_REPLICAS);
    fleet.active().any(|set| desired(set).is_some_and(|desired| desired != fleet.bounds.replicas))
}

/// Sizes the ReplicaSets for the current `spec.replicas`; answers what growth has to wait for.
pub(super) fn scale<'a>(
    planner: DeploymentPlanner,
    fleet: &Fleet<'a>,
    edits: &mut Edits<'a>,
) -> Option<WaitingOn> {
    if let Some(only) = active_or_latest(fleet) {
        return scale_only(planner, fleet, only, edits);
    }
    if is_saturated(fleet) {
        // An adopted set beside a finished rollout: it is not needed.
        for old in fleet.old.iter().filter(|old| old.replicas > 0) {
            edits.scale(fleet, old, 0, "the current ReplicaSet is complete");
        }
        return None;
    }
    if fleet.deployment.strategy == Strategy::Recreate {
        fleet.active().for_each(|set| edits.note_size(fleet, set));
        return None;
    }
    scale_in_proportion(planner, fleet, edits)
}

/// The only set with pods; with none, the one that pods would go to.
fn active_or_latest<'a>(fleet: &Fleet<'a>) -> Option<&'a Arc<ReplicaSet>> {
    let mut active = fleet.active();
    match (active.next(), active.next()) {
        (None, _) => fleet.new.or_else(|| fleet.old.last().copied()),
        (only, None) => only,
        _ => None,
    }
}

fn scale_only<'a>(
    planner: DeploymentPlanner,
    fleet: &Fleet<'a>,
    only: &'a Arc<ReplicaSet>,
    edits: &mut Edits<'a>,
) -> Option<WaitingOn> {
    let wanted = fleet.bounds.replicas;
    if only.replicas >= wanted {
        if only.replicas > wanted {
            edits.scale(fleet, only, wanted, SCALED);
        } else {
            edits.note_size(fleet, only);
        }
        return None;
    }
    if let Some(unsettled) = fleet.unsettled() {
        return Some(observation(planner, unsettled));
    }
    // Pods of other sets that are still on their way out count until they are.
    let own = i64::from(only.replicas.max(only.status.replicas.unwrap_or(0)));
    let room = fleet.bounds.max_total() - (fleet.footprint() - own);
    let size = room.clamp(i64::from(only.replicas), i64::from(wanted)) as i32;
    if size > only.replicas {
        edits.scale(fleet, only, size, SCALED);
    }
    let busy = fleet.all().find(|set| is_shrinking(set)).filter(|_| size < wanted);
    busy.map(|set| observation(planner, set))
}

/// The current set has all its pods, and both it and the Deployment agree on how many those are.
fn is_saturated(fleet: &Fleet<'_>) -> bool {
    let wanted = fleet.bounds.replicas;
    fleet.new.is_some_and(|new| {
        new.replicas == wanted
            && annotations::count(&new.annotations, DESIRED_REPLICAS) == Some(wanted)
            && new.status.available_replicas.unwrap_or(0) == wanted
    })
}

fn scale_in_proportion<'a>(
    planner: DeploymentPlanner,
    fleet: &Fleet<'a>,
    edits: &mut Edits<'a>,
) -> Option<WaitingOn> {
    let allowed = if fleet.bounds.replicas == 0 { 0 } else { fleet.bounds.max_total() };
    let change = allowed - fleet.size();
    // Paused, with a smaller surge than before: nobody asked for fewer pods. The rollout will see to it.
    if change < 0 && !is_due(fleet) {
        return None;
    }
    if change > 0 {
        let busy = fleet.unsettled().or_else(|| fleet.all().find(|set| is_shrinking(set)));
        if let Some(busy) = busy {
            return Some(observation(planner, busy));
        }
    }
    let mut sets: Vec<_> = fleet.active().collect();
    sort(&mut sets, change);
    let mut left = change;
    let mut sizes = Vec::with_capacity(sets.len());
    for set in &sets {
        let share = share(fleet, set, allowed);
        let step = if change > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        left -= step;
        sizes.push(i64::from(set.replicas) + step);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + left).max(0);
    }
    for (set, size) in sets.into_iter().zip(sizes) {
        let size = size.clamp(0, i64::from(i32::MAX)) as i32;
        edits.scale(fleet, set, size, SCALED);
    }
    None
}

/// Large sets first. Among equals, newer ones grow first and older ones shrink first.
fn sort(sets: &mut [&Arc<ReplicaSet>], change: i64) {
    if change > 0 {
        sets.sort_by_key(|set| Reverse((set.replicas, set.meta.created, set.meta.key.name.clone())));
    } else {
        sets.sort_by_key(|set| (Reverse(set.replicas), set.meta.created, set.meta.key.name.clone()));
    }
}

/// By how much a set would change if all kept their proportions, rounded half away from zero.
fn share(fleet: &Fleet<'_>, set: &ReplicaSet, allowed: i64) -> i64 {
    let size = i128::from(set.replicas);
    let before = annotations::count(&set.annotations, MAX_REPLICAS)
        .filter(|before| *before > 0)
        .or(fleet.deployment.status.replicas)
        .unwrap_or(0);
    // Three sizes multiplied: more than 64 bits hold.
    let share = match i128::from(before) {
        _ if allowed == 0 => -size,
        0 => 0,
        before => (2 * size * i128::from(allowed) + before) / (2 * before) - size,
    };
    share.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// True for a set that still has more pods than it should.
fn is_shrinking(set: &ReplicaSet) -> bool {
    set.status.replicas.unwrap_or(0) > set.replicas
}

pub(super) fn observation(planner: DeploymentPlanner, set: &ReplicaSet) -> WaitingOn {
    WaitingOn::Observation { resource: planner.sets, key: set.meta.key.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::fixture::rollout;

    /// maxSurge is 3 here and in the fixture's annotations.
    fn step(replicas: i32, sets: &[&str]) -> String {
        let strategy = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
        rollout(json!({"replicas": replicas, "strategy": strategy}), sets)
    }

    #[test]
    fn sizes_keep_their_proportions() {
        assert_eq!(step(30, &["v1 8/8/8@10", "v2 5/5/0@10"]), "v1 20, v2 13");
        assert_eq!(step(5, &["v1 20/20/20@30", "v2 13/13/0@30"]), "v1 5, v2 3");
        assert_eq!(step(0, &["v1 8/8/8@10", "v2 5/5/0@10"]), "v1 0, v2 0");
        assert_eq!(
            step(11, &["v1 8/8/8@10", "v2 5/5/0@10"]),
            "v1 9",
            "what rounding leaves goes to the largest"
        );
    }

    #[test]
    fn growth_waits_for_pods_that_are_on_their_way_out() {
        assert_eq!(step(30, &["v1 8/10/10@10", "v2 5/5/0@10"]), "");
        assert_eq!(step(30, &["v1 8/8/8@10!", "v2 5/5/0@10"]), "");
        assert_eq!(step(5, &["v1 8/10/10@10", "v2 5/5/0@10!"]), "v1 5, v2 3");
    }

    #[test]
    fn the_only_one_gets_all() {
        assert_eq!(step(7, &["v2 4/4/4@4"]), "v2 7");
        assert_eq!(step(2, &["v2 4/4/4@4"]), "v2 2");
        assert_eq!(step(4, &["v1 0/0/0", "v2 0/0/0@0"]), "v2 4");
    }

    #[test]
    fn beside_a_complete_one_the_others_go() {
        assert_eq!(step(10, &["v1 4/4/4@7", "v2 10/10/10"]), "v1 0");
    }

    /// Two ReplicaSets noted for another size under Recreate: upstream would look at nothing else any more.
    #[test]
    fn a_stale_note_never_stops_a_rollout() {
        let recreate = json!({"replicas": 4, "strategy": {"type": "Recreate"}});
        assert_eq!(rollout(recreate, &["v1 2/2/2@9", "v2 4/4/0@9"]), "v1 0");
        assert_eq!(step(4, &["v1 4/4/4@9"]), "new 3");
    }

    /// Paused, with a smaller surge than before: fewer pods would be allowed, but nobody asked for fewer, and those
    /// that go would be available ones.
    #[test]
    fn a_smaller_surge_alone_takes_no_pods() {
        let strategy = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 2}});
        let spec = json!({"replicas": 10, "paused": true, "strategy": strategy});
        assert_eq!(rollout(spec, &["v1 8/8/8@10", "v2 5/5/0@10"]), "");
    }

    /// Pods that somebody keeps from being deleted take their room, not all of it.
    #[test]
    fn the_only_one_grows_as_far_as_there_is_room() {
        let strategy = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
        let spec = json!({"replicas": 10, "strategy": strategy});
        assert_eq!(rollout(spec, &["v1 0/2/2@5", "v2 5/5/5@5"]), "v2 8");
    }

    #[test]
    fn the_largest_numbers_are_sizes_too() {
        let sets = ["v1 2147483647/0/0@2147483644", "v2 536870911/0/0@2147483644"];
        assert_eq!(rollout(json!({"replicas": 2_000_000_000}), &sets), "v1 1963129089");
    }
}
