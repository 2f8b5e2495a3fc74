//! `spec.revisionHistoryLimit`: old ReplicaSets beyond it are deleted, the earliest revisions first.

use trysail_core::{Action, plan::Verb};

use super::{DeploymentPlanner, annotations, claim::target, edits::Edits, fleet::Fleet};
use crate::views::ReplicaSet;

/// The deletions that bring the number of old ReplicaSets down to the limit. One that still has pods, or whose
/// controller has not seen yet that it should have none, is kept for now.
pub(super) fn clean<'a>(planner: DeploymentPlanner, fleet: &Fleet<'a>, edits: &mut Edits<'a>) -> Vec<Action> {
    let Some(limit) = fleet.deployment.revision_history_limit else { return Vec::new() };
    let mut old: Vec<_> = fleet.old.iter().filter(|set| !set.meta.is_terminating()).collect();
    old.sort_by_key(|set| {
        (annotations::revision(&set.annotations), set.meta.created, set.meta.key.name.clone())
    });
    let beyond = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let empty: Vec<_> =
        old.into_iter().take(beyond).filter(|set| is_empty(set) && edits.replicas(set) == 0).collect();
    // What goes needs no annotations any more.
    for set in &empty {
        edits.forget(set);
    }
    empty.into_iter().map(|set| delete(planner, set)).collect()
}

fn is_empty(set: &ReplicaSet) -> bool {
    set.replicas == 0 && set.status.replicas.unwrap_or(0) == 0 && set.is_observed()
}

fn delete(planner: DeploymentPlanner, set: &ReplicaSet) -> Action {
    Action {
        target: target(planner, set),
        verb: Verb::Delete { propagation: None },
        reason: "DeleteReplicaSet",
        because: "beyond spec.revisionHistoryLimit".to_owned(),
        on_success: None,
        on_failure: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::fixture::rollout;

    #[test]
    fn the_earliest_go_and_none_that_has_pods() {
        let step =
            |limit: i32, sets: &[&str]| rollout(json!({"replicas": 1, "revisionHistoryLimit": limit}), sets);
        let old = ["v7 0/0/0", "v8 0/0/0", "v9 0/0/0", "v2 1/1/1"];
        assert_eq!(step(1, &old), "v7 gone, v8 gone");
        assert_eq!(step(0, &old), "v7 gone, v8 gone, v9 gone");
        assert_eq!(step(i32::MAX, &old), "");
        assert_eq!(step(1, &["v7 0/1/0", "v8 0/0/0!", "v9 0/0/0", "v2 1/1/1"]), "");
        assert_eq!(step(0, &["v7 0/0/0", "v2 1/1/0"]), "", "only when the rollout is complete");
    }
}
