//! Which pods of a surplus go first. A total order: the same pods are chosen whatever order they come in.
//!
//! Upstream's order, with one step of its own: among ready pods those go first that are not available yet, so
//! that a cheap deletion cost cannot take an available pod while a younger one still waits for
//! `minReadySeconds`.

use std::{cmp::Reverse, sync::Arc};

use jiff::Timestamp;
use trysail_core::{
    Uid,
    pod::{Phase, Pod},
};

use super::Snapshot;

/// The `count` pods of `active` that go first. When all go there is nothing to choose.
pub(super) fn first<'a>(snapshot: &Snapshot, active: &[&'a Arc<Pod>], count: usize) -> Vec<&'a Arc<Pod>> {
    let mut pods = active.to_vec();
    if count < pods.len() {
        pods.sort_by_cached_key(|pod| Place::of(pod, snapshot));
        pods.truncate(count);
    }
    pods
}

/// A pod's place in the queue for deletion; the smallest goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    is_assigned: bool,
    phase: u8,
    is_ready: bool,
    is_available: bool,
    deletion_cost: i32,
    /// Pods that share their node with many of the same owner go first.
    neighbours: Reverse<u32>,
    ready_for: i8,
    restarts: Reverse<i32>,
    sidecar_restarts: Reverse<i32>,
    age: i8,
    uid: Uid,
}

impl Place {
    fn of(pod: &Pod, snapshot: &Snapshot) -> Self {
        let now = snapshot.context.now;
        Self {
            is_assigned: !pod.node.is_empty(),
            phase: match pod.phase {
                Phase::Pending => 0,
                Phase::Unknown => 1,
                Phase::Running | Phase::Succeeded | Phase::Failed => 2,
            },
            is_ready: pod.is_ready(),
            is_available: pod.is_available(snapshot.set.min_ready_seconds, now),
            deletion_cost: pod.deletion_cost,
            neighbours: Reverse(snapshot.node_load.get(&pod.node).copied().unwrap_or(0)),
            ready_for: pod.ready_since.map_or(-1, |since| bucket(since, now)),
            restarts: Reverse(pod.restarts),
            sidecar_restarts: Reverse(pod.sidecar_restarts),
            age: bucket(pod.meta.created, now),
            uid: pod.meta.uid.clone(),
        }
    }
}

/// ⌊log₂⌋ of the time since, in nanoseconds: pods of about the same age are as good as each other, and the uid
/// decides, so that a scale-down does not take one whole generation of pods with it.
fn bucket(since: Timestamp, now: Timestamp) -> i8 {
    let age = now.as_nanosecond() - since.as_nanosecond();
    if age > 0 { age.ilog2() as i8 } else { -1 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::fixture::replica_set_plan;

    /// Of two pods, which one goes when one has to?
    fn goes(pods: [&str; 2]) -> String {
        let spec = json!({"replicas": 1, "minReadySeconds": 3});
        let plan = replica_set_plan(spec.clone(), &pods, None);
        let [a, b] = pods;
        assert_eq!(plan, replica_set_plan(spec, &[b, a], None), "the order of the input must not matter");
        let line = plan.lines().find(|line| line.contains("delete")).unwrap();
        line.split("shop/").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    }

    /// Each row is decided by one criterion, against all that come after it.
    #[test]
    fn each_criterion_beats_those_after_it() {
        for (loser, winner) in [
            ("z ready=9 cost=9", "a node=n"),
            ("z cost=9", "a node=n cost=-9"),
            ("z node=n cost=9", "a node=n ready=1 cost=-9"),
            ("z node=n ready=1 cost=9", "a node=n ready=9 cost=-9"),
            ("z node=n ready=9 cost=-1", "a node=m ready=4 restarts=7"),
            ("z node=n ready=4", "a node=m ready=9 restarts=7"),
            ("z node=n ready=9 restarts=1", "a node=m ready=9"),
            ("a node=n ready=9", "b node=n ready=9"),
        ] {
            assert_eq!(goes([loser, winner]), loser[..1], "{loser} against {winner}");
        }
    }

    #[test]
    fn of_three_the_one_that_shares_its_node_goes() {
        let pods = ["a node=m ready=9", "b node=n ready=9 restarts=5", "c node=m ready=8"];
        let plan = replica_set_plan(json!({"replicas": 2}), &pods, None);
        assert!(plan.contains("delete Pod shop/a") || plan.contains("delete Pod shop/c"), "{plan}");
    }
}
