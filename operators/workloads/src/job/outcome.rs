//! Whether the Job is decided, and which way. The order of the questions is upstream's, and part of the API: a Job
//! that meets several criteria at once reports the first.

use jiff::SignedDuration;
use trysail_core::{Timestamp, pod::Phase};

use super::{
    Snapshot,
    pod_failure_policy::{self, Judgement},
    seen, success_policy,
    tally::Tally,
};
use crate::views::Job;

/// Said first; `Failed` follows when no pod is left.
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
/// Said first; `Complete` follows when no pod is left.
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";

/// How the Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) is_success: bool,
    /// The reason of both conditions.
    pub(super) reason: String,
    pub(super) message: String,
}

impl Outcome {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { is_success: false, reason: reason.to_owned(), message: message.into() }
    }

    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { is_success: true, reason: reason.to_owned(), message: message.into() }
    }

    /// The condition that is said first.
    pub(super) fn interim(&self) -> &'static str {
        if self.is_success { SUCCESS_CRITERIA_MET } else { FAILURE_TARGET }
    }

    /// The condition that ends it.
    pub(super) fn terminal(&self) -> &'static str {
        if self.is_success { "Complete" } else { "Failed" }
    }
}

/// What is decided before a pod is created or deleted; `None` while the Job goes on.
pub(super) fn decided(snapshot: &Snapshot, tally: &Tally<'_>) -> Option<Outcome> {
    let job = &snapshot.job;
    said_before(job)
        .or_else(|| pod_failure(job, tally))
        .or_else(|| backoff_limit(job, tally))
        .or_else(|| active_deadline(job, snapshot.context.now))
        .or_else(|| indexes(job, tally))
        .or_else(|| {
            success_policy::met(job, &tally.completed).map(|text| Outcome::success("SuccessPolicy", text))
        })
}

/// What is decided once nothing is left to create or delete: `active` pods remain.
pub(super) fn completed(job: &Job, tally: &Tally<'_>, active: i32) -> Option<Outcome> {
    let is_enough = match job.completions {
        // A pod of a work queue that succeeds knows that the queue is empty.
        None => tally.succeeded > 0,
        Some(completions) => tally.succeeded >= completions,
    };
    let outcome = || Outcome::success("CompletionsReached", "Reached expected number of succeeded pods");
    (is_enough && active == 0).then(outcome)
}

/// What was said holds, whatever has changed since.
fn said_before(job: &Job) -> Option<Outcome> {
    let conditions = &job.status.conditions;
    let said = |kind: &str| conditions.get(kind).filter(|condition| condition.status == "True");
    let success = said(SUCCESS_CRITERIA_MET).map(|held| Outcome::success(&held.reason, held.message.clone()));
    success.or_else(|| said(FAILURE_TARGET).map(|held| Outcome::failure(&held.reason, held.message.clone())))
}

/// `spec.podFailurePolicy`, action `FailJob`.
fn pod_failure(job: &Job, tally: &Tally<'_>) -> Option<Outcome> {
    job.pod_failure_policy.as_ref()?;
    let mut failed = tally.pods.iter().filter(|pod| seen::is_failed(pod, job));
    failed.find_map(|pod| match pod_failure_policy::judge(job, pod) {
        Judgement::FailJob(message) => Some(Outcome::failure("PodFailurePolicy", message)),
        Judgement::Count | Judgement::Ignore | Judgement::FailIndex => None,
    })
}

