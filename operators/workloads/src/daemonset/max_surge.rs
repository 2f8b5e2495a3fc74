//! `spec.updateStrategy.rollingUpdate.maxSurge`: new pods come first, old ones go when their successors are
//! available.
//!
//! As upstream, an old pod that is not ready gets its successor at once. Unlike upstream, a node that is not Ready
//! itself does not make it so: its pods keep their place and wait for a turn like available ones.

use std::{cmp::Reverse, sync::Arc};

use trysail_core::pod::Pod;

use super::{
    fleet::{Fleet, Measure, Place},
    per_node::Steps,
    placement::Verdict,
    update_strategy::{Cost, Pair, cost, pair, silent_at},
};
use crate::views::{DaemonSet, UpdateStrategy};

/// Whether there may be two pods on a node.
pub(super) fn allows_surge(set: &DaemonSet) -> bool {
    match set.update_strategy {
        UpdateStrategy::OnDelete => false,
        UpdateStrategy::RollingUpdate { max_surge, .. } => max_surge.of_rounding_up(1) > 0,
    }
}

/// Pods of one node that go because there are others: at most one old and one new stay, and both only while the
/// old one is needed. Of a kind the one stays that serves, and of those the oldest: upstream keeps the oldest, and
/// takes the one that serves when two updates follow each other.
pub(super) fn crowd<'a>(
    place: &Place<'_>,
    running: &[&'a Arc<Pod>],
    measure: Measure<'_>,
) -> Vec<(&'a Arc<Pod>, &'static str)> {
    let (mut new, mut old): (Vec<_>, Vec<_>) =
        running.iter().copied().partition(|pod| measure.is_current(pod));
    for kind in [&mut new, &mut old] {
        kind.sort_by_key(|pod| Reverse((measure.is_available(pod), pod.is_ready())));
    }
    let extra = new.iter().skip(1).chain(old.iter().skip(1));
    let mut going: Vec<_> = extra.map(|pod| (*pod, "is not the oldest of its kind on its node")).collect();
    if let (Some(new), Some(old)) = (new.first(), old.first()) {
        if !old.is_ready() && place.node.is_ready() {
            going.push((*old, "is outdated and not ready"));
        } else if measure.is_available(new) {
            going.push((*old, "has an available successor"));
        }
    }
    going
}

