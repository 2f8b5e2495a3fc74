//! Transitions of a Job's status, as `ValidateJobStatusUpdate` and the options of the Job's status strategy
//! judge them in Kubernetes 1.36. Where a rule there applies only to fields that changed, it does here.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ApiError, invalid, job::has_condition, refuse_first};

/// The server allows itself and others no conditions that go back.
const FINAL: [&str; 4] = ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"];

#[expect(clippy::struct_excessive_bools, reason = "each is a condition of the Job")]
struct Facts<'a> {
    status: &'a Value,
    complete: bool,
    failed: bool,
    failure_target: bool,
    success_criteria: bool,
}

impl<'a> Facts<'a> {
    fn of(object: &'a Value) -> Self {
        let status = &object["status"];
        Self {
            status,
            complete: has_condition(status, "Complete"),
            failed: has_condition(status, "Failed"),
            failure_target: has_condition(status, "FailureTarget"),
            success_criteria: has_condition(status, "SuccessCriteriaMet"),
        }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }

    fn count(&self, name: &str) -> i64 {
        self.status[name].as_i64().unwrap_or(0)
    }

    fn text(&self, name: &str) -> &str {
        self.status[name].as_str().unwrap_or_default()
    }

    fn uncounted(&self) -> Vec<&str> {
        let lists = &self.status["uncountedTerminatedPods"];
        let uids = ["succeeded", "failed"].into_iter().filter_map(|list| lists[list].as_array());
        uids.flatten().filter_map(Value::as_str).collect()
    }
}

pub(super) fn changed(old: &Value, object: &Value) -> Result<(), ApiError> {
    let (was, is) = (Facts::of(old), Facts::of(object));
    let spec = &object["spec"];
    counts(&is)?;
    refuse_first(&[
        (
            is.success_criteria && is.failure_target,
            "status.conditions: cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
        (
            is.success_criteria && is.failed,
            "status.conditions: cannot set SuccessCriteriaMet=True and Failed=true conditions",
        ),
        (is.complete && is.failed, "status.conditions: cannot set Complete=True and Failed=true conditions"),
        (
            is.complete && is.failure_target,
            "status.conditions: cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            (was.failed != is.failed || is_new(&was, &is, "failedIndexes"))
                && is.failed
                && !is.failure_target,
            "status.conditions: cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            was.complete != is.complete && is.complete && !is.success_criteria,
            "status.conditions: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (
            was.complete && !was.success_criteria && is.success_criteria,
            "status.conditions: cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        ),
    ])?;
    for kind in FINAL {
        if has_condition(was.status, kind) && !has_condition(is.status, kind) {
            return Err(invalid(format!(
                "status.conditions: cannot disable the terminal {kind}=True condition"
            )));
        }
    }
    times(&was, &is, spec)?;
    finished(&was, &is, spec)?;
    counters(&was, &is, spec)?;
    indexes(&was, &is, spec)
}

fn is_new(was: &Facts<'_>, is: &Facts<'_>, name: &str) -> bool {
    was.status[name] != is.status[name]
}

fn counts(is: &Facts<'_>) -> Result<(), ApiError> {
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        if is.count(name) < 0 {
            return Err(invalid(format!("status.{name}: must be greater than or equal to 0")));
        }
    }
    let uncounted = is.uncounted();
    let distinct: BTreeSet<&str> = uncounted.iter().copied().collect();
    refuse_first(&[
        (distinct.len() != uncounted.len(), "status.uncountedTerminatedPods: Duplicate value"),
        (distinct.contains(""), "status.uncountedTerminatedPods: must not be empty"),
    ])
}

fn times(was: &Facts<'_>, is: &Facts<'_>, spec: &Value) -> Result<(), ApiError> {
    let (started, completed) = (is.text("startTime"), is.text("completionTime"));
    let is_touched = is_new(was, is, "completionTime") || was.complete != is.complete;
    let has_false = |status: &Value| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|held| held["type"] == "Suspended" && held["status"] == "False")
    };
    let is_resuming = has_condition(was.status, "Suspended") && has_false(is.status);
    refuse_first(&[
        (
            is_touched && !completed.is_empty() && !is.complete,
            "status.completionTime: cannot set completionTime when there is no Complete=True condition",
        ),
        (
            is_touched && completed.is_empty() && is.complete,
            "status.completionTime: completionTime is required for Complete jobs",
        ),
        (
            !was.text("completionTime").is_empty()
                && !completed.is_empty()
                && is_new(was, is, "completionTime"),
            "status.completionTime: field is immutable",
        ),
        (
            !started.is_empty() && !completed.is_empty() && completed < started,
            "status.completionTime: must be equal to or after `startTime`",
        ),
        (
            !was.text("startTime").is_empty()
                && is_new(was, is, "startTime")
                && spec["suspend"] != true
                && !is_resuming,
            "status.startTime: field is immutable for unsuspended job once set",
        ),
    ])
}

