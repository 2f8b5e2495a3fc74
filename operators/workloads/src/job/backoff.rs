//! When a failed pod may be replaced: 10 s after the first failure, then 20 s, 40 s … 10 min, until a pod succeeds.
//!
//! Upstream keeps the number of failures in memory and forgets it with every restart. Here it follows from the pods
//! that are there (a finished pod stays until its Job is deleted) and from the counters of the status; what is
//! remembered only adds pods that were deleted meanwhile.

use jiff::SignedDuration;
use trysail_core::{
    Timestamp,
    pod::{Phase, Pod},
};

use super::{Snapshot, seen, tally::Tally};

/// After the first failure.
const FIRST: SignedDuration = SignedDuration::from_secs(10);
/// After the seventh and all later ones.
const LONGEST: SignedDuration = SignedDuration::from_mins(10);

/// Failures since a pod last succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    failures: i32,
    last_failure: Option<Timestamp>,
    last_success: Option<Timestamp>,
}

/// The record as of this look, from what is remembered and what is seen.
pub(super) fn record(snapshot: &Snapshot, tally: &Tally<'_>) -> Record {
    let job = &snapshot.job;
    let remembered = snapshot.context.memory.backoff;
    let countable = || tally.pods.iter().filter(|pod| seen::is_countable(pod, job));
    let succeeded = countable().filter(|pod| pod.phase == Phase::Succeeded).map(|pod| seen::finish_time(pod));
    let last_success = succeeded.max().max(remembered.last_success);
    // What lost its finalizer without having been counted was deleted by us (scaled down, suspended): no failure.
    let is_failure = |pod: &Pod| {
        if tally.is_tracked(pod) {
            seen::is_failed(pod, job)
        } else {
            pod.phase == Phase::Failed && !pod.meta.is_terminating()
        }
    };
    let is_recent = |at: &Timestamp| last_success.is_none_or(|success| *at > success);
    let times = countable().filter(|pod| is_failure(pod)).map(|pod| seen::finish_time(pod));
    let recent: Vec<Timestamp> = times.filter(is_recent).collect();

    let mut failures = i32::try_from(recent.len()).unwrap_or(i32::MAX);
    let mut last_failure = recent.into_iter().max();
    if remembered.last_failure.as_ref().is_some_and(is_recent) {
        failures = failures.max(remembered.failures);
        last_failure = last_failure.max(remembered.last_failure);
    }
    if tally.succeeded == 0 {
        // Without a success all failures count, and the counter outlives the pods.
        failures = failures.max(tally.failed);
    }
    Record { failures, last_failure, last_success }
}

impl Record {
    /// When the next pod may be created; `None` for now.
    pub(super) fn hold_until(self, now: Timestamp) -> Option<Timestamp> {
        hold_until(self.failures, self.last_failure?, now)
    }
}

/// The same for one index with a limit of its own: its failures are in its last pod's annotations.
pub(super) fn index_hold_until(last_failed: Option<&Pod>, now: Timestamp) -> Option<Timestamp> {
    let pod = last_failed?;
    hold_until(seen::all_failures(pod).saturating_add(1), seen::finish_time(pod), now)
}

fn hold_until(failures: i32, last_failure: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let doublings = failures.checked_sub(1).filter(|doublings| *doublings >= 0)?;
    let wait = FIRST.checked_mul(1 << doublings.min(10))?.min(LONGEST);
    let due = last_failure.checked_add(wait).ok()?;
    (now < due).then_some(due)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::fixture::job, *};

    #[test]
    fn the_wait_doubles_from_ten_seconds_to_ten_minutes() {
        let ended = Timestamp::from_second(1000).unwrap();
        for (failures, seconds) in
            [(1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 320), (7, 600), (99, 600)]
        {
            let due = ended + SignedDuration::from_secs(seconds);
            assert_eq!(hold_until(failures, ended, ended), Some(due), "{failures}");
            assert_eq!(hold_until(failures, ended, due), None, "{failures}");
        }
        assert_eq!(hold_until(0, ended, ended), None);
        assert_eq!(hold_until(i32::MAX, ended, ended), Some(ended + LONGEST));
    }

    fn waits_until(spec: serde_json::Value, status: &serde_json::Value, pods: &[&str]) -> Option<String> {
        let text = job(spec, pods).status(status).text();
        let line = text.lines().find(|line| line.ends_with("so the next ones come later"))?;
        Some(line.trim_start_matches("waiting on 2026-01-01T").split("Z:").next()?.to_owned())
    }

    /// Nothing is remembered here: what there is says it, as after a restart.
    #[test]
    fn a_restart_keeps_the_back_off() {
        let spec = || json!({"completions": 9, "backoffLimit": 99});
        let none = json!({});
        let wait = |pods: &[&str]| waits_until(spec(), &none, pods);
        assert_eq!(wait(&["a failed ended=1"]).as_deref(), Some("00:00:19"));
        assert_eq!(wait(&["a failed ended=10"]), None);
        assert_eq!(wait(&["a failed ended=10 bare", "b failed ended=1"]).as_deref(), Some("00:00:29"));
        assert_eq!(
            wait(&["a failed ended=9", "b ok ended=5", "c failed ended=1"]).as_deref(),
            Some("00:00:19")
        );
        assert_eq!(wait(&["a failed ended=9", "b ok ended=5"]), None, "a success ends it");
        // Failed pods that are gone are in the counter, while nothing has succeeded.
        let counted = json!({"failed": 3});
        assert_eq!(waits_until(spec(), &counted, &["d failed ended=1"]).as_deref(), Some("00:01:29"));
    }

    #[test]
    fn a_pod_that_is_deleted_has_failed_and_one_that_was_too_many_has_not() {
        let wait = |pod: &str| waits_until(json!({"completions": 9}), &json!({}), &[pod]);
        assert_eq!(wait("a run going").as_deref(), Some("00:00:20"));
        assert_eq!(wait("a run going bare"), None);
    }
}
