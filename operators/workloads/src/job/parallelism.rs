//! `spec.parallelism`, `spec.completions` and `spec.suspend`: how many pods to create or delete now.

use std::sync::Arc;

use trysail_core::{Timestamp, pod::Pod};

use super::{
    BURST, Snapshot,
    backoff::{self, Record},
    completion_index, deletion_order,
    tally::{Tally, count},
};
use crate::views::Job;

/// What to do about the number of pods: create or delete, never both.
#[derive(Debug)]
pub(super) enum Resize<'a> {
    /// Nothing.
    Keep,
    /// These are too many. They count neither as succeeded nor as failed.
    Delete(Vec<&'a Arc<Pod>>),
    /// So many are missing, for these indexes when the Job has any.
    Create(Missing),
    /// Some are missing, and their predecessors failed not long ago.
    Wait(Timestamp),
}

/// Pods to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Pods(usize),
    Indexes(Vec<i32>),
}

/// How many pods should be active.
pub(super) fn wanted(job: &Job, tally: &Tally<'_>) -> i32 {
    let active = count(tally.active.len());
    match job.completions {
        _ if job.suspend => 0,
        // Once a pod of a work queue has succeeded, the others are left to end by themselves.
        None if tally.succeeded > 0 => active,
        None => job.parallelism,
        Some(completions) => completions.saturating_sub(tally.succeeded).min(job.parallelism).max(0),
    }
}

/// Decides.
pub(super) fn resize<'a>(snapshot: &Snapshot, tally: &Tally<'a>, record: Record) -> Resize<'a> {
    let job = &snapshot.job;
    let (wanted, active) = (wanted(job, tally), count(tally.active.len()));
    let surplus = surplus(job, tally, usize::try_from(active - wanted).unwrap_or(0));
    if !surplus.is_empty() {
        return Resize::Delete(surplus);
    }
    let going = if job.replaces_failed_only { tally.terminating } else { 0 };
    let missing =
        usize::try_from(wanted.saturating_sub(going).saturating_sub(active)).unwrap_or(0).min(BURST);
    if missing == 0 {
        return Resize::Keep;
    }
    let now = snapshot.context.now;
    if job.backoff_limit_per_index.is_none()
        && let Some(at) = record.hold_until(now)
    {
        return Resize::Wait(at);
    }
    if !job.is_indexed() {
        return Resize::Create(Missing::Pods(missing));
    }
    let (mut due, mut soonest) = (Vec::new(), None::<Timestamp>);
    for index in completion_index::pending(job, tally, missing) {
        let last_failed = tally.predecessors.get(&index).map(|pod| &***pod);
        match backoff::index_hold_until(last_failed, now) {
            None => due.push(index),
            Some(at) => soonest = Some(soonest.map_or(at, |sooner| sooner.min(at))),
        }
    }
    match (due.is_empty(), soonest) {
        (false, _) => Resize::Create(Missing::Indexes(due)),
        (true, Some(at)) => Resize::Wait(at),
        (true, None) => Resize::Keep,
    }
}

