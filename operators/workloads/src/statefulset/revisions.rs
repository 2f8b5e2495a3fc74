//! The revision of `spec.template`, the one that is current, and which pods are of which.

use std::sync::Arc;

use trysail_core::{
    Action, Template,
    plan::OwnerReference,
    pod::{CONTROLLER_REVISION_HASH, Pod},
};

use super::{Snapshot, StatefulSetPlanner};
use crate::{
    revision::{Dialect, History, RevisionOwner},
    views::{ControllerRevision, StatefulSet},
};

/// Who the history belongs to.
pub(super) fn owner<'a>(set: &'a StatefulSet, reference: &'a OwnerReference) -> RevisionOwner<'a> {
    RevisionOwner {
        dialect: Dialect::StatefulSet,
        reference,
        meta: &set.meta,
        selector: &set.selector,
        template: &set.template,
        collisions: set.status.collision_count.unwrap_or(0),
    }
}

/// The two revisions that pods may have.
pub(super) struct Revisions<'a> {
    snapshot: &'a Snapshot,
    /// The record of the last complete update; `None` when the current template is the first.
    current: Option<&'a Arc<ControllerRevision>>,
}

impl<'a> Revisions<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let current = snapshot.set.status.current_revision.as_deref();
        let current = current.and_then(|name| snapshot.history.named(name));
        Self { snapshot, current: current.filter(|held| held.template.is_some()) }
    }

    fn history(&self) -> &'a History {
        &self.snapshot.history
    }

    /// The name of the revision of `spec.template`.
    pub(super) fn update(&self) -> &'a str {
        &self.history().update().name
    }

    /// The name of the revision that all pods had when the last update was complete.
    pub(super) fn current(&self) -> &'a str {
        self.current.map_or_else(|| self.update(), |held| &held.meta.key.name)
    }

    /// How often a name was found taken.
    pub(super) fn collisions(&self) -> i32 {
        self.history().update().collisions
    }

    /// Label and template of pods that keep the current revision.
    pub(super) fn to_keep(&self) -> (&'a str, &'a Template) {
        let kept = self.current.and_then(|held| Some((&*held.meta.key.name, held.template.as_ref()?)));
        kept.unwrap_or_else(|| self.to_update())
    }

    /// Label and template of pods of the update revision.
    pub(super) fn to_update(&self) -> (&'a str, &'a Template) {
        let update = self.history().update();
        (&update.label, &update.template)
    }

    /// Made from the current template, under whichever record of it.
    pub(super) fn is_updated(&self, pod: &Pod) -> bool {
        self.history().is_updated(pod)
    }

    /// Made from the current revision.
    pub(super) fn is_current(&self, pod: &Pod) -> bool {
        match self.current {
            Some(held) => self.history().is_of(pod, held),
            None => self.is_updated(pod),
        }
    }

    /// Both made from the same record.
    pub(super) fn are_siblings(one: &Pod, other: &Pod) -> bool {
        one.meta.labels.get(CONTROLLER_REVISION_HASH) == other.meta.labels.get(CONTROLLER_REVISION_HASH)
    }

    /// What has to be written before any pod is made.
    pub(super) fn record(&self, planner: StatefulSetPlanner) -> Vec<Action> {
        let set = &*self.snapshot.set;
        let reference = planner.owner(set);
        self.history().writes(&owner(set, &reference), &set.annotations)
    }

    /// `spec.revisionHistoryLimit`; below zero there is none. What the next status calls current is kept.
    pub(super) fn truncate(&self, current: &str, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Vec<Action> {
        let set = &self.snapshot.set;
        if set.revision_history_limit < 0 || set.meta.is_terminating() {
            return Vec::new();
        }
        let is_current = |held: &ControllerRevision| {
            let name = &*held.meta.key.name;
            name == current || Some(name) == set.status.current_revision.as_deref()
        };
        self.history().truncate(set.revision_history_limit, pods, is_current)
    }
}
