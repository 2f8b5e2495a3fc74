//! What to create and delete on each node, updates aside: a pod where one belongs, none where none does, and never
//! two of a kind.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use trysail_core::{
    plan::EventNote,
    pod::{Phase, Pod},
};

use super::{
    Memory, Snapshot,
    failed_pods::{Backoffs, Fate},
    fleet::{Fleet, Measure, Place},
    max_surge,
    placement::{self, Verdict},
};

/// An unbound pod for a node that this process has never seen is left alone for so long: the view of nodes may
/// lag behind that of pods, but not longer than a watch may stay silent and be listed anew.
const UNSEEN_NODE: SignedDuration = SignedDuration::from_mins(5);

/// What is to be done, and why.
#[derive(Debug, Default)]
pub(super) struct Steps<'a> {
    /// Nodes that get a pod: name and slot.
    pub(super) create: Vec<(&'a str, u32)>,
    /// Pods that go.
    pub(super) delete: Vec<(&'a Arc<Pod>, &'static str)>,
    pub(super) events: Vec<EventNote>,
    /// When to look again: a failed pod's back-off ends, or a pod has been lost for long enough.
    pub(super) wake_at: Option<Timestamp>,
}

impl<'a> Steps<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }

    pub(super) fn create_on(&mut self, place: &Place<'a>) {
        self.create.extend(place.free_slot.map(|slot| (place.name(), slot)));
    }

    pub(super) fn wake_by(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |already| already.min(at)));
    }
}

/// The steps for all nodes.
pub(super) fn manage<'a>(
    snapshot: &'a Snapshot,
    fleet: &Fleet<'a>,
    measure: Measure<'_>,
    memory: &mut Memory,
) -> Steps<'a> {
    let mut steps = Steps::default();
    let generation = snapshot.set.meta.generation;
    let mut backoffs = Backoffs::new(&mut memory.failing, generation, measure.now);
    for place in &fleet.places {
        match place.verdict {
            Verdict::Run if place.pods.is_empty() => steps.create_on(place),
            Verdict::Run | Verdict::Keep => keep_one(place, measure, &mut backoffs, &mut steps),
            Verdict::Leave => {
                steps.delete.extend(place.living().map(|pod| (pod, "does not belong on its node")));
            }
        }
    }
    lost(snapshot, memory, &mut steps);
    steps
}

fn keep_one<'a>(place: &Place<'a>, measure: Measure<'_>, backoffs: &mut Backoffs<'_>, steps: &mut Steps<'a>) {
    let mut running = Vec::new();
    let mut is_held = false;
    for pod in place.living() {
        match pod.phase {
            Phase::Failed => is_held |= failed(place, pod, backoffs, steps),
            Phase::Succeeded => {
                let message = found("succeeded", pod, place, "delete");
                steps.events.push(EventNote::normal("SucceededDaemonPod", message));
                steps.delete.push((pod, "ended"));
            }
            Phase::Pending | Phase::Running | Phase::Unknown => running.push(pod),
        }
    }
    if max_surge::allows_surge(measure.set) {
        // A failed pod that waits for its back-off does: upstream would set one failing pod beside the other.
        if running.is_empty() && !is_held && place.verdict == Verdict::Run {
            // What is going does not hold the node: with a surge the next one comes beside it.
            steps.create_on(place);
        }
        steps.delete.extend(max_surge::crowd(place, &running, measure));
    } else {
        steps.delete.extend(running.into_iter().skip(1).map(|pod| (pod, "is not the oldest on its node")));
    }
}

/// Answers whether the pod stays for now.
fn failed<'a>(
    place: &Place<'a>,
    pod: &'a Arc<Pod>,
    backoffs: &mut Backoffs<'_>,
    steps: &mut Steps<'a>,
) -> bool {
    match backoffs.judge(place.name(), pod) {
        Fate::Delete { is_news } => {
            if is_news {
                let message = found("failed", pod, place, "kill");
                steps.events.push(EventNote::warning("FailedDaemonPod", message));
            }
            steps.delete.push((pod, "failed"));
            false
        }
        Fate::Wait(until) => {
            steps.wake_by(until);
            true
        }
    }
}

fn found(how: &str, pod: &Pod, place: &Place<'_>, what: &str) -> String {
    format!("Found {how} daemon pod {} on node {}, will try to {what} it", pod.meta.key, place.name())
}

