//! Which records are an owner's, which of them is its current template's, and which pods were made from which.

use std::{collections::BTreeSet, sync::Arc};

use trysail_core::{
    Key, Meta, Selector, Template, View,
    claim::{Claim, claim},
    plan::OwnerReference,
    pod::{CONTROLLER_REVISION_HASH, Pod},
};

use super::{data, name};
use crate::views::ControllerRevision;

/// In what the two kinds differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Pods are labelled with the record's name; the limit counts records that no pod uses.
    StatefulSet,
    /// Pods are labelled with the record's own hash label; the limit counts all records but the current one.
    DaemonSet,
}

/// Whose history it is.
#[derive(Clone, Debug)]
pub struct RevisionOwner<'a> {
    /// Its kind.
    pub dialect: Dialect,
    /// Itself, as an owner.
    pub reference: &'a OwnerReference,
    /// Its metadata.
    pub meta: &'a Meta,
    /// `spec.selector`.
    pub selector: &'a Selector,
    /// `spec.template`.
    pub template: &'a Template,
    /// `status.collisionCount`.
    pub collisions: i32,
}

/// The records of one owner, as they are once [`History::writes`] are done.
#[derive(Clone, Debug)]
pub struct History {
    pub(super) dialect: Dialect,
    /// Ours, the earliest first; those to be adopted included.
    revisions: Vec<Arc<ControllerRevision>>,
    /// Those of them that are to be adopted.
    pub(super) orphans: Vec<Arc<ControllerRevision>>,
    /// Those that no longer match.
    pub(super) strays: Vec<Arc<ControllerRevision>>,
    update: Update,
}

/// The revision of the current template.
#[derive(Clone, Debug)]
pub struct Update {
    /// `metadata.name` of its record.
    pub name: String,
    /// What its pods carry in `controller-revision-hash`.
    pub label: String,
    /// Its number, after [`History::writes`].
    pub revision: i64,
    /// `status.collisionCount` as it should be: larger than it was when names were found taken.
    pub collisions: i32,
    /// The template to make its pods of: the owner's own.
    pub template: Template,
    /// Its record; `None` when it is still to be made.
    pub stored: Option<Arc<ControllerRevision>>,
    /// The data of a record that is still to be made; empty otherwise.
    pub(super) data: String,
    /// The labels of all stored revisions that are equal to it: their pods need no update.
    equal_labels: BTreeSet<String>,
}

impl History {
    /// Reads the history.
    pub fn observe<V: View<ControllerRevision> + ?Sized>(owner: &RevisionOwner<'_>, view: &V) -> Self {
        let namespace = &owner.meta.key.namespace;
        let candidates = [view.controlled_by(&owner.meta.uid), view.orphans(namespace)].concat();
        Self::of(owner, &candidates, |name| view.get(&Key::new(namespace.clone(), name)).is_some())
    }

    /// The history among `candidates`. `is_taken` says whether a record of that name exists, whoever has it.
    pub fn of(
        owner: &RevisionOwner<'_>,
        candidates: &[Arc<ControllerRevision>],
        is_taken: impl Fn(&str) -> bool,
    ) -> Self {
        let (mut revisions, mut orphans, mut strays) = (Vec::new(), Vec::new(), Vec::new());
        for candidate in candidates {
            match claim(owner.meta, owner.selector, &candidate.meta) {
                Claim::Keep => revisions.push(Arc::clone(candidate)),
                Claim::Adopt => {
                    orphans.push(Arc::clone(candidate));
                    revisions.push(Arc::clone(candidate));
                }
                Claim::Release => strays.push(Arc::clone(candidate)),
                Claim::Ignore => {}
            }
        }
        // What is going is neither the current revision nor a template to go back to, but its number counts.
        let latest = revisions.iter().map(|held| held.revision).max().unwrap_or(0);
        revisions.retain(|held| !held.meta.is_terminating());
        for list in [&mut revisions, &mut orphans, &mut strays] {
            list.sort_by(|a, b| place(a).cmp(&place(b)));
        }
        let update = Update::of(owner, &revisions, latest, is_taken);
        Self { dialect: owner.dialect, revisions, orphans, strays, update }
    }

    /// The revision of the current template.
    pub fn update(&self) -> &Update {
        &self.update
    }

    /// All records, the earliest first.
    pub fn revisions(&self) -> &[Arc<ControllerRevision>] {
        &self.revisions
    }

