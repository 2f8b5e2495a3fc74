//! Everything a decision about a DaemonSet may look at. The last read: nothing is looked up later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trysail_core::{
    Key, Symbol, Uid, View,
    claim::{Claim, claim},
    plan::Context,
    pod::Pod,
};

use super::{
    DaemonSetPlanner,
    claim::is_ours,
    failed_pods::Failing,
    history, max_surge,
    placement::{self, Known},
    slots,
};
use crate::{
    StatusPace,
    revision::History,
    views::{ControllerRevision, DaemonSet, Node, Placement},
};

/// What is remembered between two looks at the same DaemonSet. Lost on restart, harmlessly.
///
/// The maps are shared between the memory and the plan that leaves it as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// When the status was last written or held back.
    pub status: StatusPace,
    /// What the verdicts in `nodes` were reached by.
    pub(super) placement: Arc<Placement>,
    /// Nodes and what was found about them.
    pub(super) nodes: Arc<BTreeMap<Symbol, Known>>,
    /// Nodes whose pods fail.
    pub(super) failing: Arc<BTreeMap<Symbol, Failing>>,
    /// Pods that no scheduler can bind and that were told of.
    pub(super) unplaceable: Arc<BTreeSet<Uid>>,
    /// The generation whose mistake was told of.
    pub(super) told_generation: Option<i64>,
}

/// A node and the pods that are on it or meant for it.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The node.
    pub node: Arc<Node>,
    /// Pods, in whatever state, the oldest first: of two, the one that is bound is older.
    pub pods: Vec<Arc<Pod>>,
    /// The attempt that the next pod's name is made from.
    pub next_attempt: u32,
    /// The slot whose name the next pod gets; `None` where none can be needed now.
    pub free_slot: Option<u32>,
}

/// The state of the world around one DaemonSet.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The DaemonSet itself.
    pub set: Arc<DaemonSet>,
    /// All nodes, by name, with the pods that it controls or could adopt.
    pub spots: Vec<Spot>,
    /// Its pods that are on no node in view.
    pub strays: Vec<Arc<Pod>>,
    /// The history of its template.
    pub history: History,
    /// Time, memory and the last refusal.
    pub context: Context<Memory>,
}

/// Reads the state around `key`; `None` when there is no such object.
pub fn observe<D, P, N, R>(
    planner: DaemonSetPlanner,
    key: &Key,
    context: Context<Memory>,
    sets: &D,
    pods: &P,
    nodes: &N,
    revisions: &R,
) -> Option<Snapshot>
where
    D: View<DaemonSet> + ?Sized,
    P: View<Pod> + ?Sized,
    N: View<Node> + ?Sized,
    R: View<ControllerRevision> + ?Sized,
{
    let set = sets.get(key)?;
    let mut own = pods.controlled_by(&set.meta.uid);
    let orphans = pods.orphans(&key.namespace);
    own.extend(orphans.into_iter().filter(|pod| claim(&set.meta, &set.selector, &pod.meta) == Claim::Adopt));
    let mut nodes = nodes.in_namespace("");
    // Views hand out their own order; decisions must not depend on it.
    nodes.sort_by(|a, b| a.meta.key.name.cmp(&b.meta.key.name));

    let mut by_node: BTreeMap<Symbol, Vec<Arc<Pod>>> = BTreeMap::new();
    let mut strays = Vec::new();
    for pod in own {
        match placement::target(&pod).cloned() {
            Some(node) => by_node.entry(node).or_default().push(pod),
            None => strays.push(pod),
        }
    }
    let mut drawn = BTreeSet::new();
    let mut spot = |node: Arc<Node>, mut here: Vec<Arc<Pod>>| {
        here.sort_by(|a, b| age(a).cmp(&age(b)));
        let name = &*node.meta.key.name;
        let remembered = context.memory.nodes.get(name).map_or(0, |known| known.next_attempt);
        let next_attempt = slots::next_attempt(&set.meta, name, remembered, &here);
        let free_slot = if may_need_another(&set, &here) {
            slots::free(&set.meta, name, next_attempt, &mut drawn, |name| {
                pods.get(&Key::new(key.namespace.clone(), name)).is_some()
            })
        } else {
            None
        };
        Spot { node, pods: here, next_attempt, free_slot }
    };
    let spots = nodes
        .into_iter()
        .map(|node| {
            let here = by_node.remove(&*node.meta.key.name).unwrap_or_default();
            spot(node, here)
        })
        .collect();
    strays.extend(by_node.into_values().flatten());
    strays.sort_by(|a, b| a.meta.key.name.cmp(&b.meta.key.name));

    let history = history::observe(planner, &set, revisions);
    Some(Snapshot { set, spots, strays, history, context })
}

/// Upstream's order: bound pods first, then by creation, then by name.
fn age(pod: &Pod) -> (bool, jiff::Timestamp, &str) {
    (pod.node.is_empty(), pod.meta.created, &pod.meta.key.name)
}

/// Names cost a look-up each: they are only drawn where a pod is missing, or might be set beside an old one.
fn may_need_another(set: &DaemonSet, here: &[Arc<Pod>]) -> bool {
    match here.iter().filter(|pod| !pod.meta.is_terminating() && is_ours(set, pod)).count() {
        0 => true,
        1 => max_surge::allows_surge(set),
        _ => false,
    }
}
