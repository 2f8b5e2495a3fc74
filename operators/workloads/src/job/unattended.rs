//! Pods that are left to themselves: when the controllers are uninstalled, nobody would remove the finalizer of a pod
//! that ends or is deleted, and it would stay for ever, its namespace with it. So all finalizers go then, and on a pod
//! that is still to be counted an annotation stands in for it. Whoever counts next takes such pods back first, those
//! that have ended meanwhile included: without the annotation they would look as if they had been counted.

use serde_json::json;
use trysail_core::{
    Action, Face,
    plan::Verb,
    pod::{JOB_UNCOUNTED, Phase, Pod},
};

use super::{
    JobPlanner, Snapshot, claim,
    indexes::Indexes,
    seen,
    tracking::{patch_finalizers, without_finalizer},
    tracking_finalizer,
};
use crate::views::Job;

/// The write that leaves a pod to itself; `None` when it does not carry our finalizer. `job` is the Job that controls
/// it, if that is still there.
pub fn leave(face: Face, pod: &Pod, job: Option<&Job>) -> Option<Action> {
    let mut action = without_finalizer(pod, tracking_finalizer(face), "nobody is left to count it")?;
    if job.is_some_and(|job| !job.is_finished() && !is_recorded(job, pod))
        && let Verb::Patch { body, .. } = &mut action.verb
    {
        body["metadata"]["annotations"] = json!({JOB_UNCOUNTED: "true"});
    }
    Some(action)
}

/// It is in the status already: that the finalizer is gone then means that it is to be counted.
fn is_recorded(job: &Job, pod: &Pod) -> bool {
    let uncounted = job.status.uncounted_terminated_pods.as_ref();
    let is_listed = uncounted
        .is_some_and(|lists| lists.succeeded.contains(&pod.meta.uid) || lists.failed.contains(&pod.meta.uid));
    let completed = || {
        let text = job.status.completed_indexes.as_deref().unwrap_or_default();
        Indexes::parse(text, job.completions.unwrap_or(0))
    };
    let is_done = |index| pod.phase == Phase::Succeeded && completed().contains(index);
    is_listed || (job.is_indexed() && seen::valid_index(pod, job).is_some_and(is_done))
}

/// The writes that take such pods back; native Jobs are never left. One that is going already is past that: the API server takes no finalizer for
/// it any more.
pub(super) fn take_back(planner: JobPlanner, snapshot: &Snapshot) -> Vec<Action> {
    if planner.face == Face::Native || snapshot.job.meta.is_terminating() {
        return Vec::new();
    }
    let is_left = |pod: &Pod| {
        pod.details.as_ref().is_some_and(|details| details.annotations.get(JOB_UNCOUNTED).is_some())
    };
    let left = snapshot.pods.iter().filter(|pod| is_left(pod) && !pod.meta.is_terminating());
    left.map(|pod| {
        let finalizer = planner.finalizer();
        let mut action = claim::add_finalizer(pod, finalizer, "was left to itself, uncounted", None);
        let add = (!seen::has_finalizer(pod, finalizer)).then_some(finalizer);
        let mut body = patch_finalizers(pod, add, None);
        body["metadata"]["annotations"] = json!({JOB_UNCOUNTED: null});
        action.verb = Verb::Patch { subresource: None, body };
        action
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::{Value, json};
    use trysail_core::{Face, pod::Pod};

    use super::{super::fixture, leave};
    use crate::views::Job;

    /// What becomes of a pod of a Job with that status, or of none that is still there.
    fn left(status: Option<&Value>, pod: &str) -> Option<String> {
        let pod: Pod = serde_json::from_value(fixture::pod(Face::Crd, pod)).unwrap();
        let job = status.map(|status| {
            json!({"metadata": {"name": "pi", "namespace": "shop", "uid": "uid-pi"},
                "spec": {"completions": 5, "completionMode": "Indexed", "template": {}}, "status": status})
        });
        let job: Option<Job> = job.map(|job| serde_json::from_value(job).unwrap());
        Some(leave(Face::Crd, &pod, job.as_ref())?.to_string())
    }

    /// The annotation is for pods whose count is still open, and for no others.
    #[test]
    fn only_what_is_not_recorded_is_marked() {
        let marked = |status: &Value, pod: &str| left(Some(status), pod).unwrap().contains("uncounted");
        let fresh = json!({});
        assert_snapshot!(
            left(Some(&fresh), "a run index=1").unwrap(),
            @r#"patch Pod shop/a {"metadata":{"annotations":{"batch.trysail.dev/uncounted":"true"},"finalizers":[]}} (nobody is left to count it)"#
        );
        assert!(marked(&fresh, "a ok index=1"));
        let completed = json!({"completedIndexes": "0-2"});
        assert!(!marked(&completed, "a ok index=1"));
        assert!(marked(&completed, "a failed index=1"), "that is a failure to count");
        let listed = json!({"uncountedTerminatedPods": {"failed": ["uid-a"]}});
        assert!(!marked(&listed, "a failed index=1"));
        let complete = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        assert!(!marked(&complete, "a ok index=1"));
        assert!(!left(None, "a run index=1").unwrap().contains("uncounted"));
        assert_eq!(left(Some(&fresh), "a run bare index=1"), None, "left before");
    }

    /// Before anything is decided by numbers in which they are missing.
    #[test]
    fn pods_that_were_left_are_taken_back_and_counted() {
        let job = |pods: &[&str]| {
            let mut case = fixture::job(json!({"parallelism": 2, "completions": 3}), pods);
            case.face = Face::Crd;
            case
        };
        assert_snapshot!(job(&["a ok left", "b run left"]).text(), @r#"
        1. patch Pod shop/a {"metadata":{"annotations":{"batch.trysail.dev/uncounted":null},"finalizers":["batch.trysail.dev/job-tracking"]}} (was left to itself, uncounted)
        1. patch Pod shop/b {"metadata":{"annotations":{"batch.trysail.dev/uncounted":null},"finalizers":["batch.trysail.dev/job-tracking"]}} (was left to itself, uncounted)
        "#);
        let taken_back = job(&["a ok", "b run"]).text();
        assert!(taken_back.contains(r#""succeeded":["uid-a"]"#), "{taken_back}");
        let going = job(&["a run left going", "b run"]).text();
        assert!(!going.contains("batch.trysail.dev/uncounted"), "{going}");
        let mut deleted = job(&["a run left"]);
        deleted.metadata["deletionTimestamp"] = "2026-01-01T00:00:09Z".into();
        assert!(!deleted.text().contains("batch.trysail.dev/uncounted"), "{}", deleted.text());
    }
}
