//! Jobs: every finished pod is counted exactly once, whatever is lost on the way.
//!
//! A pod's uid is first listed in `status.uncountedTerminatedPods` (a success of an Indexed Job goes to
//! `completedIndexes` at once), then its finalizer is taken off, then the uid is dropped from the list and the
//! counter grows by one. So at every write of a status:
//!
//! - a uid that enters a list is of a pod that did finish so, and was never in a list before;
//! - a uid leaves a list only when the pod's finalizer is off;
//! - counters grow by exactly what left the lists; `succeeded` of an Indexed Job is the number of its indexes;
//!
//! and no finalizer is taken off a finished pod that was not listed before, but where nothing is to be counted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use trysail_core::{
    Resource,
    pod::{JOB_COMPLETION_INDEX, JOB_CONTROLLER_UID},
    resource::PODS,
};

use super::{Change, Monitor, controller_of, find, has_condition, is_finished, is_terminating, name, uid};
use crate::cluster::{Cluster, Writer, parse_indexes};

/// What is known of a pod of a Job.
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    succeeded: bool,
    failed: bool,
    deleted: bool,
    tracked: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counting {
    pods: BTreeMap<String, Fate>,
    /// Uids that ever were in a list.
    listed: BTreeSet<String>,
}

impl Monitor for Counting {
    fn judge(&mut self, cluster: &Cluster, change: &Change<'_>, found: &mut Vec<String>) {
        match (change.resource, change.before, change.after) {
            (PODS, before, after) => self.pod(cluster, before, after, change.writer, found),
            (resource, Some(before), Some(after))
                if resource.plural == "jobs"
                    && before["status"] != after["status"]
                    && change.writer == Writer::Controller =>
            {
                self.status(before, after, found);
            }
            _ => {}
        }
    }
}

impl Counting {
    fn pod(
        &mut self,
        cluster: &Cluster,
        before: Option<&Value>,
        after: Option<&Value>,
        writer: Writer,
        found: &mut Vec<String>,
    ) {
        let Some(pod) = after.or(before) else { return };
        let Some(owner) = controller_of(pod, "Job") else {
            // Somebody took it from its Job, which cannot know any more whether it is held.
            self.pods.entry(uid(pod).to_owned()).and_modify(|fate| fate.tracked = false);
            return;
        };
        let is_released = before.is_some_and(is_tracked) && !after.is_some_and(is_tracked);
        let fate = self.pods.entry(uid(pod).to_owned()).or_default();
        fate.succeeded |= pod["status"]["phase"] == "Succeeded";
        fate.failed |= pod["status"]["phase"] == "Failed";
        fate.deleted |= after.is_none_or(is_terminating);
        fate.tracked = after.is_some_and(is_tracked);
        if is_released && writer == Writer::Controller && is_finished(pod) {
            let job = find(cluster, Resource::jobs, owner);
            if job.is_some_and(|job| !self.listed.contains(uid(pod)) && must_be_counted(&job, pod)) {
                found.push(format!("{}: its finalizer was taken off before it was counted", name(pod)));
            }
        }
    }

    fn status(&mut self, before: &Value, after: &Value, found: &mut Vec<String>) {
        let mut report = |what: String| found.push(format!("Job {}: {what}", name(after)));
        for list in ["succeeded", "failed"] {
            let (was, is) = (uncounted(before, list), uncounted(after, list));
            for entered in is.difference(&was) {
                let fate = self.pods.get(entered).copied().unwrap_or_default();
                let did = if list == "succeeded" { fate.succeeded } else { fate.failed || fate.deleted };
                if !did {
                    report(format!("lists {entered} as {list}, which it has not"));
                }
                if !self.listed.insert(entered.clone()) {
                    report(format!("lists {entered} a second time"));
                }
            }
            let left: Vec<&String> = was.difference(&is).collect();
            let held = left.iter().filter(|left| self.pods.get(**left).is_some_and(|fate| fate.tracked));
            for held in held {
                report(format!("counts {held} while its finalizer is on"));
            }
            let grown = count(after, list) - count(before, list);
            let by_index = list == "succeeded" && after["spec"]["completionMode"] == "Indexed";
            if !by_index && grown != left.len() as i64 {
                report(format!("{list} grew by {grown} though {} pods left the list", left.len()));
            }
        }
        if after["spec"]["completionMode"] == "Indexed" {
            let (indexes, succeeded) = (completed(after).len() as i64, count(after, "succeeded"));
            // Indexes are dropped where an elastic Job shrinks; the API server takes no smaller number of pods unless
            // both sizes are still equal (`RejectDecreasingSucceededCounter`).
            let is_stuck =
                succeeded > indexes && after["spec"]["completions"] != after["spec"]["parallelism"];
            if indexes != succeeded && !is_stuck {
                report(format!("succeeded is {succeeded} with {indexes} completed indexes"));
            }
        }
    }
}

fn is_tracked(pod: &Value) -> bool {
    let finalizers = pod["metadata"]["finalizers"].as_array().into_iter().flatten();
    finalizers.filter_map(Value::as_str).any(|name| name.ends_with("/job-tracking"))
}

fn uncounted(job: &Value, list: &str) -> BTreeSet<String> {
    let uids = job["status"]["uncountedTerminatedPods"][list].as_array().into_iter().flatten();
    uids.filter_map(|uid| uid.as_str().map(str::to_owned)).collect()
}

fn count(job: &Value, name: &str) -> i64 {
    job["status"][name].as_i64().unwrap_or(0)
}

fn completed(job: &Value) -> BTreeSet<i64> {
    let text = job["status"]["completedIndexes"].as_str().unwrap_or_default();
    parse_indexes(text, i64::MAX).unwrap_or_default()
}

/// Where it is not: the Job is over, its success is met already, a policy may ignore the failure, the index is
/// counted by itself, or somebody has taken the pod away by its labels.
fn must_be_counted(job: &Value, pod: &Value) -> bool {
    let is_over = ["Complete", "Failed", "SuccessCriteriaMet"].iter().any(|kind| has_condition(job, kind));
    let is_failed = pod["status"]["phase"] == "Failed";
    let may_be_ignored = is_failed && !job["spec"]["podFailurePolicy"].is_null();
    let index = pod["metadata"]["annotations"][JOB_COMPLETION_INDEX].as_str();
    let index = index.and_then(|text| text.parse::<i64>().ok());
    let is_settled = index.is_some_and(|index| {
        completed(job).contains(&index) || index >= job["spec"]["completions"].as_i64().unwrap_or(i64::MAX)
    });
    let label = &pod["metadata"]["labels"][JOB_CONTROLLER_UID];
    let is_taken = label.is_string() && *label != job["metadata"]["uid"];
    !(is_over || is_terminating(job) || may_be_ignored || is_settled || is_taken)
}
