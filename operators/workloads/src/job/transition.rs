//! What a Job's status may become: the rules by which a native API server refuses a status, written from its
//! validation. For our own kind nobody else checks all of them. The audit asks before anything is sent.

use trysail_core::condition::Conditions;

use crate::views::{Job, JobStatus};

/// What is wrong with the change of `job.status` to `new`, in the server's order; `None` when it is legal.
pub(super) fn illegal(job: &Job, new: &JobStatus) -> Option<String> {
    let old = &job.status;
    counters(job, old, new)
        .or_else(|| uncounted(new))
        .or_else(|| conditions(&old.conditions, &new.conditions))
        .or_else(|| finished(job, old, new))
        .or_else(|| times(job, old, new))
        .or_else(|| index_lists(job, old, new))
}

fn counters(job: &Job, old: &JobStatus, new: &JobStatus) -> Option<String> {
    let value = |count: Option<i32>| count.unwrap_or(0);
    for (name, count) in [
        ("active", new.active),
        ("ready", new.ready),
        ("terminating", new.terminating),
        ("succeeded", new.succeeded),
        ("failed", new.failed),
    ] {
        if value(count) < 0 {
            return Some(format!("{name} is negative"));
        }
    }
    if value(new.ready) > value(new.active) {
        return Some("more ready pods than active ones".to_owned());
    }
    if value(new.failed) < value(old.failed) {
        return Some("failed decreases".to_owned());
    }
    let is_elastic = job.is_indexed() && job.completions == Some(job.parallelism);
    let shrinks = value(new.succeeded) < value(old.succeeded) && !is_elastic;
    shrinks.then(|| "succeeded decreases".to_owned())
}

fn uncounted(new: &JobStatus) -> Option<String> {
    let pods = new.uncounted_terminated_pods.as_ref()?;
    let mut all: Vec<_> = pods.succeeded.iter().chain(&pods.failed).collect();
    let length = all.len();
    all.sort();
    all.dedup();
    if all.len() < length {
        return Some("a pod is uncounted twice".to_owned());
    }
    all.iter().any(|uid| uid.as_bytes().is_empty()).then(|| "an uncounted pod without a uid".to_owned())
}

fn conditions(old: &Conditions, new: &Conditions) -> Option<String> {
    for kind in ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"] {
        if old.is_true(kind) && !new.is_true(kind) {
            return Some(format!("{kind} is taken back"));
        }
    }
    for (one, other) in [
        ("Complete", "Failed"),
        ("Complete", "FailureTarget"),
        ("SuccessCriteriaMet", "Failed"),
        ("SuccessCriteriaMet", "FailureTarget"),
    ] {
        if new.is_true(one) && new.is_true(other) {
            return Some(format!("both {one} and {other}"));
        }
    }
    for (terminal, first) in [("Failed", "FailureTarget"), ("Complete", "SuccessCriteriaMet")] {
        // Stricter than the server, which takes both at once: whoever watches is to see two steps.
        if new.is_true(terminal) && !old.is_true(terminal) && !(new.is_true(first) && old.is_true(first)) {
            return Some(format!("{terminal} without {first} before it"));
        }
    }
    None
}

fn finished(job: &Job, old: &JobStatus, new: &JobStatus) -> Option<String> {
    let is_finished =
        |status: &JobStatus| status.conditions.is_true("Complete") || status.conditions.is_true("Failed");
    if is_finished(old) {
        return Some("the Job is finished".to_owned());
    }
    if !is_finished(new) {
        return None;
    }
    if new.active.unwrap_or(0) > 0 || new.terminating.unwrap_or(0) > 0 {
        return Some("finished with active or terminating pods".to_owned());
    }
    if new.uncounted_terminated_pods.as_ref().is_some_and(|pods| !pods.is_empty()) {
        return Some("finished with uncounted pods".to_owned());
    }
    let needs_start = !(job.suspend && job.completions == Some(0));
    (needs_start && new.start_time.is_none()).then(|| "finished without having started".to_owned())
}

fn times(job: &Job, old: &JobStatus, new: &JobStatus) -> Option<String> {
    let is_complete = new.conditions.is_true("Complete");
    if is_complete != new.completion_time.is_some() {
        return Some("a completion time belongs to Complete".to_owned());
    }
    if old.completion_time.is_some() && new.completion_time != old.completion_time {
        return Some("the completion time changes".to_owned());
    }
    if new.completion_time.is_some_and(|end| new.start_time.is_some_and(|start| end < start)) {
        return Some("completed before it started".to_owned());
    }
    let said = |status: &JobStatus, value: &str| {
        status.conditions.get("Suspended").is_some_and(|condition| condition.status == value)
    };
    let is_resuming = said(old, "True") && said(new, "False");
    let moves = old.start_time.is_some() && new.start_time != old.start_time;
    (moves && !job.suspend && !is_resuming).then(|| "the start time of a running Job changes".to_owned())
}

