//! `spec.updateStrategy`: how pods of an old revision give way.
//!
//! A pod is replaced by deleting it; the next look makes its successor. Replacements go from the highest ordinal
//! down to `rollingUpdate.partition`, which counts from the first ordinal.

use std::sync::Arc;

use trysail_core::{
    IntOrPercent,
    plan::WaitingOn,
    pod::{Phase, Pod},
};

use super::{
    BURST, pods,
    revisions::Revisions,
    scene::{Scene, Steps},
};
use crate::views::StatefulSetUpdateStrategy;

/// The deletions that the update needs now.
pub(super) fn replace(scene: &Scene<'_>, steps: &mut Steps) {
    let StatefulSetUpdateStrategy::RollingUpdate { partition, max_unavailable } = scene.set().update_strategy
    else {
        return on_delete(scene, steps);
    };
    match max_unavailable {
        None => one_at_a_time(scene, steps),
        Some(max) => within_budget(scene, max, steps),
    }
    let kept = scene
        .fleet
        .members
        .iter()
        .filter(|(ordinal, pod)| scene.keeps_current(**ordinal) && !scene.revisions.is_updated(pod));
    let kept = kept.count();
    if kept > 0 {
        let what = format!(
            "lower spec.updateStrategy.rollingUpdate.partition ({partition}) to update {kept} more pods"
        );
        steps.waiting.push(WaitingOn::User { what });
    }
}

/// Only the user replaces pods.
fn on_delete(scene: &Scene<'_>, steps: &mut Steps) {
    let old = scene.fleet.members.values().filter(|pod| is_old(scene, pod)).count();
    if old > 0 {
        let what = format!("delete {old} pods of an older revision: spec.updateStrategy.type is OnDelete");
        steps.waiting.push(WaitingOn::User { what });
    }
}

fn is_old(scene: &Scene<'_>, pod: &Pod) -> bool {
    !scene.revisions.is_updated(pod)
}

/// Upstream's way without `maxUnavailable`: the highest old pod goes once every pod above it serves.
fn one_at_a_time(scene: &Scene<'_>, steps: &mut Steps) {
    for ordinal in scene.fleet.range.iter().rev().take_while(|ordinal| !scene.keeps_current(*ordinal)) {
        // It is on its way: made by this plan, or by one to come.
        let Some(pod) = scene.fleet.members.get(&ordinal) else { return };
        let is_going = pod.meta.is_terminating() || pod.is_terminal();
        if is_old(scene, pod) && !is_going {
            return steps.wave(vec![pods::delete(scene, pod, "of an older revision")]);
        }
        if !scene.serves(pod) {
            if !is_going {
                steps.waiting.push(Scene::wait(pod, "become available before the update goes on"));
            }
            return;
        }
    }
}

/// So many pods may be unavailable: a share is rounded down, but at least one.
fn allowed(max: IntOrPercent, replicas: i32) -> i64 {
    i64::from(max.of_rounding_down(replicas).max(1))
}

/// With `maxUnavailable`: the highest old pods go while fewer than allowed are unavailable. An old pod that does not
/// serve costs nothing, so that a broken revision never blocks its successor.
fn within_budget(scene: &Scene<'_>, max: IntOrPercent, steps: &mut Steps) {
    let serving = scene.fleet.members.values().filter(|pod| scene.serves(pod)).count();
    let unavailable = scene.fleet.range.len() - serving as i64;
    let mut budget = allowed(max, scene.set().replicas) - unavailable;
    let mut going = Vec::new();
    for (ordinal, pod) in scene.descending() {
        let is_going = pod.meta.is_terminating() || pod.is_terminal();
        if is_going || scene.keeps_current(ordinal) || !is_old(scene, pod) || going.len() >= BURST {
            continue;
        }
        if !scene.serves(pod) {
            going.push(pods::delete(scene, pod, "of an older revision, and unavailable"));
        } else if budget > 0 {
            budget -= 1;
            let because = format!("of an older revision; {max} may be unavailable");
            going.push(pods::delete(scene, pod, &because));
        }
    }
    steps.wave(going);
}

/// The way out of a broken rollout, where order would wait for ever: an old pod that is broken beyond hope goes
/// although not all others serve. One at a time, and never while another pod is on its way.
pub(super) fn escape(scene: &Scene<'_>, steps: &mut Steps) {
    let is_moving = scene.fleet.all().any(|pod| pod.meta.is_terminating())
        || steps.waves.iter().any(|wave| !wave.is_empty());
    if scene.partition().is_none() || is_moving {
        return;
    }
    let hopeless =
        scene.descending().find(|(ordinal, pod)| !scene.keeps_current(*ordinal) && is_hopeless(scene, pod));
    if let Some((_, pod)) = hopeless {
        steps.wave(vec![pods::delete(scene, pod, "of an older revision that never got ready")]);
    }
}

/// Of an older revision, and broken.
pub(super) fn is_hopeless(scene: &Scene<'_>, pod: &Pod) -> bool {
    is_old(scene, pod) && is_broken(scene, pod)
}

/// Unready for a reason that waiting will not mend, as far as anybody can tell. A pod of the revision that once
/// served and has merely become unready is left to its order.
fn is_broken(scene: &Scene<'_>, pod: &Pod) -> bool {
    if Scene::is_ready(pod) || pod.is_terminal() {
        return false;
    }
    let is_abandoned = !scene.revisions.is_current(pod);
    is_abandoned || was_never_ready(pod) || (pod.restarts > 0 && !has_ever_served(scene, pod))
}

/// A pod leaves Pending for good; and its Ready condition is False since it was first seen by its kubelet.
fn was_never_ready(pod: &Pod) -> bool {
    if pod.phase == Phase::Pending {
        return true;
    }
    let Some(details) = &pod.details else { return false };
    let since = details.condition("Ready").and_then(|ready| ready.last_transition);
    match (since, details.start_time) {
        (None, _) => true,
        (Some(since), Some(start)) => since.as_second() <= start.as_second() + 1,
        (Some(_), None) => false,
    }
}

/// Some pod of the same revision is available.
fn has_ever_served(scene: &Scene<'_>, pod: &Pod) -> bool {
    let is_sibling = |other: &&Arc<Pod>| Revisions::are_siblings(other, pod);
    scene.fleet.all().filter(|other| is_sibling(other)).any(|other| scene.is_available(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing and one are sizes too.
    #[test]
    fn shares_round_down_but_not_to_nothing() {
        for (max, replicas, count) in [
            (IntOrPercent::Int(1), 0, 1),
            (IntOrPercent::Int(3), 1, 3),
            (IntOrPercent::Percent(1), 1, 1),
            (IntOrPercent::Percent(50), 5, 2),
            (IntOrPercent::Percent(100), 0, 1),
        ] {
            assert_eq!(allowed(max, replicas), count, "{max} of {replicas}");
        }
    }
}
