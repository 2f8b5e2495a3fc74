//! Pods that no scheduler can bind: a port of the node that is taken, say, or too little memory. They stay as they
//! are and are told of once; the others do not wait for them.

use std::{collections::BTreeSet, sync::Arc};

use trysail_core::{
    Uid,
    plan::EventNote,
    pod::{Phase, Pod},
};

use super::{
    Memory,
    fleet::{Fleet, Place},
    placement,
};

/// Such pods, as one sentence, and whether there are new ones among them.
pub(super) fn report(fleet: &Fleet<'_>, memory: &mut Memory) -> (Option<String>, Option<EventNote>) {
    let pods: Vec<&Arc<Pod>> =
        fleet.places.iter().flat_map(Place::living).filter(|pod| reason(pod).is_some()).collect();
    let now: BTreeSet<Uid> = pods.iter().map(|pod| pod.meta.uid.clone()).collect();
    let is_news = !now.is_subset(&memory.unplaceable);
    if now != *memory.unplaceable {
        memory.unplaceable = Arc::new(now);
    }
    let Some(first) = pods.first() else { return (None, None) };
    let node = placement::target(first).map_or("", |node| node.as_str());
    let others = match pods.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let because = reason(first).unwrap_or_default();
    let message = format!("Pod {} cannot be placed on node {node}: {because}{others}", first.meta.key.name);
    let event = is_news.then(|| EventNote::warning("FailedPlacement", message.clone()));
    (Some(message), event)
}

/// The scheduler's words.
fn reason(pod: &Pod) -> Option<&str> {
    if !pod.node.is_empty() || pod.phase != Phase::Pending {
        return None;
    }
    let condition = pod.details.as_ref()?.condition("PodScheduled")?;
    (condition.status == *"False" && condition.reason == *"Unschedulable").then_some(&*condition.message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{World, pod};

    /// A port of the node that is taken, say: the pod stays, is told of once, and the rest is unaffected.
    #[test]
    fn a_pod_that_cannot_be_bound_is_told_of_once_and_holds_up_nobody() {
        let mut world = World::new(json!({}), &["a", "b", "c"], &["x a stuck", "y b ready=9"]);
        assert_eq!(world.steps(), "+c");
        let events = |world: &World| -> Vec<String> {
            world
                .plan()
                .events
                .into_iter()
                .map(|event| format!("{}: {}", event.reason, event.message))
                .collect()
        };
        let told = "FailedPlacement: Pod x cannot be placed on node a: no free ports";
        assert_eq!(events(&world), [told]);
        world.later(1);
        assert!(events(&world).is_empty());
        assert!(world.plan().to_string().contains("waiting on you: Pod x cannot be placed"));
        world.pods.push(pod("z c stuck"));
        assert_eq!(events(&world), [format!("{told} (and 1 more)")]);
        world.later(1);
        world.pods.remove(0);
        world.later(1);
        world.pods.insert(0, pod("x a stuck"));
        assert_eq!(events(&world).len(), 1, "once it was bound it is news again");
    }
}
