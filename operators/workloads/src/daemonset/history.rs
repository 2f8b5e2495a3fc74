//! The history of `spec.template` and `spec.revisionHistoryLimit`: what a DaemonSet adds to [`crate::revision`].
//!
//! Of several records of the same template one stays, as upstream has it: pods get the hash of that one, and then
//! the others go.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::json;
use trysail_core::{
    Action, View,
    plan::{OwnerReference, Target, Verb},
    pod::{CONTROLLER_REVISION_HASH, Pod},
    resource::CONTROLLER_REVISIONS,
};

use super::{DaemonSetPlanner, Snapshot, claim::is_ours, failure, pods};
use crate::{
    pod_control,
    revision::{CREATE_REVISION, Dialect, History, RevisionOwner},
    views::{ControllerRevision, DaemonSet},
};

/// The label of pods and revisions that holds the revision's hash.
pub(super) const HASH: &str = CONTROLLER_REVISION_HASH;

/// The reasons of actions that bring doubled revisions and a long history down.
const MERGE: &str = "MergeRevisions";
pub(super) const TRUNCATE: &str = "DeleteRevision";

/// What is to be done about the history.
#[derive(Debug, Default)]
pub(super) struct Chores {
    /// Claims, the new record, its number: before anything else.
    pub(super) writes: Vec<Action>,
    /// Pods of a record that goes because another one holds the same.
    pub(super) relabels: Vec<Action>,
    /// Records beyond the limit, the oldest first.
    pub(super) surplus: Vec<Action>,
}

/// Reads the history.
pub(super) fn observe<V: View<ControllerRevision> + ?Sized>(
    planner: DaemonSetPlanner,
    set: &DaemonSet,
    view: &V,
) -> History {
    History::observe(&owner(set, &pods::owner(planner, set)), view)
}

fn owner<'a>(set: &'a DaemonSet, reference: &'a OwnerReference) -> RevisionOwner<'a> {
    RevisionOwner {
        dialect: Dialect::DaemonSet,
        reference,
        meta: &set.meta,
        selector: &set.selector,
        template: &set.template,
        collisions: set.status.collision_count.unwrap_or(0),
    }
}

pub(super) fn chores(planner: DaemonSetPlanner, snapshot: &Snapshot) -> Chores {
    let (set, history) = (&snapshot.set, &snapshot.history);
    let reference = pods::owner(planner, set);
    let mut writes = history.writes(&owner(set, &reference), &set.annotations);
    if failure::barred_until(snapshot, CREATE_REVISION).is_some() {
        writes.retain(|action| action.reason != CREATE_REVISION);
    }
    let surplus =
        history.truncate(set.revision_history_limit, all_pods(snapshot), |held| history.is_update(held));
    let mut chores = Chores { writes, relabels: Vec::new(), surplus };
    merge(snapshot, &mut chores);
    chores
}

fn merge(snapshot: &Snapshot, chores: &mut Chores) {
    let history = &snapshot.history;
    let update = history.update();
    let Some(kept) = &update.stored else { return };
    let is_twin = |held: &&Arc<ControllerRevision>| {
        // One that is still to be adopted is left for a later look.
        !Arc::ptr_eq(held, kept) && history.is_update(held) && held.meta.controller.is_some()
    };
    let twins: Vec<_> = history.revisions().iter().filter(is_twin).collect();
    let doubled: BTreeSet<&str> = twins.iter().map(|twin| history.label_of(twin)).collect();
    if doubled.is_empty() {
        return;
    }
    let body = json!({"metadata": {"labels": {HASH: update.label}}});
    let is_doubled = |pod: &&Arc<Pod>| {
        pod.meta.controller.is_some() && pod.meta.labels.get(HASH).is_some_and(|held| doubled.contains(held))
    };
    chores.relabels.extend(all_pods(snapshot).filter(is_doubled).map(|pod| Action {
        target: pod_control::target(pod),
        verb: Verb::Patch { subresource: None, body: body.clone() },
        reason: MERGE,
        because: "two revisions hold the same template".to_owned(),
        on_success: None,
        on_failure: None,
    }));
    if chores.relabels.is_empty() {
        chores.writes.extend(twins.into_iter().map(|twin| delete(twin)));
    }
}

fn delete(twin: &ControllerRevision) -> Action {
    Action {
        target: Target {
            resource: CONTROLLER_REVISIONS,
            key: twin.meta.key.clone(),
            uid: Some(twin.meta.uid.clone()),
            resource_version: twin.meta.resource_version,
        },
        verb: Verb::Delete { propagation: None },
        reason: MERGE,
        because: "another revision holds the same template".to_owned(),
        on_success: None,
        on_failure: None,
    }
}

