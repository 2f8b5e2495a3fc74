//! The ReplicaSet of the current template: how it is found, named, made and kept up to date.
//!
//! It is found by its template, the hash label aside, so that what another controller made is taken over. A
//! server or webhook may have stored another template than we sent; then the set is found by the hash of what
//! was sent, but only as long as its template stays as it was first admitted: an edited one is not ours.

use std::{borrow::Borrow, collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use trysail_core::{
    Action, Json, Key,
    names::hashed_name,
    plan::{EventNote, OwnerReference, Target, Verb},
    template::POD_TEMPLATE_HASH,
};

use super::{
    DeploymentPlanner,
    annotations::{self, ADMITTED_TEMPLATE, DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY},
    edits::Edits,
    fleet::Fleet,
};
use crate::views::{Deployment, ReplicaSet};

/// The reason of the action that creates a ReplicaSet.
pub(super) const CREATE: &str = "CreateReplicaSet";

/// Upstream's bound for the list of earlier revisions, in characters.
const MAX_HISTORY_LENGTH: usize = 2000;

/// What a new ReplicaSet is to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `metadata.name`.
    pub name: String,
    /// The value of the hash label.
    pub hash: String,
    /// How often a name was found taken, earlier templates included.
    pub collisions: i32,
}

/// The ReplicaSet of the current template among `sets`; the oldest, should there be several.
pub(super) fn find<'s, S: Borrow<Arc<ReplicaSet>>>(deployment: &Deployment, sets: &'s [S]) -> Option<&'s S> {
    let equal = sets.iter().find(|set| {
        let set: &Arc<ReplicaSet> = (*set).borrow();
        set.template.same_pods(&deployment.template)
    });
    if equal.is_some() || sets.is_empty() {
        return equal;
    }
    let hash = deployment.template.hash(deployment.status.collision_count.unwrap_or(0));
    sets.iter().find(|set| was_made_with(&hash, (*set).borrow()))
}

/// True for a set that we made for the template of that hash and the server stored differently.
fn was_made_with(hash: &str, set: &ReplicaSet) -> bool {
    set.template.labels.get(POD_TEMPLATE_HASH) == Some(hash)
        && match set.annotations.get(ADMITTED_TEMPLATE) {
            Some(admitted) => admitted == set.template.hash(0),
            // Nobody has touched its spec since it was created.
            None => set.meta.generation == 1,
        }
}

/// The first name for the current template that nobody has taken.
pub(super) fn name(deployment: &Deployment, is_taken: impl Fn(&str) -> bool) -> Name {
    let mut collisions = deployment.status.collision_count.unwrap_or(0);
    loop {
        let hash = deployment.template.hash(collisions);
        let name = hashed_name(&deployment.meta.key.name, &hash);
        if !is_taken(&name) {
            return Name { name, hash, collisions };
        }
        collisions = collisions.saturating_add(1);
    }
}

/// True when the set that would be made is one that the Deployment may keep: a selector that asks something of
/// the hash label itself would let each go as soon as it is there, and make the next.
pub(super) fn would_be_kept(deployment: &Deployment, name: &Name) -> bool {
    deployment.selector.matches(&deployment.template.labels.with(POD_TEMPLATE_HASH, &name.hash))
}

/// The action that makes it, `size` pods strong.
pub(super) fn create(planner: DeploymentPlanner, fleet: &Fleet<'_>, name: &Name, size: i32) -> Action {
    let deployment = fleet.deployment;
    let Name { name, hash, .. } = name;
    let template = deployment.template.with_label(POD_TEMPLATE_HASH, hash);
    let owner = OwnerReference {
        resource: planner.resource,
        key: deployment.meta.key.clone(),
        uid: deployment.meta.uid.clone(),
    };
    let metadata = json!({
        "name": name,
        "namespace": deployment.meta.key.namespace,
        "labels": template.labels,
        "annotations": annotations_of_new(fleet),
        "ownerReferences": [owner.to_value()],
    });
    let body = Json::Object(vec![
        ("apiVersion", Value::from(planner.sets.api_version()).into()),
        ("kind", Value::from(planner.sets.kind).into()),
        ("metadata", metadata.into()),
        (
            "spec",
            Json::Object(vec![
                ("replicas", Value::from(size).into()),
                ("minReadySeconds", Value::from(deployment.min_ready_seconds).into()),
                ("selector", json!(deployment.selector.with(POD_TEMPLATE_HASH, hash)).into()),
                ("template", template.to_json()),
            ]),
        ),
    ]);
    let grown =
        || EventNote::normal("ScalingReplicaSet", format!("Scaled up replica set {name} from 0 to {size}"));
    Action {
        target: Target {
            resource: planner.sets,
            key: Key::new(deployment.meta.key.namespace.clone(), name.as_str()),
            uid: None,
            resource_version: 0,
        },
        verb: Verb::Create { controller: Some(deployment.meta.uid.clone()), body },
        reason: CREATE,
        because: format!("a new template; {size} of {} pods", deployment.replicas),
        on_success: (size > 0).then(grown),
        on_failure: Some(EventNote::warning(
            "ReplicaSetCreateError",
            format!("Failed to create new replica set \"{name}\""),
        )),
    }
}