fn finished(was: &Facts<'_>, is: &Facts<'_>, spec: &Value) -> Result<(), ApiError> {
    let is_touched = was.finished() != is.finished();
    let is_empty_and_suspended = spec["suspend"] == true && spec["completions"] == 0;
    let is_changed = |name| is_touched || is_new(was, is, name);
    refuse_first(&[
        (
            is.finished() && is_changed("active") && is.count("active") > 0,
            "status.active: active>0 is invalid for finished job",
        ),
        (
            is.finished() && is_changed("terminating") && is.count("terminating") > 0,
            "status.terminating: terminating>0 is invalid for finished job",
        ),
        (
            is.finished()
                && is_changed("startTime")
                && is.text("startTime").is_empty()
                && !is_empty_and_suspended,
            "status.startTime: startTime is required for finished job",
        ),
        (
            is.finished() && is_changed("uncountedTerminatedPods") && !is.uncounted().is_empty(),
            "status.uncountedTerminatedPods: must be empty for finished job",
        ),
        (is.count("ready") > is.count("active"), "status.ready: cannot set more ready pods than active"),
    ])
}

fn counters(was: &Facts<'_>, is: &Facts<'_>, spec: &Value) -> Result<(), ApiError> {
    let is_indexed = spec["completionMode"] == "Indexed";
    let may_shrink = is_indexed && spec["completions"] == spec["parallelism"];
    refuse_first(&[
        (is.count("failed") < was.count("failed"), "status.failed: cannot decrease the failed counter"),
        (
            is.count("succeeded") < was.count("succeeded") && !may_shrink,
            "status.succeeded: cannot decrease the succeeded counter",
        ),
    ])
}

fn indexes(was: &Facts<'_>, is: &Facts<'_>, spec: &Value) -> Result<(), ApiError> {
    let (is_completed, is_failed) = (is_new(was, is, "completedIndexes"), is_new(was, is, "failedIndexes"));
    if !is_completed && !is_failed {
        return Ok(());
    }
    refuse_first(&[
        (
            is_completed && !is.text("completedIndexes").is_empty() && spec["completionMode"] != "Indexed",
            "status.completedIndexes: cannot set non-empty completedIndexes when non-indexed completion mode",
        ),
        (
            is_failed && !is.status["failedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null(),
            "status.failedIndexes: cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        ),
    ])?;
    let Some(completions) = spec["completions"].as_i64() else { return Ok(()) };
    // What did not change may lie beyond completions that were lowered meanwhile.
    let parse = |name: &str, is_changed: bool| {
        let limit = if is_changed { completions } else { i64::MAX };
        parse_indexes(is.text(name), limit)
            .map_err(|problem| invalid(format!("status.{name}: error parsing {name}: {problem}")))
    };
    let completed = parse("completedIndexes", is_completed)?;
    let failed = parse("failedIndexes", is_failed)?;
    refuse_first(&[(
        completed.intersection(&failed).next().is_some(),
        "status.failedIndexes: failedIndexes and completedIndexes overlap",
    )])
}

/// `1,3-5,7`: ascending, apart from each other, below `completions`.
pub(crate) fn parse_indexes(text: &str, completions: i64) -> Result<BTreeSet<i64>, String> {
    let mut found = BTreeSet::new();
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
        let number = |text: &str| text.parse::<i64>().map_err(|_| format!("cannot convert {text:?}"));
        let (from, to) = (number(first)?, number(last)?);
        if to >= completions {
            return Err(format!("too large index: {to}"));
        }
        let is_single = !interval.contains('-');
        if found.last().is_some_and(|previous| *previous >= from) || (!is_single && from >= to) {
            return Err(format!("non-increasing order at {interval:?}"));
        }
        found.extend(from..=to);
    }
    Ok(found)
}
