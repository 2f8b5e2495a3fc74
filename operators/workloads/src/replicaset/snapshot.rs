//! Everything a decision about a ReplicaSet may look at. The last read: nothing is looked up later.

use std::{collections::BTreeMap, sync::Arc};

use trysail_core::{
    Key, Symbol, View,
    claim::{Claim, claim},
    plan::Context,
    pod::Pod,
};

use super::replicas;
use crate::{
    StatusPace, TopologySpread, slots,
    views::{Node, ReplicaSet},
};

/// What is remembered between two looks at the same ReplicaSet. Lost on restart, harmlessly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The furthest slot of any child that was ever seen, so that a deleted pod's name is not used again at
    /// once.
    pub high_slot: Option<u32>,
    /// When the status was last written or held back.
    pub status: StatusPace,
}

/// The state of the world around one ReplicaSet.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The ReplicaSet or ReplicationController itself.
    pub set: Arc<ReplicaSet>,
    /// Pods that it controls, in whatever state, by name.
    pub pods: Vec<Arc<Pod>>,
    /// Active pods without a controller that match its selector, by name.
    pub orphans: Vec<Arc<Pod>>,
    /// How many active pods each node runs for all sets of the same controlling owner. Only filled when pods
    /// have to be chosen for deletion.
    pub node_load: BTreeMap<Symbol, u32>,
    /// Slots whose names are free, in the order of use: as many as pods may be created now.
    pub free_slots: Vec<u32>,
    /// The furthest slot ever seen; see [`Memory::high_slot`].
    pub high_slot: Option<u32>,
    /// How pods to come are spread where the template does not say it; `None`: that is left to the scheduler.
    pub spread: Option<TopologySpread>,
    /// Time, memory and the last refusal.
    pub context: Context<Memory>,
}

impl Snapshot {
    /// With pods to come that are spread over these nodes, whatever the scheduler knows of their owner; `None`: as
    /// the scheduler does it.
    #[must_use]
    pub fn spread_over<N: View<Node> + ?Sized>(mut self, nodes: Option<&N>) -> Self {
        self.spread = nodes.filter(|_| !self.free_slots.is_empty()).map(TopologySpread::over);
        self
    }
}

/// Reads the state around `key`; `None` when there is no such object.
pub fn observe<S, P>(key: &Key, context: Context<Memory>, sets: &S, pods: &P) -> Option<Snapshot>
where
    S: View<ReplicaSet> + ?Sized,
    P: View<Pod> + ?Sized,
{
    let set = sets.get(key)?;
    let mut own = pods.controlled_by(&set.meta.uid);
    let mut orphans = pods.orphans(&key.namespace);
    orphans.retain(|pod| pod.is_active() && claim(&set.meta, &set.selector, &pod.meta) == Claim::Adopt);
    // Views hand out their own order; decisions must not depend on it.
    own.sort_by(|a, b| a.meta.key.name.cmp(&b.meta.key.name));
    orphans.sort_by(|a, b| a.meta.key.name.cmp(&b.meta.key.name));

    let kept = own
        .iter()
        .filter(|pod| pod.is_active() && matches!(claim(&set.meta, &set.selector, &pod.meta), Claim::Keep));
    let active = kept.count() + orphans.len();
    let high_slot = slots::furthest(&set.meta, context.memory.high_slot, &own);
    let free_slots = slots::free(&set.meta, high_slot, replicas::missing(set.replicas, active), |name| {
        pods.get(&Key::new(key.namespace.clone(), name)).is_some()
    });
    let choosing = set.replicas > 0 && replicas::surplus(set.replicas, active) > 0;
    let node_load = if choosing { node_load(&set, &own, sets, pods) } else { BTreeMap::new() };
    Some(Snapshot { set, pods: own, orphans, node_load, free_slots, high_slot, spread: None, context })
}

fn node_load<S, P>(set: &ReplicaSet, own: &[Arc<Pod>], sets: &S, pods: &P) -> BTreeMap<Symbol, u32>
where
    S: View<ReplicaSet> + ?Sized,
    P: View<Pod> + ?Sized,
{
    let mut load = BTreeMap::new();
    let mut count = |pods: &[Arc<Pod>]| {
        for pod in pods.iter().filter(|pod| pod.is_active() && !pod.node.is_empty()) {
            *load.entry(pod.node.clone()).or_insert(0) += 1;
        }
    };
    count(own);
    let siblings = set.meta.controller.as_ref().map(|owner| sets.controlled_by(owner)).unwrap_or_default();
    for sibling in siblings.iter().filter(|sibling| sibling.meta.uid != set.meta.uid) {
        count(&pods.controlled_by(&sibling.meta.uid));
    }
    load
}
