//! The protocol of finalizers: a finished pod is recorded in the status, then its finalizer is removed, then it is
//! counted. Each step is one write, and which step comes next follows from what the API holds, so nothing is counted
//! twice and nothing is lost, whenever we die.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};
use trysail_core::{
    Action, Symbol, Uid,
    plan::{EventNote, Verb},
    pod::{Phase, Pod},
};

use super::{
    BURST, Snapshot,
    going::Going,
    indexes::Indexes,
    outcome::Outcome,
    pod_failure_policy::{self, Judgement},
    seen,
    tally::{Tally, count},
};
use crate::{
    pod_control,
    views::{Job, UncountedPods},
};

/// The reason of the write that lets a pod go.
pub(super) const REMOVE_FINALIZER: &str = "RemoveFinalizer";

/// The next state of the protocol.
#[derive(Debug, Default)]
pub(super) struct Tracked<'a> {
    /// `status.uncountedTerminatedPods` to be.
    pub(super) uncounted: UncountedPods,
    /// `status.succeeded` to be.
    pub(super) succeeded: i32,
    /// `status.failed` to be.
    pub(super) failed: i32,
    /// `status.completedIndexes` to be.
    pub(super) completed: Indexes,
    /// Pods whose finalizer may be removed whether or not the status is written: they are recorded already, or there
    /// is nothing to record about them.
    pub(super) settled: Vec<&'a Arc<Pod>>,
    /// Pods whose finalizer may be removed once this status is written.
    pub(super) recorded: Vec<&'a Arc<Pod>>,
    /// There were more than one look can take.
    pub(super) is_full: bool,
}

/// Decides the next state.
pub(super) fn track<'a>(snapshot: &Snapshot, tally: &Tally<'a>, going: &Going<'a>) -> Tracked<'a> {
    let (job, outcome) = (&snapshot.job, going.outcome.as_ref());
    let mut tracked = Tracked { completed: tally.completed_before.clone(), ..Tracked::default() };
    count_released(snapshot, tally, &mut tracked);
    let known: BTreeSet<Uid> = uids(&tracked.uncounted).cloned().collect();
    let mut new_indexes = BTreeSet::new();
    for pod in in_order(job, tally) {
        if !may_go(job, tally, going, pod) {
            continue;
        }
        // What this plan deletes has another version by then: its finalizer goes at the next look.
        let is_going = going.failed.iter().any(|failed| Arc::ptr_eq(failed, pod));
        let is_known = known.contains(&pod.meta.uid);
        let record = if is_known { Record::Nothing } else { record(job, tally, outcome, pod, is_going) };
        let list =
            if matches!(record, Record::Nothing) { &mut tracked.settled } else { &mut tracked.recorded };
        list.extend((!is_going).then_some(pod));
        match record {
            Record::Nothing => {}
            Record::Index(index) => drop(new_indexes.insert(index)),
            Record::Succeeded => tracked.uncounted.succeeded.push(pod.meta.uid.clone()),
            Record::Failed => tracked.uncounted.failed.push(pod.meta.uid.clone()),
        }
        if new_indexes.len() + uids(&tracked.uncounted).count() >= BURST
            || tracked.settled.len() + tracked.recorded.len() >= BURST
        {
            tracked.is_full = true;
            break;
        }
    }
    if job.is_indexed() {
        tracked.completed = tracked.completed.with(&Indexes::from(&new_indexes));
        tracked.succeeded = tracked.completed.total();
        // Shrinking an elastic Job drops indexes; in any other case the API server takes no smaller number.
        if job.completions != Some(job.parallelism) {
            tracked.succeeded = tracked.succeeded.max(job.status.succeeded.unwrap_or(0));
        }
    }
    tracked
}

/// What is to be written down about a pod before it may go.
enum Record {
    Nothing,
    /// Its index is record enough: an index is completed once, however many pods say so.
    Index(i32),
    Succeeded,
    Failed,
}