pub(super) fn update<'a>(fleet: &Fleet<'a>, measure: Measure<'_>, max_surge: i32) -> Steps<'a> {
    let mut steps = Steps::default();
    let mut surging = 0;
    let mut available = 0;
    let mut candidates: Vec<(Cost, &Place<'a>)> = Vec::new();
    let mut sunset = Vec::new();
    for place in &fleet.places {
        let Some(Pair { new, old }) = pair(place, measure) else {
            surging += 1;
            continue;
        };
        available += i32::from(old.or(new).is_some_and(|pod| measure.is_available(pod)));
        match (new, old) {
            (_, None) => {}
            (Some(new), Some(old)) if measure.is_available(new) => {
                steps.delete.push((old, "has an available successor"));
            }
            (Some(_), Some(_)) => match silent_at(place, measure) {
                Some(at) if at <= measure.now => {}
                Some(at) => {
                    steps.wake_by(at);
                    surging += 1;
                }
                None => surging += 1,
            },
            (None, Some(old)) if place.verdict != Verdict::Run => match cost(place, old, measure) {
                Cost::Available | Cost::Young => sunset.push(old),
                Cost::Nothing => steps.delete.push((old, "is outdated and not ready")),
                Cost::Away => {}
            },
            (None, Some(old)) => match cost(place, old, measure) {
                Cost::Nothing => steps.create_on(place),
                cost => candidates.push((cost, place)),
            },
        }
    }
    // Where nothing will come any more, pods stay until they are not needed for availability.
    let spare = usize::try_from(available - fleet.desired).unwrap_or(0);
    steps.delete.extend(sunset.into_iter().take(spare).map(|pod| (pod, "is outdated where none is made")));
    // Nodes that are down come last.
    candidates.sort_by_key(|(cost, _)| *cost);
    let room = usize::try_from(max_surge - surging).unwrap_or(0);
    candidates.iter().take(room).for_each(|(_, place)| steps.create_on(place));
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixture::{World, steps};

    fn surging(max_surge: impl Into<Value>) -> Value {
        json!({"minReadySeconds": 5, "updateStrategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": max_surge.into(), "maxUnavailable": 0}}})
    }

    const THREE: [&str; 3] = ["a", "b", "c"];

    #[test]
    fn new_pods_come_first_within_the_budget() {
        let old = ["x a old ready=9", "y b old ready=9", "z c old ready=9"];
        assert_eq!(steps(surging(1), &THREE, &old), "+a");
        assert_eq!(steps(surging("34%"), &THREE, &old), "+a +b");
        let first = ["x a old ready=9", "n a ready=1", "y b old ready=9", "z c old ready=9"];
        assert_eq!(steps(surging(1), &THREE, &first), "", "until the first is available");
        assert_eq!(steps(surging(2), &THREE, &first), "+b");
    }

    #[test]
    fn the_old_pod_goes_when_it_is_not_needed_any_more() {
        assert_eq!(steps(surging(1), &["a"], &["x a old ready=99", "n a ready=4"]), "");
        assert_eq!(steps(surging(1), &["a"], &["x a old ready=99", "n a ready=5"]), "-x");
        assert_eq!(steps(surging(1), &["a"], &["x a old", "n a"]), "-x", "it serves nobody");
        assert_eq!(steps(surging(1), &["a down=3"], &["x a old", "n a"]), "", "but for its node it might");
    }

    #[test]
    fn one_of_each_kind_stays() {
        let pods = ["x a old ready=99 age=9", "y a old ready=99 age=8", "n a age=7", "m a age=6"];
        assert_eq!(steps(surging(1), &["a"], &pods), "-m -y");
        assert_eq!(steps(surging(1), &["a"], &["n a ready=9 age=7", "m a ready=9 age=6"]), "-m");
        let pods = ["x a old age=9", "y a old ready=99 age=8", "n a age=7"];
        assert_eq!(steps(surging(1), &["a"], &pods), "-x", "the one that serves stays");
    }

    #[test]
    fn pods_that_are_not_ready_get_successors_at_once_unless_it_is_their_nodes_doing() {
        let pods = ["x a old", "y b old", "z c old ready=9"];
        assert_eq!(steps(surging(1), &THREE, &pods), "+a +b +c");
        // Untolerated or not, what its node makes unready waits for a turn, after those that are available.
        let nodes = ["a down=3", "b down=3", "c"];
        assert_eq!(steps(surging(1), &nodes, &pods), "+c");
        assert_eq!(steps(surging(2), &nodes, &pods), "+c +a");
    }

    #[test]
    fn a_successor_on_a_node_that_was_down_before_does_not_count_for_long() {
        let plan = |age: i32| {
            let new = format!("n a age={age}");
            steps(surging(1), &["a down=100", "b"], &["x a old", &new, "y b old ready=9"])
        };
        assert_eq!(plan(59), "");
        assert_eq!(plan(61), "+b");
        assert_eq!(plan(101), "", "the new pod may have brought it down");
    }

    /// Where nothing will come, old pods stay until as many are available as there should be.
    #[test]
    fn pods_on_nodes_that_are_no_longer_wanted_go_last() {
        let nodes = ["a taint=gpu:NoSchedule", "b", "c"];
        let plan = |b: &str| steps(surging(1), &nodes, &["x a old ready=9", b, "z c ready=9"]);
        assert_eq!(plan("y b"), "");
        assert_eq!(plan("y b ready=9"), "-x");
        assert_eq!(steps(surging(1), &nodes, &["x a old", "y b", "z c"]), "-x", "it serves nobody");
    }

    #[test]
    fn the_new_pod_has_a_name_of_its_own() {
        let world = World::new(surging(1), &["a"], &[]);
        let name = world.plan().actions().next().unwrap().target.key.name.to_string();
        let world = World::new(surging(1), &["a"], &[&format!("{name} a old ready=9")]);
        let other = world.plan().actions().next().unwrap().target.key.name.to_string();
        assert_ne!(name, other);
    }
}
