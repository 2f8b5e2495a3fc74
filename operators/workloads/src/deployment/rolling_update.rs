//! `spec.strategy.rollingUpdate`: the new ReplicaSet grows as far as the surge allows, the old ones shrink as
//! far as availability allows. One of the two per look.

use trysail_core::plan::WaitingOn;

use super::{
    DeploymentPlanner,
    edits::Edits,
    fleet::{Fleet, available},
    scaling::observation,
};

/// The size with which a new ReplicaSet starts.
pub(super) fn first_size(fleet: &Fleet<'_>) -> i32 {
    if fleet.unsettled().is_some() {
        return 0;
    }
    room(fleet).clamp(0, i64::from(fleet.bounds.replicas)) as i32
}

/// One step of the rollout; answers what growth has to wait for.
pub(super) fn roll<'a>(
    planner: DeploymentPlanner,
    fleet: &Fleet<'a>,
    edits: &mut Edits<'a>,
) -> Option<WaitingOn> {
    let new = fleet.new?;
    let wanted = fleet.bounds.replicas;
    if new.replicas > wanted {
        edits.scale(fleet, new, wanted, "more pods than spec.replicas");
        return None;
    }
    let missing = i64::from(wanted - new.replicas);
    let mut waiting = None;
    if missing > 0 {
        let grow = room(fleet).min(missing) as i32;
        if grow > 0 && fleet.unsettled().is_none() {
            edits.scale(fleet, new, new.replicas + grow, "within replicas + maxSurge");
            return None;
        }
        let busy = fleet.all().find(|set| set.status.replicas.unwrap_or(0) > set.replicas);
        waiting = fleet.unsettled().or(busy).map(|set| observation(planner, set));
    }
    shrink_old(fleet, edits);
    waiting
}

/// How many more pods there may be.
fn room(fleet: &Fleet<'_>) -> i64 {
    fleet.bounds.max_total() - fleet.footprint()
}

/// Takes from the old sets, oldest first: what is not available anyway, then what availability can spare.
fn shrink_old<'a>(fleet: &Fleet<'a>, edits: &mut Edits<'a>) {
    let unavailable_new = fleet.new.map_or(0, |new| i64::from(new.replicas - available(new)));
    // New pods that are not available yet must not make old ones go: they may never be.
    let mut spare = fleet.size() - fleet.bounds.min_available() - unavailable_new;
    if spare <= 0 {
        return;
    }
    for old in &fleet.old {
        let unhealthy = i64::from(old.replicas - available(old)).min(spare);
        if unhealthy > 0 {
            edits.scale(fleet, old, old.replicas - unhealthy as i32, "old pods that are not available");
            spare -= unhealthy;
        }
    }
    let mut spare = fleet.available() - fleet.bounds.min_available();
    for old in &fleet.old {
        let size = edits.replicas(old);
        let going = i64::from(size).min(spare);
        if going > 0 {
            edits.scale(fleet, old, size - going as i32, "enough others are available");
            spare -= going;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::fixture::rollout;

    fn step(sets: &[&str]) -> String {
        let strategy = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
        rollout(json!({"replicas": 10, "strategy": strategy}), sets)
    }

    #[test]
    fn a_rollout_step_by_step() {
        assert_eq!(step(&[]), "new 10");
        assert_eq!(step(&["v1 10/10/10"]), "new 3");
        assert_eq!(step(&["v1 10/10/10", "v2 3/3/0"]), "v1 8");
        assert_eq!(step(&["v1 8/10/10", "v2 3/3/0"]), "", "the old pods are still there: no room to grow");
        assert_eq!(step(&["v1 8/8/8", "v2 3/3/0"]), "v2 5");
        assert_eq!(step(&["v1 8/8/8", "v2 5/5/0"]), "", "new pods that are not available hold it up");
        assert_eq!(step(&["v1 8/8/8", "v2 5/5/5"]), "v1 3");
        assert_eq!(step(&["v1 3/3/3", "v2 10/10/10"]), "v1 0");
        assert_eq!(step(&["v1 0/0/0", "v2 10/10/10"]), "");
    }

    /// A new template on top of one that never got ready: the good pods stay, the unready ones make room.
    #[test]
    fn a_rollover_takes_unready_pods_first() {
        assert_eq!(step(&["v1 8/8/8", "v3 5/5/0"]), "new 0");
        assert_eq!(step(&["v1 8/8/8", "v3 0/0/0", "v2 0/0/0"]), "v2 5");
        assert_eq!(step(&["v1 6/6/6", "v3 5/5/0", "v2 2/2/0"]), "v3 2", "never below 8 of 10 by our doing");
    }

    /// While nobody knows how many pods a ReplicaSet is making, nothing grows.
    #[test]
    fn growth_waits_for_what_is_under_way() {
        assert_eq!(step(&["v1 8/8/8!", "v2 3/3/0"]), "");
        assert_eq!(step(&["v1 10/10/10!"]), "new 0");
        assert_eq!(step(&["v1 8/8/8", "v2 12/12/5!"]), "v2 10", "shrinking need not wait");
    }
}