fn all_pods(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Pod>> {
    let all = snapshot.spots.iter().flat_map(|spot| &spot.pods).chain(&snapshot.strays);
    all.filter(|pod| is_ours(&snapshot.set, pod))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixture::{World, pod, revision};

    const TWO: [&str; 2] = ["a", "b"];

    #[test]
    fn a_new_template_is_recorded_before_any_pod_is_made() {
        let mut world = World::new(json!({}), &TWO, &["x a old ready=9"]);
        world.revisions.remove(0);
        assert_eq!(world.steps(), "record +b");
        let plan = world.plan();
        assert_eq!(plan.waves[0].len(), 1, "in a wave of its own");
        let body = |at: usize| match &plan.waves[at][0].verb {
            trysail_core::plan::Verb::Create { body, .. } => body.to_value(),
            other => panic!("{other:?}"),
        };
        assert_eq!(body(0)["revision"], 2);
        assert_eq!(body(0)["data"]["spec"]["template"]["$patch"], "replace");
        assert_eq!(body(0)["metadata"]["annotations"], json!({"team": "ops"}));
        let labels = |at: usize| body(at)["metadata"]["labels"].clone();
        assert_eq!(labels(0), labels(1), "the pod names its revision by the hash in its label");
    }

    /// Going back to an earlier template restarts nothing that already has it.
    #[test]
    fn an_earlier_template_that_is_wanted_again_becomes_the_latest() {
        let mut world = World::new(json!({}), &TWO, &["x a old ready=9", "y b ready=9"]);
        world.template = super::super::fixture::template("v1");
        assert_eq!(world.steps(), "patch agent-old -y");
    }

    #[test]
    fn of_two_records_of_one_template_the_latest_stays_and_its_pods_with_it() {
        let mut world = World::new(json!({}), &TWO, &["x a ready=9", "y b ready=9"]);
        world.revisions.push(revision("twin", 3, "v2"));
        assert_eq!(world.steps(), "patch x patch y");
        for pod in &mut world.pods {
            pod["metadata"]["labels"]["controller-revision-hash"] = "twin".into();
        }
        assert_eq!(world.steps(), "-agent-new");
        world.revisions.remove(0);
        assert_eq!(world.steps(), "");
    }

    #[test]
    fn the_history_is_cut_to_its_limit_but_for_what_runs() {
        let mut world = World::new(json!({"revisionHistoryLimit": 1}), &TWO, &["x a ready=9", "y b ready=9"]);
        let earlier = (1..4).map(|n| revision(&format!("r{n}"), n, &format!("v0.{n}")));
        world.revisions = earlier.chain([revision("old", 4, "v1"), revision("new", 5, "v2")]).collect();
        assert_eq!(world.steps(), "-agent-r1 -agent-r2 -agent-r3");
        world.pods[0]["metadata"]["labels"]["controller-revision-hash"] = "r1".into();
        world.spec["updateStrategy"] = json!({"type": "OnDelete"});
        assert_eq!(world.steps(), "-agent-r2 -agent-r3 -agent-old");
        world.spec["revisionHistoryLimit"] = 0.into();
        world.pods[0] = pod("x a ready=9");
        assert_eq!(world.steps(), "-agent-r1 -agent-r2 -agent-r3 -agent-old");
    }

    /// It is another's: the name is passed over, and the status counts it.
    #[test]
    fn a_record_that_belongs_to_somebody_else_is_left_alone() {
        let mut world = World::new(json!({}), &["a"], &[]);
        world.revisions.clear();
        let name = |world: &World| world.plan().waves[0][0].target.key.name.to_string();
        let wanted = name(&world);
        let mut foreign = revision("other", 1, "v9");
        foreign["metadata"]["name"] = wanted.as_str().into();
        foreign["metadata"]["ownerReferences"][0]["uid"] = "uid-other".into();
        world.revisions.push(foreign);
        assert_ne!(name(&world), wanted);
        assert_eq!(world.status(), Value::Null, "not while pods are still being made");
        world.later(1);
        assert_eq!(world.status()["collisionCount"], 1);
    }

    #[test]
    fn orphans_are_adopted_and_strays_let_go() {
        let mut world = World::new(json!({}), &TWO, &["x a ready=9 stray", "y b ready=9 other"]);
        world.revisions[1]["metadata"]["ownerReferences"] = Value::Null;
        let mut lost = revision("lost", 1, "v0");
        lost["metadata"]["labels"]["app"] = "other".into();
        world.revisions.push(lost);
        assert_eq!(world.steps(), "adopt x release y release agent-lost adopt agent-old +b");
    }
}
