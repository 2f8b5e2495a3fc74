//! A request, by annotation, to go back to an earlier revision. It is answered once and cleared, whatever the
//! answer.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use trysail_core::{
    Action,
    plan::{EventNote, Target, Verb},
};

use super::{
    DeploymentPlanner,
    annotations::{self, ROLLBACK_TO},
    fleet::Fleet,
    merge_patch,
};
use crate::views::{Deployment, ReplicaSet};

/// The revision asked for; 0 means the one before the current.
pub(super) fn requested(deployment: &Deployment) -> Option<i64> {
    deployment.annotations.get(ROLLBACK_TO)?.parse().ok()
}

/// The write that answers the request.
pub(super) fn answer(planner: DeploymentPlanner, fleet: &Fleet<'_>, requested: i64) -> Action {
    let revision = if requested == 0 { last_revision(fleet) } else { Some(requested) };
    let warn = |reason, message: &str| (Map::new(), EventNote::warning(reason, message));
    let (patch, note) = match revision {
        None => warn("DeploymentRollbackRevisionNotFound", "Unable to find last revision."),
        Some(revision) => {
            match fleet.all().find(|set| annotations::revision(&set.annotations) == Some(revision)) {
                None => {
                    let message = "Unable to find the revision to rollback to.";
                    warn("DeploymentRollbackRevisionNotFound", message)
                }
                Some(set) => to_set(fleet.deployment, set, revision),
            }
        }
    };
    clear(planner, fleet.deployment, patch, note)
}

/// The current set, existing or to be, has the highest revision of all: the one before is the old sets' highest.
fn last_revision(fleet: &Fleet<'_>) -> Option<i64> {
    fleet.old.iter().filter_map(|set| annotations::revision(&set.annotations)).max().filter(|last| *last > 0)
}

fn to_set(deployment: &Deployment, set: &Arc<ReplicaSet>, revision: i64) -> (Map<String, Value>, EventNote) {
    let name = &deployment.meta.key.name;
    let from = deployment.template.to_json().to_value();
    let to = set.template.without_hash().to_json().to_value();
    let change =
        if deployment.template.same_pods(&set.template) { None } else { merge_patch::between(&from, &to) };
    let Some(change) = change else {
        let message =
            format!("The rollback revision contains the same template as current deployment \"{name}\"");
        return (Map::new(), EventNote::warning("DeploymentRollbackTemplateUnchanged", message));
    };
    let mut patch = Map::new();
    patch.insert("spec".into(), json!({ "template": change }));
    patch.insert("metadata".into(), json!({ "annotations": annotations_of(deployment, set) }));
    let message = format!("Rolled back deployment \"{name}\" to revision {revision}");
    (patch, EventNote::normal("DeploymentRollback", message))
}

/// The annotations of the time come back with the template: a change cause belongs to its revision.
fn annotations_of(deployment: &Deployment, set: &ReplicaSet) -> Map<String, Value> {
    let gone = deployment.annotations.iter().filter(|(key, _)| !set.annotations.contains_key(key));
    let gone = gone.map(|(key, _)| (key, Value::Null));
    let back = set.annotations.iter().map(|(key, value)| (key, Value::from(value)));
    let all = gone.chain(back).filter(|(key, _)| !annotations::is_own(key));
    all.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn clear(
    planner: DeploymentPlanner,
    deployment: &Deployment,
    mut patch: Map<String, Value>,
    note: EventNote,
) -> Action {
    let metadata = patch.entry("metadata").or_insert_with(|| json!({ "annotations": {} }));
    metadata["annotations"][ROLLBACK_TO] = Value::Null;
    Action {
        target: Target {
            resource: planner.resource,
            key: deployment.meta.key.clone(),
            uid: Some(deployment.meta.uid.clone()),
            resource_version: deployment.meta.resource_version,
        },
        verb: Verb::Patch { subresource: None, body: Value::Object(patch) },
        reason: "RollBack",
        because: format!("annotation {ROLLBACK_TO}"),
        on_success: Some(note),
        on_failure: None,
    }
}
