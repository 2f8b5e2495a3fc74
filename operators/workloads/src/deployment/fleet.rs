//! The ReplicaSets of a Deployment: the one of the current template, and the old ones.

use std::sync::Arc;

use super::{new_replica_set, strategy::Bounds};
use crate::views::{Deployment, ReplicaSet};

/// All ReplicaSets that are ours.
pub(super) struct Fleet<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) bounds: Bounds,
    /// The one of the current template.
    pub(super) new: Option<&'a Arc<ReplicaSet>>,
    /// The others, oldest first.
    pub(super) old: Vec<&'a Arc<ReplicaSet>>,
}

impl<'a> Fleet<'a> {
    pub(super) fn new(deployment: &'a Deployment, sets: &[&'a Arc<ReplicaSet>]) -> Self {
        let new = new_replica_set::find(deployment, sets).copied();
        let old = sets.iter().copied().filter(|set| new.is_none_or(|new| new.meta.uid != set.meta.uid));
        Self { deployment, bounds: Bounds::of(deployment), new, old: old.collect() }
    }

    /// Every ReplicaSet, the old ones first.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a Arc<ReplicaSet>> {
        self.old.iter().copied().chain(self.new)
    }

    /// Those that are meant to have pods.
    pub(super) fn active(&self) -> impl Iterator<Item = &'a Arc<ReplicaSet>> {
        self.all().filter(|set| set.replicas > 0)
    }

    /// The sum of `spec.replicas`.
    pub(super) fn size(&self) -> i64 {
        self.all().map(|set| i64::from(set.replicas)).sum()
    }

    /// How many active pods there may be at most: a ReplicaSet that has not finished scaling down still has
    /// more than its spec says. Only meaningful once all are [settled](Self::unsettled).
    pub(super) fn footprint(&self) -> i64 {
        self.all().map(|set| i64::from(set.replicas.max(set.status.replicas.unwrap_or(0)))).sum()
    }

    /// Available pods that the fleet will still have when every ReplicaSet has acted on its size.
    pub(super) fn available(&self) -> i64 {
        self.all().map(|set| i64::from(available(set))).sum()
    }

    /// A ReplicaSet whose controller has not seen its last size yet, so that nobody knows how many pods it is
    /// making. Nothing may grow until it has: that is what keeps a rollout from ever overshooting.
    pub(super) fn unsettled(&self) -> Option<&'a Arc<ReplicaSet>> {
        self.all().find(|set| !set.is_observed())
    }
}

/// Available pods of one ReplicaSet, not counting those that its size condemns.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.available_replicas.unwrap_or(0).min(set.replicas)
}