/// `spec.backoffLimit`: of failed pods, or of restarts where failed containers are restarted in place.
fn backoff_limit(job: &Job, tally: &Tally<'_>) -> Option<Outcome> {
    let limit = i64::from(job.backoff_limit);
    let restarts = || -> i64 {
        let running = tally.pods.iter().filter(|pod| matches!(pod.phase, Phase::Running | Phase::Pending));
        running.map(|pod| seen::restarts(pod)).sum()
    };
    // Without any retry the first restart is one too many.
    let is_restarted_out = job.restart_policy == "OnFailure" && restarts() >= limit.max(1);
    let is_over = i64::from(tally.failed) > limit || is_restarted_out;
    is_over.then(|| Outcome::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
}

/// `spec.activeDeadlineSeconds`, counted from the start or the last resumption.
fn active_deadline(job: &Job, now: Timestamp) -> Option<Outcome> {
    let is_past = deadline(job)? <= now;
    is_past.then(|| Outcome::failure("DeadlineExceeded", "Job was active longer than specified deadline"))
}

/// When the deadline passes; a suspended Job has none.
pub(super) fn deadline(job: &Job) -> Option<Timestamp> {
    let seconds = job.active_deadline_seconds.filter(|_| !job.suspend)?;
    job.status.start_time?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// `spec.maxFailedIndexes`, and a Job of which every index is decided.
fn indexes(job: &Job, tally: &Tally<'_>) -> Option<Outcome> {
    let failed = tally.failed_indexes.as_ref()?.total();
    if job.max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Outcome::failure("MaxFailedIndexesExceeded", message));
    }
    let is_decided = failed > 0 && failed.saturating_add(tally.completed.total()) >= job.completions?;
    is_decided.then(|| Outcome::failure("FailedIndexes", "Job has failed indexes"))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::{Value, json};

    use super::super::fixture::job;

    fn reason(spec: Value, status: &Value, pods: &[&str]) -> Option<String> {
        let plan = job(spec, pods).status(status).plan();
        let text = plan.to_string();
        let at = text.find(r#""reason":""#)? + 10;
        Some(text[at..].split('"').next()?.to_owned())
    }

    /// Whoever meets several criteria reports the first, in upstream's order.
    #[test]
    fn the_first_criterion_decides() {
        let indexed = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
            "backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "activeDeadlineSeconds": 10, "backoffLimit": 2,
            "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]},
            "successPolicy": {"rules": [{"succeededCount": 1}]}});
        let failed = ["a failed index=0", "b failed index=1", "c failed index=2"];
        let all = ["a failed index=0 code=42", "b failed index=1", "c failed index=2", "d ok index=2"];
        let none = json!({});
        assert_eq!(reason(indexed.clone(), &none, &all).unwrap(), "PodFailurePolicy");
        assert_eq!(reason(indexed.clone(), &none, &failed).unwrap(), "BackoffLimitExceeded");
        let without = |fields: &[&str]| {
            let mut spec = indexed.clone();
            spec.as_object_mut().unwrap().retain(|field, _| !fields.contains(&field.as_str()));
            spec
        };
        assert_eq!(reason(without(&["backoffLimit"]), &none, &failed).unwrap(), "DeadlineExceeded");
        let later = without(&["backoffLimit", "activeDeadlineSeconds"]);
        assert_eq!(reason(later, &none, &failed).unwrap(), "MaxFailedIndexesExceeded");
        let later = without(&["backoffLimit", "activeDeadlineSeconds", "maxFailedIndexes"]);
        assert_eq!(reason(later.clone(), &none, &failed).unwrap(), "FailedIndexes");
        assert_eq!(reason(later.clone(), &none, &["d ok index=2"]).unwrap(), "SuccessPolicy");
        let said = json!({"conditions": [{"type": "FailureTarget", "status": "True", "reason": "Said"}]});
        let held = job(later, &["d ok index=2", "e run index=0"]).status(&said).text();
        assert!(
            held.contains("delete Pod shop/e (the Job is decided)") && !held.contains("SuccessPolicy"),
            "{held}"
        );
    }

    /// Two steps: what still runs is deleted and recorded as failed; when it is gone, the Job has failed.
    #[test]
    fn a_failed_job_ends_in_two_steps() {
        let spec = json!({"parallelism": 2, "completions": 2, "backoffLimit": 0});
        assert_snapshot!(job(spec.clone(), &["a failed", "b ready"]).text(), @r#"
        1. delete Pod shop/b (the Job is decided)
        2. patch Job shop/pi status {"conditions":[{"lastProbeTime":"2026-01-01T00:00:10Z","lastTransitionTime":"2026-01-01T00:00:10Z","message":"Job has reached the specified backoff limit","reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"}],"ready":0,"terminating":1,"uncountedTerminatedPods":{"failed":["uid-a","uid-b"],"succeeded":null}}
        3. patch Pod shop/a {"metadata":{"finalizers":[]}} (counted)
        waiting on 0 of 2 pods succeeded
        "#);
        let said = json!({"uncountedTerminatedPods": {"failed": ["uid-a", "uid-b"]}, "terminating": 1, "ready": 0,
            "conditions": [{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded",
                "message": "Job has reached the specified backoff limit"}]});
        // The pod takes its time.
        let case = job(spec.clone(), &["a failed bare", "b run going"]).status(&said);
        assert_snapshot!(case.text(), @r#"
        1. patch Job shop/pi status {"failed":1,"uncountedTerminatedPods":{"failed":["uid-b"],"succeeded":null}}
        2. patch Pod shop/b {"metadata":{"finalizers":[]}} (counted)
        waiting on 1 pods still terminating
        waiting on 0 of 2 pods succeeded
        "#);
        let case = job(spec, &["a failed bare"]).status(&said);
        assert_snapshot!(case.text(), @r#"
        1. patch Job shop/pi status {"conditions":[{"message":"Job has reached the specified backoff limit","reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"},{"lastProbeTime":"2026-01-01T00:00:10Z","lastTransitionTime":"2026-01-01T00:00:10Z","message":"Job has reached the specified backoff limit","reason":"BackoffLimitExceeded","status":"True","type":"Failed"}],"failed":2,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}
        waiting on 0 of 2 pods succeeded
        "#);
    }

    /// Counted and let go, and yet there: the end is said when no pod is left.
    #[test]
    fn a_pod_that_takes_its_time_delays_the_end() {
        let spec = json!({"parallelism": 2, "completions": 2, "backoffLimit": 0});
        let said = json!({"failed": 2, "terminating": 1, "ready": 0, "uncountedTerminatedPods": {},
            "conditions": [{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"}]});
        let text = job(spec, &["a failed bare", "b run going bare"]).status(&said).text();
        assert!(!text.contains(r#""type":"Failed""#), "{text}");
    }

    /// What has its finalizer off is in the counters already, and what a policy ignores never is.
    #[test]
    fn pods_count_once_towards_a_limit_and_ignored_ones_never() {
        let counted = job(json!({"parallelism": 1, "completions": 2}), &["a ok bare ended=9000"]);
        let text = counted.status(&json!({"succeeded": 1})).text();
        assert!(text.contains("create Pod"), "one more is needed: {text}");
        let rules = json!([{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [9]}}]);
        let spec = json!({"completions": 2, "backoffLimit": 0, "podFailurePolicy": {"rules": rules}});
        assert_eq!(reason(spec.clone(), &json!({}), &["a failed code=9"]), None);
        assert_eq!(reason(spec, &json!({}), &["a failed code=8"]).unwrap(), "BackoffLimitExceeded");
    }

    /// A zero and a one of every limit.
    #[test]
    fn limits_are_exact() {
        let failed = |limit: i32, count: usize| {
            let pods: Vec<String> = (0..count).map(|pod| format!("p{pod} failed ended=9000")).collect();
            let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
            reason(json!({"backoffLimit": limit, "completions": 9}), &json!({}), &pods).is_some()
        };
        assert!(!failed(0, 0) && failed(0, 1) && !failed(1, 1) && failed(1, 2));
        let restarted = |limit: i32, restarts: i32| {
            let pod = format!("a run restarts={restarts}");
            let template = json!({"metadata": {"labels": {}}, "spec": {"restartPolicy": "OnFailure"}});
            let spec = json!({"backoffLimit": limit, "completions": 9, "template": template});
            reason(spec, &json!({}), &[&pod]).is_some()
        };
        assert!(!restarted(0, 0) && restarted(0, 1) && !restarted(2, 1) && restarted(2, 2));
        let deadline = |seconds: i32| {
            reason(json!({"activeDeadlineSeconds": seconds, "completions": 9}), &json!({}), &["a run"])
                .is_some()
        };
        assert!(deadline(10) && !deadline(11), "the Job started ten seconds ago");
    }

    /// A deadline that nothing else reminds of is a time to look again.
    #[test]
    fn a_deadline_is_a_wake_up() {
        let quiet = json!({"active": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}});
        let text =
            job(json!({"activeDeadlineSeconds": 60, "completions": 9}), &["a run"]).status(&quiet).text();
        assert!(text.contains("look again at 2026-01-01T00:01:00Z"), "{text}");
    }
}
