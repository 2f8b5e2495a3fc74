//! The nodes, what the template has to do with each, and the pods that count there.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use trysail_core::{Symbol, pod::Pod};

use super::{
    Memory, Snapshot,
    claim::is_ours,
    placement::{self, Known, Verdict},
};
use crate::{
    revision::History,
    views::{DaemonSet, Node},
};

/// One node.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) node: &'a Node,
    pub(super) verdict: Verdict,
    /// Pods of ours, the oldest first. What is finished and being deleted is nobody's business here any more.
    pub(super) pods: Vec<&'a Arc<Pod>>,
    /// Where the next pod's name comes from.
    pub(super) free_slot: Option<u32>,
}

/// All nodes in view, by name.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    pub(super) places: Vec<Place<'a>>,
    /// How many pods there should be, if every node that a pod belongs on had one.
    pub(super) desired: i32,
}

/// What an update measures pods by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) history: &'a History,
    pub(super) now: Timestamp,
}

/// The label that carried the template's generation before there were revisions.
pub(super) const TEMPLATE_GENERATION: &str = "pod-template-generation";

impl Measure<'_> {
    /// Made from the current template.
    pub(super) fn is_current(&self, pod: &Pod) -> bool {
        let labels = &pod.meta.labels;
        let of_generation = |generation: i64| {
            labels.get(TEMPLATE_GENERATION).is_some_and(|label| label.parse() == Ok(generation))
        };
        self.history.is_updated(pod) || self.set.template_generation.is_some_and(of_generation)
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        pod.is_available(self.set.min_ready_seconds, self.now)
    }
}

impl<'a> Place<'a> {
    /// Pods that are not being deleted.
    pub(super) fn living(&self) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.pods.iter().copied().filter(|pod| !pod.meta.is_terminating())
    }

    pub(super) fn name(&self) -> &'a str {
        &self.node.meta.key.name
    }
}

/// Looks at every node; the verdicts go into `memory`.
pub(super) fn survey<'a>(snapshot: &'a Snapshot, memory: &mut Memory) -> Fleet<'a> {
    let set = &snapshot.set;
    if *memory.placement != set.placement {
        memory.placement = Arc::new(set.placement.clone());
        // No node has facts of zero: every one is judged anew.
        let forget = |known: &Known| Known { facts: 0, ..*known };
        memory.nodes =
            Arc::new(memory.nodes.iter().map(|(node, known)| (node.clone(), forget(known))).collect());
    }
    let mut news: Vec<(Symbol, Known)> = Vec::new();
    let mut met = 0;
    let mut places = Vec::with_capacity(snapshot.spots.len());
    for spot in &snapshot.spots {
        let node = &*spot.node;
        let name = &*node.meta.key.name;
        let known = memory.nodes.get(name);
        met += usize::from(known.is_some());
        let verdict = match known {
            Some(known) if known.facts == node.facts => known.verdict,
            _ => placement::judge(&set.placement, node),
        };
        let now = Known { facts: node.facts, verdict, next_attempt: spot.next_attempt };
        if known != Some(&now) {
            news.push((Symbol::from(name), now));
        }
        let counts = |pod: &&Arc<Pod>| is_ours(set, pod) && !(pod.is_terminal() && pod.meta.is_terminating());
        let pods = spot.pods.iter().filter(counts).collect();
        places.push(Place { node, verdict, pods, free_slot: spot.free_slot });
    }
    let gone = if met < memory.nodes.len() { forgettable(snapshot, &memory.nodes) } else { Vec::new() };
    if !news.is_empty() || !gone.is_empty() {
        let nodes = Arc::make_mut(&mut memory.nodes);
        for node in &gone {
            nodes.remove(node);
        }
        nodes.extend(news);
    }
    let desired = places.iter().filter(|place| place.verdict == Verdict::Run).count() as i32;
    Fleet { places, desired }
}

/// Nodes that went and that nothing is meant for any more.
fn forgettable(snapshot: &Snapshot, known: &BTreeMap<Symbol, Known>) -> Vec<Symbol> {
    let spots = &snapshot.spots;
    let is_there = |name: &str| spots.binary_search_by(|spot| (*spot.node.meta.key.name).cmp(name)).is_ok();
    let is_target = |name: &str| {
        snapshot.strays.iter().any(|pod| placement::target(pod).is_some_and(|target| *target == *name))
    };
    known.keys().filter(|name| !is_there(name) && !is_target(name)).cloned().collect()
}