/// Recorded pods that have lost their finalizer are counted now: the one place where counters grow. One that was taken
/// from us meanwhile is not counted before: given back or adopted, it would be recorded once more.
fn count_released(snapshot: &Snapshot, tally: &Tally<'_>, tracked: &mut Tracked<'_>) {
    let job = &snapshot.job;
    let in_view = tally.pods.iter().chain(&snapshot.strays).chain(&snapshot.orphans);
    let held: BTreeSet<&Uid> = in_view.filter(|pod| tally.is_tracked(pod)).map(|pod| &pod.meta.uid).collect();
    let split = |uids: &[Uid], old: Option<i32>| {
        let kept: Vec<Uid> = uids.iter().filter(|uid| held.contains(uid)).cloned().collect();
        let released = count(uids.len() - kept.len());
        (kept, old.unwrap_or(0).saturating_add(released))
    };
    (tracked.uncounted.succeeded, tracked.succeeded) =
        split(&tally.uncounted.succeeded, job.status.succeeded);
    (tracked.uncounted.failed, tracked.failed) = split(&tally.uncounted.failed, job.status.failed);
}

/// Pods with our finalizer; those of the lowest index first, so that ranges grow from the left.
fn in_order<'a>(job: &Job, tally: &Tally<'a>) -> Vec<&'a Arc<Pod>> {
    let mut pods: Vec<&'a Arc<Pod>> = tally.pods.iter().filter(|pod| tally.is_tracked(pod)).collect();
    if job.is_indexed() {
        pods.sort_by_key(|pod| seen::index(pod));
    }
    pods
}

/// Nothing keeps the pod: it ended, or the Job is decided or deleted. A failed pod whose replacement is still to
/// inherit its failures stays, and so does one that runs and is not deleted by this plan.
fn may_go(job: &Job, tally: &Tally<'_>, going: &Going<'_>, pod: &Arc<Pod>) -> bool {
    if job.meta.is_terminating() {
        return true;
    }
    if pod.is_active() {
        return going.failed.iter().any(|failed| Arc::ptr_eq(failed, pod));
    }
    if going.outcome.is_some() || pod.phase == Phase::Succeeded {
        return true;
    }
    let is_awaited = || {
        let predecessor = seen::index(pod).and_then(|index| tally.predecessors.get(&index));
        predecessor.is_some_and(|predecessor| predecessor.meta.uid == pod.meta.uid)
    };
    seen::is_failed(pod, job) && !is_awaited()
}

fn record(job: &Job, tally: &Tally<'_>, outcome: Option<&Outcome>, pod: &Pod, is_going: bool) -> Record {
    if pod.phase == Phase::Succeeded {
        return match (job.is_indexed(), seen::valid_index(pod, job)) {
            (false, _) => Record::Succeeded,
            (true, Some(index)) if !tally.completed_before.contains(index) => Record::Index(index),
            (true, _) => Record::Nothing,
        };
    }
    // When a Job fails, what still runs has failed with it.
    let is_lost = outcome.is_some_and(|outcome| !outcome.is_success) && (is_going || !pod.is_active());
    let fails = seen::is_failed(pod, job) || is_lost;
    let counts =
        fails && seen::is_countable(pod, job) && pod_failure_policy::judge(job, pod) != Judgement::Ignore;
    if counts { Record::Failed } else { Record::Nothing }
}

fn uids(uncounted: &UncountedPods) -> impl Iterator<Item = &Uid> {
    uncounted.succeeded.iter().chain(&uncounted.failed)
}

/// The write that removes our finalizer from a pod and leaves those of others; `None` when it is not there.
pub(super) fn without_finalizer(pod: &Pod, finalizer: &str, because: &str) -> Option<Action> {
    seen::has_finalizer(pod, finalizer).then(|| Action {
        target: pod_control::target(pod),
        verb: Verb::Patch { subresource: None, body: patch_finalizers(pod, None, Some(finalizer)) },
        reason: REMOVE_FINALIZER,
        because: because.to_owned(),
        on_success: None,
        on_failure: Some(EventNote::warning(
            "FailedFinalizerRemoval",
            format!("Error removing the finalizer {finalizer} from pod {}", pod.meta.key.name),
        )),
    })
}

/// A merge patch replaces the whole list; the resourceVersion of the target guards those of others.
pub(super) fn patch_finalizers(pod: &Pod, add: Option<&str>, remove: Option<&str>) -> Value {
    let held = pod.details.iter().flat_map(|details| details.finalizers.iter().map(Symbol::as_str));
    let finalizers: Vec<&str> = held.filter(|name| Some(*name) != remove).chain(add).collect();
    json!({"metadata": {"finalizers": finalizers}})
}