fn index_lists(job: &Job, old: &JobStatus, new: &JobStatus) -> Option<String> {
    let completed = new.completed_indexes.as_deref().unwrap_or_default();
    if !completed.is_empty() && !job.is_indexed() {
        return Some("completed indexes of a NonIndexed Job".to_owned());
    }
    if new.failed_indexes.is_some() && job.backoff_limit_per_index.is_none() {
        return Some("failed indexes without backoffLimitPerIndex".to_owned());
    }
    let completions = job.completions?;
    if (&new.completed_indexes, &new.failed_indexes) == (&old.completed_indexes, &old.failed_indexes) {
        return None;
    }
    let failed = new.failed_indexes.as_deref().unwrap_or_default();
    let (Some(done), Some(lost)) = (ranges(completed, completions), ranges(failed, completions)) else {
        return Some(format!("malformed indexes: {completed:?}, {failed:?}"));
    };
    let overlap = done.iter().any(|a| lost.iter().any(|b| a.0 <= b.1 && b.0 <= a.1));
    overlap.then(|| "an index is both completed and failed".to_owned())
}

/// Ranges in strictly rising order below `completions`; `None` for anything else.
fn ranges(text: &str, completions: i32) -> Option<Vec<(i32, i32)>> {
    let mut ranges = Vec::new();
    let mut least = 0;
    for piece in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last): (i32, i32) = match piece.split_once('-') {
            Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
            None => (piece.parse().ok()?, piece.parse().ok()?),
        };
        let is_range = piece.contains('-');
        if first < least || last < first || (is_range && last == first) || last >= completions {
            return None;
        }
        ranges.push((first, last));
        least = last.checked_add(1)?;
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judge(spec: &Value, old: &Value, new: Value) -> Option<String> {
        let mut whole = json!({"template": {}, "completions": 3});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let job = json!({"metadata": {"name": "pi"}, "spec": whole, "status": old});
        illegal(&serde_json::from_value(job).unwrap(), &serde_json::from_value(new).unwrap())
    }

    fn said(kinds: &[&str]) -> Value {
        kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
    }

    /// Each of these is refused by a native API server, or would hide the first of the two steps.
    #[test]
    fn illegal_statuses_are_found() {
        let (plain, indexed) = (json!({}), json!({"completionMode": "Indexed", "backoffLimitPerIndex": 1}));
        let start = "2026-01-01T00:00:00Z";
        for (spec, old, new, what) in [
            (&plain, json!({}), json!({"active": 1, "ready": 2}), "ready"),
            (&plain, json!({"failed": 2}), json!({"failed": 1}), "failed decreases"),
            (&plain, json!({"succeeded": 2}), json!({}), "succeeded decreases"),
            (
                &plain,
                json!({}),
                json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}}),
                "twice",
            ),
            (
                &plain,
                json!({}),
                json!({"conditions": said(&["Failed"]), "startTime": start}),
                "FailureTarget before",
            ),
            (
                &plain,
                json!({}),
                json!({"conditions": said(&["SuccessCriteriaMet", "Complete"]), "startTime": start, "completionTime": start}),
                "SuccessCriteriaMet before",
            ),
            (&plain, json!({"conditions": said(&["FailureTarget"])}), json!({}), "taken back"),
            (
                &plain,
                json!({"conditions": said(&["FailureTarget"])}),
                json!({"conditions": said(&["FailureTarget", "SuccessCriteriaMet"])}),
                "both",
            ),
            (
                &plain,
                json!({"conditions": said(&["FailureTarget"])}),
                json!({"conditions": said(&["FailureTarget", "Failed"]), "active": 1, "startTime": start}),
                "active",
            ),
            (
                &plain,
                json!({"conditions": said(&["FailureTarget"])}),
                json!({"conditions": said(&["FailureTarget", "Failed"])}),
                "started",
            ),
            (&plain, json!({"startTime": start}), json!({"startTime": "2026-01-02T00:00:00Z"}), "start time"),
            (&plain, json!({}), json!({"completionTime": start}), "belongs to Complete"),
            (&plain, json!({}), json!({"completedIndexes": "1"}), "NonIndexed"),
            (&plain, json!({}), json!({"failedIndexes": ""}), "backoffLimitPerIndex"),
            (&indexed, json!({}), json!({"completedIndexes": "1-3"}), "malformed"),
            (&indexed, json!({}), json!({"completedIndexes": "1,0"}), "malformed"),
            (&indexed, json!({}), json!({"completedIndexes": "0-2", "failedIndexes": "1"}), "both completed"),
        ] {
            let found = judge(spec, &old, new.clone());
            assert!(found.as_ref().is_some_and(|found| found.contains(what)), "{old} {new}: {found:?}");
        }
    }

    #[test]
    fn legal_ones_are_not() {
        let elastic = json!({"completionMode": "Indexed", "parallelism": 3});
        assert_eq!(
            judge(&elastic, &json!({"succeeded": 3}), json!({"succeeded": 2, "completedIndexes": "0,1"})),
            None
        );
        let resumed = |status| json!([{"type": "Suspended", "status": status}]);
        let old = json!({"startTime": "2026-01-01T00:00:00Z", "conditions": resumed("True")});
        let new = json!({"startTime": "2026-01-02T00:00:00Z", "conditions": resumed("False")});
        assert_eq!(judge(&json!({}), &old, new), None);
        let first = json!({"conditions": said(&["SuccessCriteriaMet"]), "startTime": "2026-01-01T00:00:00Z"});
        let second = json!({"conditions": said(&["SuccessCriteriaMet", "Complete"]), "succeeded": 3,
            "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:00Z"});
        assert_eq!(judge(&json!({}), &first, second), None);
    }
}
