//! `spec.selector`: which pods are ours. A pod is adopted with our finalizer on it, and released without.

use std::sync::Arc;

use trysail_core::{
    Action,
    claim::{Claim, claim},
    plan::{EventNote, OwnerReference, Verb},
    pod::Pod,
};

use super::{
    JobPlanner, Snapshot, seen,
    tracking::{patch_finalizers, without_finalizer},
};
use crate::pod_control;

/// The reason of the write that gives a pod its finalizer.
pub(super) const ADD_FINALIZER: &str = "AddFinalizer";

/// The writes that make it so; each pod is written once, and the next look goes on from there.
pub(super) fn actions(planner: JobPlanner, snapshot: &Snapshot) -> Vec<Action> {
    let candidates = snapshot.strays.iter().chain(&snapshot.orphans);
    candidates.filter_map(|pod| action(planner, snapshot, pod)).collect()
}

fn action(planner: JobPlanner, snapshot: &Snapshot, pod: &Arc<Pod>) -> Option<Action> {
    let (job, finalizer) = (&snapshot.job, planner.finalizer());
    let owner = || {
        let (resource, meta) = (planner.resource(), &job.meta);
        OwnerReference { resource, key: meta.key.clone(), uid: meta.uid.clone() }
    };
    let is_tracked = seen::has_finalizer(pod, finalizer);
    match claim(&job.meta, &job.selector, &pod.meta) {
        // A finished pod that were ours without the finalizer would look as if it had been counted. (Of a pod that
        // shows no sign of being a Job's the finalizers are not known before it is ours.)
        Claim::Adopt if !is_tracked && pod.details.is_some() => {
            Some(add_finalizer(pod, finalizer, "to be adopted", None))
        }
        Claim::Adopt => Some(pod_control::adopt(pod, owner())),
        // Afterwards nobody would look at it any more.
        Claim::Release if is_tracked => without_finalizer(pod, finalizer, "no longer matches the selector"),
        Claim::Release => Some(pod_control::release(pod, &owner())),
        Claim::Keep | Claim::Ignore => None,
    }
}

pub(super) fn add_finalizer(
    pod: &Pod,
    finalizer: &str,
    because: &str,
    on_success: Option<EventNote>,
) -> Action {
    let body = patch_finalizers(pod, Some(finalizer), None);
    Action {
        target: pod_control::target(pod),
        verb: Verb::Patch { subresource: None, body },
        reason: ADD_FINALIZER,
        because: because.to_owned(),
        on_success,
        on_failure: None,
    }
}

/// Active pods that lost the finalizer to somebody else get it back: they would end without being counted.
pub(super) fn restore(planner: JobPlanner, pods: &[&Arc<Pod>]) -> Vec<Action> {
    let lost = pods.iter().filter(|pod| !seen::has_finalizer(pod, planner.finalizer()));
    let finalizer = planner.finalizer();
    lost.map(|pod| {
        let name = &pod.meta.key.name;
        let message = format!(
            "Pod {name} had lost the finalizer {finalizer}, without which it would not be counted, and has it again; find out who removed it"
        );
        let note = EventNote::warning("FinalizerRestored", message);
        add_finalizer(pod, finalizer, "lost its finalizer", Some(note))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::fixture::job;

    /// With the finalizer first: a finished pod that were ours without it would pass for counted.
    #[test]
    fn adoption_and_release_each_take_two_steps() {
        let spec = json!({"parallelism": 1, "completions": 5});
        let first = job(spec.clone(), &["a run stray bare", "b run other"]);
        assert_snapshot!(first.text(), @r#"
        1. patch Pod shop/b {"metadata":{"finalizers":[]}} (no longer matches the selector)
        1. patch Pod shop/a {"metadata":{"finalizers":["batch.kubernetes.io/job-tracking"]}} (to be adopted)
        "#);
        assert_snapshot!(job(spec, &["a run stray", "b run other bare"]).text(), @r#"
        1. release Pod shop/b (no longer matches the selector)
        1. adopt Pod shop/a (matches the selector)
        "#);
    }

    #[test]
    fn a_finished_job_adopts_nothing() {
        let complete = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        let case = job(json!({"completions": 1}), &["a ok stray"]).status(&complete);
        assert_eq!(case.text(), "nothing to do\n");
    }

    #[test]
    fn a_job_that_is_given_away_is_not_touched() {
        let case =
            |name: &str| job(json!({"completions": 1, "managedBy": name}), &["a ok", "b run other"]).text();
        assert_eq!(case("acme.io/x"), "waiting on you: spec.managedBy has given this Job to acme.io/x\n");
        assert!(case("kubernetes.io/job-controller").contains("patch Pod"));
    }
}
