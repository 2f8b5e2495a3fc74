//! `spec.selector`: which ReplicaSets are ours.

use std::sync::Arc;

use trysail_core::{
    Action,
    claim::{Claim, claim},
    plan::{OwnerReference, Target, Verb},
};

use super::{DeploymentPlanner, Snapshot};
use crate::views::ReplicaSet;

/// The ReplicaSets that are ours, oldest first, and the writes that make it so.
pub(super) struct Claims<'a> {
    pub(super) sets: Vec<&'a Arc<ReplicaSet>>,
    pub(super) adoptions: Vec<Action>,
    pub(super) releases: Vec<Action>,
}

pub(super) fn claims(planner: DeploymentPlanner, snapshot: &Snapshot) -> Claims<'_> {
    let deployment = &snapshot.deployment;
    let owner = deployment.meta.uid.clone();
    let mut claims = Claims { sets: Vec::new(), adoptions: Vec::new(), releases: Vec::new() };
    for set in &snapshot.sets {
        match claim(&deployment.meta, &deployment.selector, &set.meta) {
            Claim::Keep => claims.sets.push(set),
            Claim::Adopt => {
                let owner = OwnerReference {
                    resource: planner.resource,
                    key: deployment.meta.key.clone(),
                    uid: owner.clone(),
                };
                let verb = Verb::Adopt { owner };
                claims.adoptions.push(action(planner, set, verb, "AdoptReplicaSet", "matches the selector"));
                claims.sets.push(set);
            }
            Claim::Release => {
                let verb = Verb::Release { owner: owner.clone() };
                let because = "no longer matches the selector";
                claims.releases.push(action(planner, set, verb, "ReleaseReplicaSet", because));
            }
            Claim::Ignore => {}
        }
    }
    claims
}

fn action(
    planner: DeploymentPlanner,
    set: &ReplicaSet,
    verb: Verb,
    reason: &'static str,
    because: &str,
) -> Action {
    Action {
        target: target(planner, set),
        verb,
        reason,
        because: because.to_owned(),
        on_success: None,
        on_failure: None,
    }
}

pub(super) fn target(planner: DeploymentPlanner, set: &ReplicaSet) -> Target {
    Target {
        resource: planner.sets,
        key: set.meta.key.clone(),
        uid: Some(set.meta.uid.clone()),
        resource_version: set.meta.resource_version,
    }
}