fn annotations_of_new(fleet: &Fleet<'_>) -> BTreeMap<String, String> {
    let copied = fleet.deployment.annotations.iter().filter(|(key, _)| !annotations::is_own(key));
    let mut all: BTreeMap<String, String> = copied.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    all.insert(REVISION.to_owned(), next_revision(fleet).to_string());
    all.insert(DESIRED_REPLICAS.to_owned(), fleet.bounds.replicas.to_string());
    all.insert(MAX_REPLICAS.to_owned(), fleet.bounds.max_replicas_annotation().to_string());
    all
}

/// One more than the highest revision among the old sets.
fn next_revision(fleet: &Fleet<'_>) -> i64 {
    let highest = fleet.old.iter().filter_map(|set| annotations::revision(&set.annotations)).max();
    highest.unwrap_or(0).max(0).saturating_add(1)
}

/// The revision that the Deployment is at once the plan is carried out; `None` while it has no ReplicaSet.
pub(super) fn current_revision(fleet: &Fleet<'_>, is_creating: bool) -> Option<String> {
    let next = next_revision(fleet);
    match fleet.new.map(|new| new.annotations.get(REVISION)) {
        None => is_creating.then(|| next.to_string()),
        Some(None) => Some(next.to_string()),
        Some(Some(held)) => match held.parse::<i64>() {
            Ok(revision) => Some(revision.max(next).to_string()),
            Err(_) => Some(held.to_owned()),
        },
    }
}

/// Brings an existing one up to date: annotations of the Deployment, revision, `minReadySeconds`.
pub(super) fn sync<'a>(fleet: &Fleet<'a>, edits: &mut Edits<'a>) {
    let Some(new) = fleet.new else { return };
    for (key, value) in fleet.deployment.annotations.iter().filter(|(key, _)| !annotations::is_own(key)) {
        edits.annotate(new, key, value.to_owned());
    }
    edits.min_ready_seconds(new, fleet.deployment.min_ready_seconds);
    if !new.template.same_pods(&fleet.deployment.template) {
        edits.annotate(new, ADMITTED_TEMPLATE, new.template.hash(0));
    }
    let held = new.annotations.get(REVISION);
    let revision = current_revision(fleet, false);
    if let (Some(revision), true) = (revision, held.is_none_or(|held| held.parse::<i64>().is_ok())) {
        if let Some(held) = held.filter(|held| *held != revision) {
            edits.annotate(new, REVISION_HISTORY, history(new, held));
        }
        edits.annotate(new, REVISION, revision);
    }
}

/// The list of earlier revisions with one more, the oldest dropped where it grows too long.
fn history(set: &ReplicaSet, superseded: &str) -> String {
    let held = set.annotations.get(REVISION_HISTORY).unwrap_or_default();
    let mut revisions: Vec<&str> = held.split(',').filter(|revision| !revision.is_empty()).collect();
    revisions.push(superseded);
    let mut length = revisions.iter().map(|revision| revision.len() + 1).sum::<usize>() - 1;
    let mut dropped = 0;
    while length > MAX_HISTORY_LENGTH && dropped + 1 < revisions.len() {
        length -= revisions[dropped].len() + 1;
        dropped += 1;
    }
    revisions[dropped..].join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_with_history(history: &str) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web-x", "annotations": {REVISION_HISTORY: history}},
            "spec": {"template": {}},
        }))
        .unwrap()
    }

    #[test]
    fn the_history_grows_at_its_end_and_is_cut_at_its_front() {
        assert_eq!(history(&set_with_history(""), "1"), "1");
        assert_eq!(history(&set_with_history("1,3"), "5"), "1,3,5");
        let long = (1000..1400).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(long.len(), 1999);
        let longer = history(&set_with_history(&long), "7");
        assert_eq!(longer.len(), 1996);
        assert!(longer.starts_with("1001,") && longer.ends_with(",1399,7"), "{longer}");
    }
}