    /// The record of that name, `status.currentRevision` say.
    pub fn named(&self, name: &str) -> Option<&Arc<ControllerRevision>> {
        self.revisions.iter().find(|held| &*held.meta.key.name == name)
    }

    /// The record that a pod was made from; `None` when it is gone or not made yet.
    pub fn of_pod(&self, pod: &Pod) -> Option<&Arc<ControllerRevision>> {
        let label = pod.meta.labels.get(CONTROLLER_REVISION_HASH)?;
        self.revisions.iter().rev().find(|held| self.dialect.label_of(held) == label)
    }

    /// The pod was made from the current template, under whichever record of it.
    pub fn is_updated(&self, pod: &Pod) -> bool {
        pod.meta.labels.get(CONTROLLER_REVISION_HASH).is_some_and(|label| self.update.is_label(label))
    }

    /// The pod was made from `revision` or one that is equal.
    pub fn is_of(&self, pod: &Pod, revision: &ControllerRevision) -> bool {
        let Some(label) = pod.meta.labels.get(CONTROLLER_REVISION_HASH) else { return false };
        label == self.dialect.label_of(revision)
            || self
                .of_pod(pod)
                .is_some_and(|held| held.template.is_some() && held.template == revision.template)
    }

    /// What pods made from `revision` carry in `controller-revision-hash`.
    pub fn label_of<'r>(&self, revision: &'r ControllerRevision) -> &'r str {
        self.dialect.label_of(revision)
    }

    /// `revision` records the current template.
    pub fn is_update(&self, revision: &ControllerRevision) -> bool {
        self.update.is_label(self.dialect.label_of(revision))
    }
}

impl Update {
    fn of(
        owner: &RevisionOwner<'_>,
        revisions: &[Arc<ControllerRevision>],
        latest: i64,
        is_taken: impl Fn(&str) -> bool,
    ) -> Self {
        let equal: Vec<_> =
            revisions.iter().filter(|held| held.template.as_ref() == Some(owner.template)).collect();
        // An earlier template that is wanted again becomes the latest. Numbers end where i64 does.
        let next = latest.saturating_add(1);
        let Some(stored) = equal.last() else { return Self::fresh(owner, next, is_taken) };
        let labels = equal.iter().map(|held| owner.dialect.label_of(held).to_owned());
        Self {
            name: stored.meta.key.name.to_string(),
            label: owner.dialect.label_of(stored).to_owned(),
            revision: if stored.revision == latest { latest } else { next },
            collisions: owner.collisions,
            template: owner.template.clone(),
            stored: Some(Arc::clone(stored)),
            data: String::new(),
            equal_labels: labels.collect(),
        }
    }

    /// A revision that is still to be recorded, under the first name that nobody has taken.
    fn fresh(owner: &RevisionOwner<'_>, revision: i64, is_taken: impl Fn(&str) -> bool) -> Self {
        let data = data::of(owner.dialect, owner.template);
        let mut collisions = owner.collisions;
        let (hash, name) = loop {
            let hash = name::hash(&data, collisions);
            let name = name::of(&owner.meta.key.name, &hash);
            if !is_taken(&name) {
                break (hash, name);
            }
            collisions = collisions.wrapping_add(1);
        };
        let label = match owner.dialect {
            Dialect::StatefulSet => name.clone(),
            Dialect::DaemonSet => hash,
        };
        Self {
            name,
            label,
            revision,
            collisions,
            template: owner.template.clone(),
            stored: None,
            data,
            equal_labels: BTreeSet::new(),
        }
    }

    /// The number of the stored record is not the highest one.
    pub(super) fn is_to_be_renumbered(&self) -> Option<&Arc<ControllerRevision>> {
        self.stored.as_ref().filter(|stored| stored.revision != self.revision)
    }

    fn is_label(&self, label: &str) -> bool {
        self.label == label || self.equal_labels.contains(label)
    }
}

impl Dialect {
    fn label_of(self, revision: &ControllerRevision) -> &str {
        let name = &*revision.meta.key.name;
        match self {
            Dialect::StatefulSet => name,
            // Records from before Kubernetes 1.8 have no label; upstream falls back on the name.
            Dialect::DaemonSet => revision.meta.labels.get(CONTROLLER_REVISION_HASH).unwrap_or(name),
        }
    }
}

/// Upstream's order: number, age, name.
fn place(revision: &ControllerRevision) -> (i64, jiff::Timestamp, &str) {
    (revision.revision, revision.meta.created, &revision.meta.key.name)
}
