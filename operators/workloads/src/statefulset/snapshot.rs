//! Everything a decision about a StatefulSet may look at. The last read: nothing is looked up later.

use std::{collections::BTreeMap, sync::Arc};

use trysail_core::{
    Key, Symbol, View,
    claim::{Claim, claim},
    plan::Context,
    pod::Pod,
};

use super::{
    BURST, StatefulSetPlanner,
    failing_pods::Failures,
    ordinals::{Range, ordinal_of, pod_name},
    revisions,
    volume_claim_templates::claim_name,
};
use crate::{
    StatusPace, TopologySpread,
    revision::History,
    views::{ControllerRevision, Node, PersistentVolumeClaim, StatefulSet},
};

/// What is remembered between two looks at the same StatefulSet. Lost on restart, harmlessly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// When the status was last written or held back.
    pub status: StatusPace,
    /// Ordinals whose pods fail again and again; see [`super::failing_pods`].
    pub failures: BTreeMap<i32, Failures>,
}

/// The state of the world around one StatefulSet.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The StatefulSet itself.
    pub set: Arc<StatefulSet>,
    /// Pods that it controls, in whatever state, by name.
    pub pods: Vec<Arc<Pod>>,
    /// Pods without a controller that match its selector and have a name of its own, by name.
    pub orphans: Vec<Arc<Pod>>,
    /// Pods on names of missing ordinals that are not its own, by ordinal.
    pub strangers: BTreeMap<i32, Arc<Pod>>,
    /// Ordinals whose pods may be created now.
    pub missing: Vec<i32>,
    /// How pods to come are spread where the template does not say it; `None`: that is left to the scheduler.
    pub spread: Option<TopologySpread>,
    /// The claims of its pods and of those that may be created now, by name.
    pub claims: BTreeMap<Symbol, Arc<PersistentVolumeClaim>>,
    /// The revisions of its template.
    pub history: History,
    /// Time, memory and the last refusal.
    pub context: Context<Memory>,
}

impl Snapshot {
    /// With pods to come that are spread over these nodes, whatever the scheduler knows of their owner; `None`: as
    /// the scheduler does it.
    #[must_use]
    pub fn spread_over<N: View<Node> + ?Sized>(mut self, nodes: Option<&N>) -> Self {
        self.spread = nodes.filter(|_| !self.missing.is_empty()).map(TopologySpread::over);
        self
    }
}

/// Reads the state around `key`; `None` when there is no such object.
pub fn observe<S, P, C, R>(
    planner: StatefulSetPlanner,
    key: &Key,
    context: Context<Memory>,
    (sets, pods, claims, revisions): (&S, &P, &C, &R),
) -> Option<Snapshot>
where
    S: View<StatefulSet> + ?Sized,
    P: View<Pod> + ?Sized,
    C: View<PersistentVolumeClaim> + ?Sized,
    R: View<ControllerRevision> + ?Sized,
{
    let set = sets.get(key)?;
    let named = |name: &str| Key::new(key.namespace.clone(), name);
    let mut own = pods.controlled_by(&set.meta.uid);
    let mut orphans = pods.orphans(&key.namespace);
    orphans.retain(|pod| {
        ordinal_of(&pod.meta.key.name, &key.name).is_some()
            && claim(&set.meta, &set.selector, &pod.meta) == Claim::Adopt
    });
    // Views hand out their own order; decisions must not depend on it.
    own.sort_by(|a, b| a.meta.key.name.cmp(&b.meta.key.name));
    orphans.sort_by(|a, b| a.meta.key.name.cmp(&b.meta.key.name));

    let ordinal = |pod: &Arc<Pod>| ordinal_of(&pod.meta.key.name, &key.name);
    let kept = own.iter().filter(|pod| claim(&set.meta, &set.selector, &pod.meta) != Claim::Release);
    let present: BTreeMap<i32, &Arc<Pod>> =
        kept.chain(&orphans).filter_map(|pod| Some((ordinal(pod)?, pod))).collect();
    let missing = Range::of(&set).iter().filter(|ordinal| !present.contains_key(ordinal)).take(BURST);
    let missing: Vec<i32> = missing.collect();
    let strangers = missing
        .iter()
        .filter_map(|ordinal| Some((*ordinal, pods.get(&named(&pod_name(&key.name, *ordinal)))?)))
        .collect();
    let wanted = present.keys().chain(&missing).flat_map(|ordinal| {
        set.claim_templates.iter().map(|template| claim_name(&template.name, &key.name, *ordinal))
    });
    let claims = wanted
        .filter_map(|name| claims.get(&named(&name)).map(|claim| (Symbol::from(name.as_str()), claim)))
        .collect();

    let reference = planner.owner(&set);
    let history = History::observe(&revisions::owner(&set, &reference), revisions);
    Some(Snapshot { pods: own, orphans, strangers, missing, spread: None, claims, history, context, set })
}
