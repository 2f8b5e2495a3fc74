//! `spec.selector`: which pods are ours, and which of them should be.
//!
//! Terminating and finished pods count: as long as a pod is in the API, its ordinal is taken.

use std::{collections::BTreeMap, sync::Arc};

use trysail_core::{
    Action,
    claim::{Claim, claim},
    pod::Pod,
};

use super::{
    Snapshot, StatefulSetPlanner,
    ordinals::{Range, ordinal_of},
};
use crate::pod_control;

/// The pods of a set by ordinal.
pub(super) struct Fleet<'a> {
    /// The ordinals there should be.
    pub(super) range: Range,
    /// Pods within it.
    pub(super) members: BTreeMap<i32, &'a Arc<Pod>>,
    /// Pods outside.
    pub(super) condemned: BTreeMap<i32, &'a Arc<Pod>>,
    /// Adoptions and releases.
    pub(super) actions: Vec<Action>,
}

impl<'a> Fleet<'a> {
    /// All of them, by ordinal.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.members.values().chain(self.condemned.values()).copied()
    }

    /// Ordinals without a pod, ascending.
    pub(super) fn missing(&self) -> impl Iterator<Item = i32> {
        self.range.iter().filter(|ordinal| !self.members.contains_key(ordinal))
    }
}

pub(super) fn fleet(planner: StatefulSetPlanner, snapshot: &Snapshot) -> Fleet<'_> {
    let set = &snapshot.set;
    let range = Range::of(set);
    let mut fleet =
        Fleet { range, members: BTreeMap::new(), condemned: BTreeMap::new(), actions: Vec::new() };
    for pod in snapshot.pods.iter().chain(&snapshot.orphans) {
        let ordinal = ordinal_of(&pod.meta.key.name, &set.meta.key.name);
        let verdict = match (claim(&set.meta, &set.selector, &pod.meta), ordinal) {
            // Ours by reference, but under a name that no ordinal has.
            (Claim::Keep, None) if set.meta.is_terminating() => Claim::Ignore,
            (Claim::Keep, None) => Claim::Release,
            (verdict, _) => verdict,
        };
        match verdict {
            Claim::Keep | Claim::Adopt => {}
            Claim::Release => {
                fleet.actions.push(pod_control::release(pod, &planner.owner(set)));
                continue;
            }
            Claim::Ignore => continue,
        }
        if verdict == Claim::Adopt {
            fleet.actions.push(pod_control::adopt(pod, planner.owner(set)));
        }
        if let Some(ordinal) = ordinal {
            let pods = if range.contains(ordinal) { &mut fleet.members } else { &mut fleet.condemned };
            pods.insert(ordinal, pod);
        }
    }
    fleet
}
