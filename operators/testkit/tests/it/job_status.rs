//! Transitions of a Job's status: what upstream's server takes and what it refuses.

use serde_json::{Value, json};
use trysail_core::{Face, Resource};
use trysail_testkit::{ApiError, Cluster, cluster::Writer, fixtures};

use crate::{create, key};

const START: &str = "2026-01-01T00:00:00Z";
const END: &str = "2026-01-01T00:00:09Z";

fn is(kinds: &[&str]) -> Value {
    let conditions = kinds.iter().map(|kind| json!({"type": kind, "status": "True"}));
    json!(conditions.collect::<Vec<_>>())
}

/// Writes one status after the other; answers the words by which the last one was refused.
fn write(spec: &Value, statuses: &[Value]) -> Option<String> {
    let mut cluster = Cluster::default();
    let jobs = Resource::jobs(Face::Crd);
    let mut manifest = fixtures::job(Face::Crd, "sum", "v1");
    manifest["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    create(&mut cluster, jobs, manifest);
    let (last, before) = statuses.split_last().unwrap();
    let mut write = |status: &Value| {
        let body = json!({"status": status});
        cluster.patch(jobs, &key("sum"), (None, 0), Some("status"), &body, Writer::Controller)
    };
    for status in before {
        write(status).unwrap();
    }
    match write(last) {
        Ok(_) => None,
        Err(ApiError::Invalid(message)) => Some(message),
        Err(other) => Some(format!("{other:?}")),
    }
}

fn started() -> Value {
    json!({"startTime": START, "active": 1, "ready": 1, "uncountedTerminatedPods": {}})
}

fn over(kinds: &[&str], completed: Option<&str>) -> Value {
    json!({"active": 0, "ready": 0, "conditions": is(kinds), "completionTime": completed})
}

#[test]
fn the_two_ways_to_the_end_are_taken() {
    let criteria =
        json!({"active": 0, "ready": 0, "succeeded": 1, "conditions": is(&["SuccessCriteriaMet"])});
    let complete = over(&["SuccessCriteriaMet", "Complete"], Some(END));
    assert_eq!(write(&json!({}), &[started(), criteria, complete]), None);
    let target = json!({"conditions": is(&["FailureTarget"])});
    assert_eq!(write(&json!({}), &[started(), target, over(&["FailureTarget", "Failed"], None)]), None);
}

#[test]
fn what_upstream_refuses_is_refused() {
    let indexed =
        json!({"completionMode": "Indexed", "completions": 5, "parallelism": 2, "backoffLimitPerIndex": 1});
    let uncounted = |uids: &[&str]| json!({"uncountedTerminatedPods": {"succeeded": uids}});
    let cases = [
        (json!({}), vec![started(), over(&["Complete"], Some(END))], "without the SuccessCriteriaMet"),
        (json!({}), vec![started(), over(&["Failed"], None)], "without the FailureTarget"),
        (
            json!({}),
            vec![started(), over(&["SuccessCriteriaMet", "Complete"], None)],
            "completionTime is required",
        ),
        (json!({}), vec![started(), json!({"completionTime": END})], "no Complete=True"),
        (
            json!({}),
            vec![started(), over(&["SuccessCriteriaMet", "FailureTarget"], None)],
            "FailureTarget=true",
        ),
        (
            json!({}),
            vec![json!({"conditions": is(&["FailureTarget"])}), json!({"conditions": []})],
            "cannot disable",
        ),
        (json!({}), vec![json!({"failed": 2}), json!({"failed": 1})], "decrease the failed"),
        (json!({}), vec![json!({"succeeded": 2}), json!({"succeeded": 1})], "decrease the succeeded"),
        (json!({}), vec![json!({"active": 1, "ready": 2})], "more ready pods than active"),
        (json!({}), vec![json!({"active": -1})], "greater than or equal to 0"),
        (json!({}), vec![uncounted(&["a", "a"])], "Duplicate"),
        (json!({}), vec![started(), json!({"startTime": END})], "startTime: field is immutable"),
        (json!({}), vec![json!({"completedIndexes": "0"})], "non-indexed"),
        (indexed.clone(), vec![json!({"completedIndexes": "0-5"})], "too large index"),
        (indexed.clone(), vec![json!({"completedIndexes": "3,1"})], "non-increasing"),
        (indexed, vec![json!({"completedIndexes": "0-2", "failedIndexes": "2"})], "overlap"),
        (
            json!({"completionMode": "Indexed", "completions": 5}),
            vec![json!({"failedIndexes": "1"})],
            "backoffLimitPerIndex is null",
        ),
    ];
    for (spec, statuses, words) in cases {
        let refused = write(&spec, &statuses);
        assert!(refused.as_ref().is_some_and(|message| message.contains(words)), "{statuses:?}: {refused:?}");
    }
}

/// The end itself wants everything settled.
#[test]
fn a_finished_job_has_nothing_open() {
    let criteria = json!({"active": 0, "ready": 0, "conditions": is(&["SuccessCriteriaMet"])});
    let ends = [
        (json!({"active": 1}), "active>0"),
        (json!({"terminating": 1}), "terminating>0"),
        (json!({"uncountedTerminatedPods": {"failed": ["a"]}}), "must be empty"),
        (json!({"startTime": null}), "startTime is required"),
    ];
    for (open, words) in ends {
        let mut end = over(&["SuccessCriteriaMet", "Complete"], Some(END));
        end.as_object_mut().unwrap().extend(open.as_object().unwrap().clone());
        let first =
            if open["startTime"].is_null() && words.starts_with("startTime") { json!({}) } else { started() };
        let refused = write(&json!({}), &[first, criteria.clone(), end]);
        assert!(refused.as_ref().is_some_and(|message| message.contains(words)), "{open}: {refused:?}");
    }
}

/// Resuming sets the clock anew, and an elastic Job may lose what it had.
#[test]
fn the_exceptions_are_known() {
    let suspended = json!({"conditions": [{"type": "Suspended", "status": "True"}]});
    let resumed = json!({"startTime": END, "conditions": [{"type": "Suspended", "status": "False"}]});
    assert_eq!(write(&json!({}), &[started(), suspended, resumed]), None);
    let elastic = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3});
    let statuses = [
        json!({"succeeded": 2, "completedIndexes": "0,2"}),
        json!({"succeeded": 1, "completedIndexes": "0"}),
    ];
    assert_eq!(write(&elastic, &statuses), None);
}
