//! `status`: what is reported, from the pods seen before this look's own writes. Of several pods on a node the
//! oldest is judged.

use trysail_core::{
    Face, Labels,
    plan::{Action, Target, Verb},
};

use super::{
    DaemonSetPlanner, Snapshot,
    failure::UPDATE_STATUS,
    fleet::{Fleet, Measure},
    placement::Verdict,
};
use crate::{
    kstatus::{self, Progress},
    status_patch::StatusPatch,
};

/// The counters of a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) desired: i32,
    pub(super) current: i32,
    pub(super) misscheduled: i32,
    pub(super) ready: i32,
    pub(super) updated: i32,
    pub(super) available: i32,
}

impl Counts {
    pub(super) fn of(fleet: &Fleet<'_>, measure: Measure<'_>) -> Self {
        let mut counts = Self { desired: fleet.desired, ..Self::default() };
        for place in &fleet.places {
            let Some(pod) = place.pods.first() else { continue };
            if place.verdict != Verdict::Run {
                counts.misscheduled += 1;
                continue;
            }
            counts.current += 1;
            counts.ready += i32::from(pod.is_ready());
            counts.available += i32::from(measure.is_available(pod));
            counts.updated += i32::from(measure.is_current(pod));
        }
        counts
    }
}

/// What is said beside the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remarks<'a> {
    pub(super) collisions: i32,
    /// The API server's last refusal.
    pub(super) refusal: Option<&'a str>,
    /// Pods that no scheduler can bind.
    pub(super) unplaceable: Option<&'a str>,
}

/// The write that brings the status up to date; `None` when it is.
pub(super) fn write(
    planner: DaemonSetPlanner,
    snapshot: &Snapshot,
    counts: Counts,
    remarks: Remarks<'_>,
) -> Option<Action> {
    let set = &snapshot.set;
    let old = &set.status;
    let mut patch = StatusPatch::new(planner.face);
    patch.counter("desiredNumberScheduled", old.desired_number_scheduled, counts.desired);
    patch.counter("currentNumberScheduled", old.current_number_scheduled, counts.current);
    patch.counter("numberMisscheduled", old.number_misscheduled, counts.misscheduled);
    patch.counter("numberReady", old.number_ready, counts.ready);
    patch.counter("updatedNumberScheduled", old.updated_number_scheduled, counts.updated);
    patch.counter("numberAvailable", old.number_available, counts.available);
    patch.counter("numberUnavailable", old.number_unavailable, counts.desired - counts.available);
    patch.optional("observedGeneration", old.observed_generation, Some(set.meta.generation));
    if remarks.collisions > 0 {
        patch.optional("collisionCount", old.collision_count, Some(remarks.collisions));
    }
    let mut conditions = old.conditions.clone();
    if planner.face == Face::Crd {
        kstatus::apply(&mut conditions, progress(snapshot, counts, remarks), snapshot.context.now);
        display(snapshot, &mut patch);
    }
    patch.conditions(&old.conditions, &conditions);
    Some(Action {
        target: Target {
            resource: planner.resource,
            key: set.meta.key.clone(),
            uid: Some(set.meta.uid.clone()),
            resource_version: set.meta.resource_version,
        },
        verb: Verb::Patch { subresource: Some("status"), body: patch.body()? },
        reason: UPDATE_STATUS,
        because: String::new(),
        on_success: None,
        on_failure: None,
    })
}

/// The strings that native printers compute and a CRD's printer columns read from the status. Reading containers
/// out of the raw template is not free, and all of them follow from the spec.
fn display(snapshot: &Snapshot, patch: &mut StatusPatch) {
    let set = &snapshot.set;
    let old = &set.status;
    let is_told =
        [&old.selector, &old.node_selector, &old.containers, &old.images].into_iter().all(Option::is_some);
    if set.is_observed() && is_told {
        return;
    }
    let (names, images): (Vec<_>, Vec<_>) = set.template.containers().into_iter().unzip();
    patch.display("selector", old.selector.as_deref(), &set.selector.to_string());
    patch.display("nodeSelector", old.node_selector.as_deref(), &pairs(&set.placement.node_selector));
    patch.display("containers", old.containers.as_deref(), &names.join(","));
    patch.display("images", old.images.as_deref(), &images.join(","));
}

