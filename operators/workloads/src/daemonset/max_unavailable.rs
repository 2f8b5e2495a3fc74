//! `spec.updateStrategy.rollingUpdate.maxUnavailable`: old pods go first, new ones come when they are gone.
//!
//! As upstream, an old pod that is not ready costs nothing to replace. Unlike upstream, that goes for nodes that
//! are well only: a node that flaps makes its pods unready for a moment. And a pod that is ready, though not for
//! `minReadySeconds` yet, is within the budget: two updates in quick succession replace no fleet at once.

use super::{
    fleet::{Fleet, Measure},
    per_node::Steps,
    placement::Verdict,
    update_strategy::{Cost, cost, newcomer_until, pair, silent_at},
};

pub(super) fn update<'a>(fleet: &Fleet<'a>, measure: Measure<'_>, max_unavailable: i32) -> Steps<'a> {
    let mut steps = Steps::default();
    // Nodes where the update is under way: no pod, a going one, or a new one that is not available yet.
    let mut busy = 0;
    let (mut free, mut young, mut available, mut away) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for place in &fleet.places {
        if place.pods.is_empty() && place.verdict != Verdict::Run || place.verdict == Verdict::Leave {
            continue;
        }
        let pair = pair(place, measure);
        if let Some((None, Some(old))) = pair.as_ref().map(|pair| (pair.new, pair.old)) {
            match cost(place, old, measure) {
                Cost::Nothing => free.push(old),
                Cost::Young => young.push(old),
                Cost::Available => available.push(old),
                // Where no new pod would be made now, nothing is gained by deleting the old one.
                Cost::Away if place.verdict != Verdict::Run => {}
                Cost::Away => match newcomer_until(place, old).filter(|until| *until > measure.now) {
                    None => away.push(old),
                    Some(until) => {
                        steps.wake_by(until);
                        busy += 1;
                    }
                },
            }
            continue;
        }
        let is_done = pair
            .is_some_and(|pair| pair.old.is_none() && pair.new.is_some_and(|new| measure.is_available(new)));
        if is_done {
            continue;
        }
        match silent_at(place, measure) {
            Some(at) if at <= measure.now => {}
            Some(at) => {
                steps.wake_by(at);
                busy += 1;
            }
            None => busy += 1,
        }
    }
    let under_way = busy + free.len();
    let budget = usize::try_from(max_unavailable).unwrap_or(0);
    // Those that are not available count against the available ones, whether they are replaced now or not.
    let replaced_young = young.len().min(budget.saturating_sub(under_way));
    let replaced = available.len().min(budget.saturating_sub(under_way + young.len()));
    // Last, so that nodes that are down hold up nobody.
    let returning = away.len().min(budget.saturating_sub(under_way + replaced_young + replaced));
    steps.delete.extend(free.into_iter().map(|pod| (pod, "is outdated and not ready")));
    steps.delete.extend(young.into_iter().take(replaced_young).map(|pod| (pod, "is outdated")));
    steps.delete.extend(available.into_iter().take(replaced).map(|pod| (pod, "is outdated")));
    steps.delete.extend(away.into_iter().take(returning).map(|pod| (pod, "is outdated")));
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixture::{World, steps};

    fn rolling(max_unavailable: impl Into<Value>) -> Value {
        json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": max_unavailable.into()}}})
    }

    /// Pods tolerate everything, so that nodes that are down are wanted too.
    fn tolerant(spec: Value, nodes: &[&str], pods: &[&str]) -> World {
        let mut world = World::new(spec, nodes, pods);
        world.template["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        let template = world.template.clone();
        world.revisions[0]["data"]["spec"]["template"]["spec"] = template["spec"].clone();
        world
    }

    const FOUR: [&str; 4] = ["a", "b", "c", "d"];

    #[test]
    fn available_pods_are_replaced_within_the_budget() {
        let old = ["w a old ready=9", "x b old ready=9", "y c old ready=9", "z d old ready=9"];
        for (budget, expected) in [
            (json!(1), "-w"),
            (json!(3), "-w -x -y"),
            (json!("26%"), "-w -x"),
            (json!("1%"), "-w"),
            (json!("100%"), "-w -x -y -z"),
            (json!(0), "-w"),
        ] {
            assert_eq!(steps(rolling(budget.clone()), &FOUR, &old), expected, "{budget}");
        }
        assert_eq!(steps(json!({"updateStrategy": {"type": "OnDelete"}}), &FOUR, &old), "");
    }

    #[test]
    fn what_is_under_way_counts() {
        let plan = |first: &str| {
            let mut pods = vec!["x b old ready=9", "y c old ready=9", "z d ready=9"];
            pods.extend((!first.is_empty()).then_some(first));
            steps(rolling(1), &FOUR, &pods)
        };
        assert_eq!(plan("w a ready=1"), "-x");
        assert_eq!(plan("w a"), "", "a new pod that is not available");
        assert_eq!(plan("w a old going=0"), "", "an old one that is going");
        assert_eq!(plan(""), "+a", "none at all: that comes first");
    }

    /// Upstream counts nothing for these, and takes a whole fleet at once.
    #[test]
    fn ready_pods_cost_budget_though_they_are_young() {
        let mut spec = rolling(1);
        spec["minReadySeconds"] = 60.into();
        let young = ["w a old ready=9", "x b old ready=9", "y c old ready=9", "z d old ready=9"];
        assert_eq!(steps(spec.clone(), &FOUR, &young), "-w");
        let mixed = ["w a old ready=99", "x b old ready=9", "y c old ready=99", "z d old ready=99"];
        assert_eq!(steps(spec.clone(), &FOUR, &mixed), "-x", "the unavailable one first");
        let second = ["w a ready=9", "x b old ready=9", "y c old ready=99", "z d old ready=99"];
        assert_eq!(steps(spec, &FOUR, &second), "");
    }

    #[test]
    fn pods_that_are_not_ready_cost_nothing() {
        let pods = ["w a old", "x b old", "y c old ready=9", "z d old ready=9"];
        assert_eq!(steps(rolling(1), &FOUR, &pods), "-w -x");
        assert_eq!(steps(rolling(3), &FOUR, &pods), "-w -x -y");
    }

    /// They are unready because their nodes are, and will be back with them.
    #[test]
    fn pods_on_flapping_nodes_are_within_the_budget_and_come_last() {
        let nodes = ["a down=3", "b down=3", "c down=3", "d"];
        let away = ["w a old", "x b old", "y c old"];
        let plan = |budget: i32, last: &str| {
            tolerant(rolling(budget), &nodes, &[away[0], away[1], away[2], last]).steps()
        };
        assert_eq!(plan(1, "z d old ready=9"), "-z");
        assert_eq!(plan(2, "z d old ready=9"), "-z -w");
        assert_eq!(plan(1, "z d ready=9"), "-w", "an agent that brings its node down is mended");
        assert_eq!(plan(1, "z d"), "", "one at a time");
        // Without the toleration no new pod would be made there.
        let nodes = nodes.map(|node| match node {
            "d" => node.to_owned(),
            down => format!("{down} taint=node.kubernetes.io/unreachable:NoSchedule"),
        });
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        assert_eq!(steps(rolling(9), &nodes, &[away[0], away[1], away[2], "z d old ready=9"]), "-z");
    }

    /// Nodes that were down before do not hold up the others; one that went down with the new pod does.
    #[test]
    fn a_silent_node_counts_until_it_has_had_its_chance() {
        let plan = |node: &str, pod: &str| {
            let world = tolerant(rolling(1), &[node, "b"], &[pod, "x b old ready=9"]);
            (world.steps(), world.plan().requeue_at.is_some())
        };
        assert_eq!(plan("a down=100", "w a old going=61").0, "-x");
        assert_eq!(plan("a down=100", "w a old going=59"), (String::new(), true));
        assert_eq!(plan("a", "w a old going=61").0, "", "a node that is well ends pods in time");
        assert_eq!(plan("a down=100", "w a age=61").0, "-x");
        assert_eq!(plan("a down=100", "w a age=59"), (String::new(), true));
        assert_eq!(plan("a down=100", "w a age=101").0, "", "the new pod may have brought it down");
    }

    /// What an update put on a node that is down is on its way for the next update too.
    #[test]
    fn the_update_before_counts_on_nodes_that_are_down() {
        let plan = |age: i32| {
            let pod = format!("w a old age={age}");
            tolerant(rolling(1), &["a down=100", "b"], &[&pod, "x b old ready=9"]).steps()
        };
        assert_eq!(plan(59), "");
        assert_eq!(plan(60), "-x");
        assert_eq!(plan(101), "-x", "it was there before");
    }

    #[test]
    fn nodes_that_are_not_wanted_do_not_count() {
        let nodes = ["a", "b", "c taint=gpu:NoExecute"];
        assert_eq!(
            steps(rolling(1), &nodes, &["w a old ready=9", "x b old ready=9", "y c old going=0"]),
            "-w"
        );
    }

    /// The label of the template's generation stands for a hash that an older controller did not know.
    #[test]
    fn pods_of_the_templates_generation_are_current() {
        let mut world = World::new(rolling(1), &["a"], &["w a old ready=9"]);
        assert_eq!(world.steps(), "-w");
        world.pods[0]["metadata"]["labels"]["pod-template-generation"] = "7".into();
        assert_eq!(world.steps(), "-w");
        world.generation = Some(7);
        assert_eq!(world.steps(), "");
    }
}