/// Unbound pods for nodes that are gone: nothing will ever bind them, and the collector of pods looks at bound
/// ones only. A node that is merely not in view yet is not gone.
fn lost<'a>(snapshot: &'a Snapshot, memory: &Memory, steps: &mut Steps<'a>) {
    let now = snapshot.context.now;
    for pod in &snapshot.strays {
        let Some(node) = placement::target(pod).filter(|_| pod.node.is_empty()) else { continue };
        if pod.meta.is_terminating() || !super::claim::is_ours(&snapshot.set, pod) {
            continue;
        }
        let due = pod.meta.created.checked_add(UNSEEN_NODE).unwrap_or(now);
        if memory.nodes.contains_key(node) || due <= now {
            steps.delete.push((pod, "its node is gone"));
        } else {
            steps.wake_by(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::fixture::{World, node, pod, steps},
        Verdict,
    };

    #[test]
    fn every_node_that_wants_a_pod_gets_one() {
        let nodes = ["c", "a taint=gpu:NoSchedule", "b taint=node.kubernetes.io/unschedulable:NoSchedule"];
        assert_eq!(steps(json!({}), &nodes, &[]), "+b +c");
        assert_eq!(steps(json!({}), &nodes, &["x b", "y c unbound"]), "");
        assert_eq!(steps(json!({}), &[], &[]), "", "no nodes, no pods");
    }

    #[test]
    fn pods_leave_nodes_that_drive_them_out_and_stay_where_none_would_be_made() {
        let nodes = ["a taint=gpu:NoExecute", "b taint=gpu:NoSchedule"];
        assert_eq!(steps(json!({}), &nodes, &["x a ready=9", "y b ready=9"]), "-x");
        assert_eq!(steps(json!({}), &nodes, &["x a going=0", "y b"]), "");
    }

    /// Bound is older than unbound, then age counts, then the name.
    #[test]
    fn of_several_pods_the_oldest_stays() {
        let plan = |pods: &[&str]| steps(json!({}), &["a"], pods);
        assert_eq!(plan(&["x a age=5", "y a age=6", "z a age=4"]), "-x -z");
        assert_eq!(plan(&["x a unbound age=9", "y a age=1"]), "-x");
        assert_eq!(plan(&["y a age=5", "x a age=5"]), "-y");
        assert_eq!(plan(&["x a age=5", "y a age=6 going=0"]), "", "what is going anyway does not count");
    }

    #[test]
    fn a_node_is_free_when_its_last_pod_is_gone() {
        assert_eq!(steps(json!({}), &["a"], &["x a going=0"]), "");
        assert_eq!(steps(json!({}), &["a"], &["x a failed going=0"]), "+a", "it has ended already");
        assert_eq!(
            steps(
                json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}),
                &["a"],
                &["x a going=0"]
            ),
            "+a",
            "with a surge it need not end"
        );
    }

    #[test]
    fn finished_pods_are_deleted_and_told_of() {
        let world = World::new(json!({}), &["a", "b"], &["x a failed", "y b succeeded"]);
        assert_eq!(world.steps(), "-x -y");
        let events: Vec<_> =
            world.plan().events.into_iter().map(|event| (event.reason, event.message)).collect();
        assert_eq!(events[0].0, "FailedDaemonPod");
        assert_eq!(events[0].1, "Found failed daemon pod shop/x on node a, will try to kill it");
        assert_eq!(events[1].0, "SucceededDaemonPod");
    }

    #[test]
    fn the_next_failure_waits() {
        let surging = json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
        for (spec, then) in [(json!({}), ""), (surging, " +a")] {
            let mut world = World::new(spec, &["a"], &["x a failed"]);
            assert_eq!(world.steps(), format!("-x{then}"));
            world.later(0);
            assert_eq!(world.steps(), format!("-x{then}"), "as long as it is there");
            assert!(world.plan().events.is_empty(), "but that is no news");
            world.pods = vec![pod("y a failed")];
            assert_eq!(world.steps(), "", "nor is anything set beside it");
            assert!(world.plan().to_string().contains("2026-01-01T00:00:11Z: pods that failed"));
            world.later(1);
            assert_eq!(world.steps(), format!("-y{then}"));
        }
    }

    /// Nothing binds a pod whose node is gone. A node that was never seen may be news that is still on its way.
    #[test]
    fn unbound_pods_of_gone_nodes_are_deleted() {
        let mut world = World::new(json!({}), &["a", "b"], &["x a unbound age=3", "y b age=3"]);
        world.later(1);
        world.nodes.clear();
        assert_eq!(world.steps(), "-x", "bound ones are the business of the collector");
        world.later(1);
        assert_eq!(world.steps(), "-x", "until it is gone");
        let unseen = |age: &str| steps(json!({}), &[], &[&format!("x a unbound age={age}")]);
        assert_eq!(unseen("299"), "");
        assert_eq!(unseen("300"), "-x");
    }

    #[test]
    fn pods_whose_node_is_unknown_are_left_alone() {
        assert_eq!(steps(json!({}), &["a"], &["x a", "y nowhere ready=9", "z nowhere failed"]), "");
    }

    #[test]
    fn only_what_changed_is_judged() {
        // A node that is not judged anew keeps a verdict that it could not get.
        let judged = |world: &World| {
            let snapshot = world.snapshot();
            let mut memory = snapshot.context.memory.clone();
            for known in std::sync::Arc::make_mut(&mut memory.nodes).values_mut() {
                known.verdict = Verdict::Leave;
            }
            let fleet = super::super::fleet::survey(&snapshot, &mut memory);
            fleet.places.iter().filter(|place| place.verdict != Verdict::Leave).count()
        };
        let names: Vec<String> = (0..500).map(|n| format!("n{n:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut world = World::new(json!({}), &names, &[]);
        assert_eq!(judged(&world), 500);
        world.later(0);
        assert_eq!(judged(&world), 0);
        world.nodes[7] = node("n007 taint=gpu:NoSchedule");
        world.nodes[8]["metadata"]["resourceVersion"] = "77".into();
        world.nodes.push(node("n500"));
        assert_eq!(judged(&world), 2);
        world.later(0);
        world.template["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        assert_eq!(judged(&world), 501, "another template, another judgement");
        world.later(0);
        world.nodes.truncate(3);
        world.later(0);
        assert_eq!(world.memory.nodes.len(), 3, "nodes that are gone are forgotten");
    }

    #[test]
    fn names_follow_the_node_and_are_not_used_again_at_once() {
        let name = |world: &World| world.plan().actions().next().unwrap().target.key.name.to_string();
        let mut world = World::new(json!({}), &["a", "b"], &["x b"]);
        let first = name(&world);
        world.nodes.remove(1);
        assert_eq!(name(&world), first, "whatever other nodes there are");
        world.pods = vec![pod(&format!("{first} a"))];
        world.later(1);
        world.pods.clear();
        let second = name(&world);
        assert_ne!(second, first);
        assert_eq!(name(&world), second, "a repeated create draws the same name");
    }
}