/// How many finished pods lost their finalizer before they were counted, as far as that can be told: there are more
/// of them than the counters know. Counting them now might count some twice, so the user is told instead.
pub(super) fn lost(job: &Job, tally: &Tally<'_>) -> i32 {
    let recorded: BTreeSet<&Uid> = uids(&tally.uncounted).collect();
    let untracked = tally.pods.iter().filter(|pod| {
        !tally.is_tracked(pod) && !pod.meta.is_terminating() && !recorded.contains(&pod.meta.uid)
    });
    let mut by_phase: BTreeMap<Phase, i32> = BTreeMap::new();
    for pod in untracked.filter(|pod| pod_failure_policy::judge(job, pod) != Judgement::Ignore) {
        *by_phase.entry(pod.phase).or_default() += 1;
    }
    let missing = |phase, counted: Option<i32>| {
        (by_phase.get(&phase).copied().unwrap_or(0) - counted.unwrap_or(0)).max(0)
    };
    // Several pods of one index are counted as one, and a wrong index as none.
    if job.is_indexed() {
        return 0;
    }
    missing(Phase::Succeeded, job.status.succeeded) + missing(Phase::Failed, job.status.failed)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::fixture::job;

    /// First the status says whose finish it is, then the finalizers go; the next look counts.
    #[test]
    fn finished_pods_are_recorded_before_they_are_let_go() {
        let spec = json!({"parallelism": 2, "completions": 2, "backoffLimit": 9});
        assert_snapshot!(job(spec.clone(), &["a ok", "b ok", "c failed"]).text(), @r#"
        1. patch Job shop/pi status {"conditions":[{"lastProbeTime":"2026-01-01T00:00:10Z","lastTransitionTime":"2026-01-01T00:00:10Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"}],"ready":0,"terminating":0,"uncountedTerminatedPods":{"failed":["uid-c"],"succeeded":["uid-a","uid-b"]}}
        2. patch Pod shop/a {"metadata":{"finalizers":[]}} (counted)
        2. patch Pod shop/b {"metadata":{"finalizers":[]}} (counted)
        2. patch Pod shop/c {"metadata":{"finalizers":[]}} (counted)
        "#);
        let recorded = json!({"uncountedTerminatedPods": {"succeeded": ["uid-a", "uid-b"], "failed": ["uid-c"]},
            "conditions": [{"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached",
                "message": "Reached expected number of succeeded pods"}], "ready": 0, "terminating": 0});
        // Interrupted after one of three.
        let case = job(spec.clone(), &["a ok bare", "b ok", "c failed"]).status(&recorded);
        assert_snapshot!(case.text(), @r#"
        1. patch Job shop/pi status {"succeeded":1,"uncountedTerminatedPods":{"failed":["uid-c"],"succeeded":["uid-b"]}}
        2. patch Pod shop/b {"metadata":{"finalizers":[]}} (counted)
        2. patch Pod shop/c {"metadata":{"finalizers":[]}} (counted)
        "#);
        let case = job(spec, &["a ok bare", "b ok bare", "c failed bare"]).status(&recorded);
        assert_snapshot!(case.text(), @r#"1. patch Job shop/pi status {"completionTime":"2026-01-01T00:00:10Z","conditions":[{"message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"},{"lastProbeTime":"2026-01-01T00:00:10Z","lastTransitionTime":"2026-01-01T00:00:10Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"Complete"}],"failed":1,"succeeded":2,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}"#);
    }

    #[test]
    fn a_pod_that_is_gone_was_let_go() {
        let recorded = json!({"uncountedTerminatedPods": {"failed": ["uid-gone"]}, "failed": 2});
        let case = job(json!({"suspend": true, "completions": 5}), &[]).status(&recorded);
        let text = case.text();
        assert!(
            text.contains(r#""failed":3"#) && text.contains(r#"{"failed":null,"succeeded":null}"#),
            "{text}"
        );
    }

    /// Somebody took its owner reference off while it was going: it cannot be adopted, but it may be given back.
    #[test]
    fn a_recorded_pod_that_is_taken_from_us_is_not_counted_yet() {
        let recorded = json!({"uncountedTerminatedPods": {"failed": ["uid-a"]}});
        for (pod, is_counted) in [("a failed stray going", false), ("a failed stray going bare", true)] {
            let text = job(json!({"parallelism": 0, "completions": 5}), &[pod]).status(&recorded).text();
            assert_eq!(text.contains(r#""failed":1"#), is_counted, "{pod}: {text}");
            assert_eq!(text.contains("uncounted"), is_counted, "{pod}: {text}");
        }
    }

    #[test]
    fn no_more_than_500_are_recorded_at_once() {
        let pods: Vec<String> = (0..700).map(|pod| format!("p{pod} ok")).collect();
        let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
        let plan = job(json!({"parallelism": 1, "completions": 9000}), &pods).plan();
        assert_eq!(plan.actions().filter(|action| action.reason == "RemoveFinalizer").count(), 500);
    }

    /// Of an index the list of indexes is record enough, whoever and however many have done it.
    #[test]
    fn indexes_need_no_uids() {
        let spec = json!({"parallelism": 2, "completions": 5, "completionMode": "Indexed"});
        let case = job(spec, &["a ok index=3", "b ok index=3", "c ok index=1", "d ok index=7", "e ok"])
            .status(&json!({"completedIndexes": "1", "succeeded": 1}));
        let case = super::super::fixture::Case {
            spec: json!({"parallelism": 0, "completions": 5, "completionMode": "Indexed"}),
            ..case
        };
        assert_snapshot!(case.text(), @r#"
        1. patch Job shop/pi status {"completedIndexes":"1,3","ready":0,"succeeded":2,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}
        2. patch Pod shop/e {"metadata":{"finalizers":[]}} (counted)
        2. patch Pod shop/c {"metadata":{"finalizers":[]}} (counted)
        2. patch Pod shop/d {"metadata":{"finalizers":[]}} (counted)
        2. patch Pod shop/a {"metadata":{"finalizers":[]}} (counted)
        2. patch Pod shop/b {"metadata":{"finalizers":[]}} (counted)
        waiting on 2 of 5 pods succeeded
        "#);
    }

    /// The Job goes, its pods with it: nothing waits for a count that nobody will read.
    #[test]
    fn a_job_that_is_being_deleted_lets_all_pods_go() {
        let mut case =
            job(json!({"parallelism": 2, "completions": 5}), &["a run", "b failed", "c run going"]);
        case.metadata["deletionTimestamp"] = "2026-01-01T00:00:09Z".into();
        assert_snapshot!(case.text(), @r#"
        1. patch Job shop/pi status {"active":1,"ready":0,"terminating":1,"uncountedTerminatedPods":{"failed":["uid-b","uid-c"],"succeeded":null}}
        2. patch Pod shop/a {"metadata":{"finalizers":[]}} (counted)
        2. patch Pod shop/b {"metadata":{"finalizers":[]}} (counted)
        2. patch Pod shop/c {"metadata":{"finalizers":[]}} (counted)
        waiting on 1 pods still terminating
        waiting on its own deletion
        "#);
    }

    #[test]
    fn a_finished_job_lets_go_what_was_left() {
        let complete = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        let case = job(json!({"completions": 1}), &["a ok", "b ok bare"]).status(&complete);
        assert_snapshot!(case.text(), @r#"1. patch Pod shop/a {"metadata":{"finalizers":[]}} (its Job is finished)"#);
    }

    #[test]
    fn finalizers_of_others_stay() {
        let pod = super::super::fixture::pod(trysail_core::Face::Native, "a ok");
        let mut pod = pod;
        pod["metadata"]["finalizers"] = json!(["x/y", "batch.kubernetes.io/job-tracking", "z/w"]);
        let pod = serde_json::from_value(pod).unwrap();
        let action = super::without_finalizer(&pod, "batch.kubernetes.io/job-tracking", "").unwrap();
        assert_eq!(action.to_string(), r#"patch Pod shop/a {"metadata":{"finalizers":["x/y","z/w"]}}"#);
    }

    /// The event says what happened and what to do.
    #[test]
    fn pods_that_lost_their_finalizer_are_told() {
        let lost = job(json!({"parallelism": 1, "completions": 5}), &["a ok bare", "b ok bare"])
            .status(&json!({"succeeded": 1}));
        let text = lost.text();
        assert!(text.contains("event PodsNotCounted: 1 finished pods had lost their finalizer"), "{text}");
        let running = job(json!({"parallelism": 1, "completions": 5}), &["a run bare"]);
        let plan = running.plan();
        let restored = plan.actions().find(|action| action.reason == "AddFinalizer").unwrap();
        assert_eq!(restored.on_success.as_ref().unwrap().reason, "FinalizerRestored");
    }
}