fn surplus<'a>(job: &Job, tally: &Tally<'a>, at_least: usize) -> Vec<&'a Arc<Pod>> {
    let (mut surplus, mut rest) = if job.is_indexed() {
        completion_index::duplicates(job, &tally.active)
    } else {
        (Vec::new(), tally.active.clone())
    };
    if surplus.len() < at_least {
        deletion_order::sort(&mut rest);
        surplus.extend(rest.into_iter().take(at_least - surplus.len()));
    }
    surplus.truncate(BURST);
    surplus
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::fixture::job;

    #[test]
    fn a_new_job_makes_its_pods_and_says_when_it_started() {
        let new = job(json!({"parallelism": 2, "completions": 3}), &[]);
        let new = super::super::fixture::Case { status: json!({}), ..new };
        assert_snapshot!(new.text(), @r#"
        1. create Pod shop/pi-5dgpm (0 of 2 pods)
        1. create Pod shop/pi-ppw45 (0 of 2 pods)
        2. patch Job shop/pi status {"active":2,"ready":0,"startTime":"2026-01-01T00:00:10Z","terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}
        waiting on 0 of 3 pods succeeded
        "#);
    }

    /// Pods are replaced at once; only the status waits for more to finish.
    #[test]
    fn the_next_pods_come_while_the_finished_ones_wait_to_be_counted() {
        let case = job(json!({"parallelism": 2, "completions": 3}), &["a ok ended=0", "b run"]);
        assert_snapshot!(case.status(&json!({"active": 2})).text(), @r#"
        1. create Pod shop/pi-5dgpm (1 of 2 pods)
        waiting on 1 of 3 pods succeeded
        look again at 2026-01-01T00:00:11Z
        "#);
    }

    #[test]
    fn no_more_pods_than_are_still_needed() {
        let plan = |done: i32| {
            let case =
                job(json!({"parallelism": 3, "completions": 4}), &[]).status(&json!({"succeeded": done}));
            case.plan().actions().filter(|action| action.reason == "CreatePod").count()
        };
        assert_eq!([0, 1, 2, 3, 4].map(plan), [3, 3, 2, 1, 0]);
    }

    /// Once a pod has found the queue empty, no new ones are started, and those that run end by themselves.
    #[test]
    fn a_work_queue_is_left_to_run_out() {
        let case = job(json!({"parallelism": 3}), &["a ok bare", "b run"])
            .status(&json!({"succeeded": 1, "active": 1, "ready": 0, "terminating": 0}));
        assert_snapshot!(case.text(), @"look again at 2026-01-01T00:00:11Z");
    }

    /// Pods that are too many count neither as succeeded nor as failed: their finalizer goes first.
    #[test]
    fn fewer_pods_are_wanted() {
        let case = job(json!({"parallelism": 1, "completions": 4}), &["a ready", "b run", "c"]);
        assert_snapshot!(case.text(), @r#"
        1. patch Pod shop/c {"metadata":{"finalizers":[]}} (too many)
        1. patch Pod shop/b {"metadata":{"finalizers":[]}} (too many)
        2. delete Pod shop/c (too many)
        2. delete Pod shop/b (too many)
        waiting on 0 of 4 pods succeeded
        look again at 2026-01-01T00:00:11Z
        "#);
    }

    #[test]
    fn zero_pods_are_wanted() {
        assert_snapshot!(job(json!({"parallelism": 0, "completions": 4}), &["a ready"]).text(), @r#"
        1. patch Pod shop/a {"metadata":{"finalizers":[]}} (too many)
        2. delete Pod shop/a (too many)
        3. patch Job shop/pi status {"ready":0,"terminating":1,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}
        waiting on 0 of 4 pods succeeded
        "#);
        assert_snapshot!(job(json!({"completions": 0}), &[]).text(), @r#"1. patch Job shop/pi status {"conditions":[{"lastProbeTime":"2026-01-01T00:00:10Z","lastTransitionTime":"2026-01-01T00:00:10Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"}],"ready":0,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}"#);
    }

    #[test]
    fn a_suspended_job_has_no_pods() {
        let case =
            job(json!({"parallelism": 2, "completions": 4, "suspend": true}), &["a run", "b run bare"]);
        assert_snapshot!(case.text(), @r#"
        1. patch Pod shop/a {"metadata":{"finalizers":[]}} (suspended)
        2. delete Pod shop/a (suspended)
        2. delete Pod shop/b (suspended)
        3. patch Job shop/pi status {"conditions":[{"lastProbeTime":"2026-01-01T00:00:10Z","lastTransitionTime":"2026-01-01T00:00:10Z","message":"Job suspended","reason":"JobSuspended","status":"True","type":"Suspended"}],"ready":0,"startTime":null,"terminating":2,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}
        waiting on you: spec.suspend to be unset
        "#);
        let resumed = json!({"startTime": null,
            "conditions": [{"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended"}]});
        let case = job(json!({"parallelism": 1, "completions": 4}), &[]).status(&resumed);
        assert_snapshot!(case.text(), @r#"
        1. create Pod shop/pi-5dgpm (0 of 1 pods)
        2. patch Job shop/pi status {"active":1,"conditions":[{"lastProbeTime":"2026-01-01T00:00:10Z","lastTransitionTime":"2026-01-01T00:00:10Z","message":"Job resumed","reason":"JobResumed","status":"False","type":"Suspended"}],"ready":0,"startTime":"2026-01-01T00:00:10Z","terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}
        waiting on 0 of 4 pods succeeded
        "#);
    }

    /// `podReplacementPolicy: Failed` waits for the end of the pod, not for its deletion.
    #[test]
    fn a_terminating_pod_is_replaced_when_the_policy_says() {
        let plan = |policy| {
            let spec = json!({"parallelism": 1, "completions": 1, "podReplacementPolicy": policy});
            job(spec, &["a run going ended=20"]).text()
        };
        assert!(plan("TerminatingOrFailed").contains("create Pod"));
        assert!(!plan("Failed").contains("create Pod"));
    }

    /// A quota must not keep finished pods from being counted.
    #[test]
    fn a_refused_create_waits_and_all_else_goes_on() {
        let case = job(json!({"parallelism": 2, "completions": 9}), &["a ok ended=0"]).refused("CreatePod");
        assert_snapshot!(case.text(), @r#"
        1. patch Job shop/pi status {"ready":0,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":["uid-a"]}}
        2. patch Pod shop/a {"metadata":{"finalizers":[]}} (counted)
        waiting on the API server, which refused: no (next attempt at 2026-01-01T00:00:14Z)
        waiting on 1 of 9 pods succeeded
        look again at 2026-01-01T00:00:14Z
        "#);
    }

    #[test]
    fn a_burst_is_bounded() {
        let case = job(json!({"parallelism": 2000, "completions": 3000}), &[]);
        assert_eq!(case.plan().actions().filter(|action| action.reason == "CreatePod").count(), super::BURST);
    }
}