/// As the printers of native DaemonSets show it.
fn pairs(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A refusal is not `Stalled`: a quota or a webhook may let the next attempt through. With `OnDelete` the user
/// brings pods up to date, so that outdated ones are no lack.
fn progress(snapshot: &Snapshot, counts: Counts, remarks: Remarks<'_>) -> Progress {
    let Counts { desired, current, updated, available, .. } = counts;
    let by_hand = snapshot.set.update_strategy == crate::views::UpdateStrategy::OnDelete;
    if let Some(refusal) = remarks.refusal {
        return Progress::Underway { reason: "Refused", message: refusal.to_owned() };
    }
    if available >= desired && (by_hand || updated >= desired) {
        return Progress::Done { message: format!("{desired} pods available") };
    }
    if let Some(unplaceable) = remarks.unplaceable {
        return Progress::Underway { reason: "PodsUnschedulable", message: unplaceable.to_owned() };
    }
    let (reason, message) = if current < desired {
        ("Scheduling", format!("{current} of {desired} nodes have a pod"))
    } else if updated < desired && !by_hand {
        ("RollingUpdate", format!("{updated} of {desired} pods updated"))
    } else {
        ("PodsUnavailable", format!("{available} of {desired} pods available"))
    };
    Progress::Underway { reason, message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use trysail_core::{Face, plan::Refusal};

    use super::super::fixture::World;

    /// Desired, current, misscheduled, ready, updated, available, unavailable.
    fn counts(world: &World) -> [i64; 7] {
        let status = world.status();
        [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberMisscheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
        ]
        .map(|name| status[name].as_i64().unwrap_or(0))
    }

    fn world(nodes: &[&str], pods: &[&str]) -> World {
        World::new(json!({"minReadySeconds": 5, "updateStrategy": {"type": "OnDelete"}}), nodes, pods)
    }

    #[test]
    fn nodes_are_counted_by_their_oldest_pod() {
        let nodes = ["a", "b", "c", "d taint=gpu:NoSchedule"];
        assert_eq!(counts(&world(&[], &[])), [0; 7]);
        assert_eq!(counts(&world(&nodes[..1], &["x a ready=9"])), [1, 1, 0, 1, 1, 1, 0]);
        let pods = ["w a old ready=9", "x b ready=4", "y c going=0", "z d ready=9"];
        assert_eq!(counts(&world(&nodes, &pods)), [3, 3, 1, 2, 2, 1, 2]);
        let pods = ["w a ready=9", "x b ready=9", "y c old ready=9 age=9", "z c age=8 going=0"];
        assert_eq!(counts(&world(&nodes, &pods)), [3, 3, 0, 3, 2, 3, 0]);
        let gone = world(&["a"], &["x b ready=9"]);
        assert_eq!(counts(&gone)[..3], [0; 3], "missing: +a is under way, so the status waits");
    }

    /// Conditions, without their times.
    fn conditions(world: &World) -> Vec<String> {
        let status = world.status();
        let list = status["conditions"].as_array().cloned().unwrap_or_default();
        let text = |held: &Value, name: &str| held[name].as_str().unwrap_or_default().to_owned();
        list.iter()
            .map(|held| {
                let [kind, state, reason, message] =
                    ["type", "status", "reason", "message"].map(|name| text(held, name));
                format!("{kind}={state} {reason}: {message}")
            })
            .collect()
    }

    fn crd(nodes: &[&str], pods: &[&str]) -> World {
        let mut world = World::new(json!({}), nodes, pods);
        world.face = Face::Crd;
        world
    }

    #[test]
    fn the_crd_face_tells_tools_how_far_it_is() {
        let done = crd(&["a"], &["x a ready=9"]);
        assert_eq!(conditions(&done), ["Ready=True AsWanted: 1 pods available"]);
        assert_eq!(done.status()["selector"], "app=agent");
        assert_eq!(done.status()["nodeSelector"], "<none>");
        assert_eq!(done.status()["images"], "v2");
        let starting = crd(&["a"], &["x a"]);
        let message = "PodsUnavailable: 0 of 1 pods available";
        assert_eq!(
            conditions(&starting),
            [format!("Ready=False {message}"), format!("Reconciling=True {message}")]
        );
        assert_eq!(conditions(&crd(&[], &[])), ["Ready=True AsWanted: 0 pods available"]);
        let mut by_hand = crd(&["a"], &["x a old ready=9"]);
        by_hand.spec = json!({"updateStrategy": {"type": "OnDelete"}});
        assert_eq!(conditions(&by_hand), ["Ready=True AsWanted: 1 pods available"]);
    }

    #[test]
    fn a_refusal_is_told_while_it_lasts() {
        let mut world = crd(&["a"], &[]);
        let retry_at = world.now + jiff::SignedDuration::from_secs(4);
        let message = "exceeded quota".to_owned();
        world.refusal = Some(Refusal { action: "CreatePod", message, attempts: 2, retry_at });
        assert_eq!(world.steps(), "");
        assert_eq!(conditions(&world)[0], "Ready=False Refused: exceeded quota");
        assert_eq!(world.plan().requeue_at, Some(retry_at));
        world.refusal.as_mut().unwrap().action = "DeletePod";
        assert_eq!(world.steps(), "+a", "who forbids to delete has not forbidden to create");
    }
}
