//! Which index a pod of an Indexed Job works on: which ones are still to be done, and which pods are one too many.

use std::{collections::BTreeMap, sync::Arc};

use trysail_core::pod::Pod;

use super::{deletion_order, indexes::Indexes, seen, tally::Tally};
use crate::views::Job;

/// The lowest `count` indexes that nobody has done, failed for good or works on.
pub(super) fn pending(job: &Job, tally: &Tally<'_>, count: usize) -> Vec<i32> {
    let active = tally.active.iter().filter_map(|pod| seen::index(pod)).collect();
    let mut taken = tally.completed.with(&Indexes::from(&active));
    if job.replaces_failed_only {
        let going = tally.pods.iter().filter(|pod| pod.is_terminating());
        taken = taken.with(&Indexes::from(&going.filter_map(|pod| seen::index(pod)).collect()));
    }
    if let Some(failed) = &tally.failed_indexes {
        taken = taken.with(failed);
    }
    taken.gaps(job.completions.unwrap_or(0), count)
}

/// Pods that no index needs: without a valid index, or with the index of another one that has come further.
/// Answers (surplus, needed).
pub(super) fn duplicates<'a>(job: &Job, active: &[&'a Arc<Pod>]) -> (Vec<&'a Arc<Pod>>, Vec<&'a Arc<Pod>>) {
    let (mut surplus, mut needed) = (Vec::new(), Vec::new());
    let mut by_index: BTreeMap<i32, Vec<&'a Arc<Pod>>> = BTreeMap::new();
    for pod in active {
        match seen::valid_index(pod, job) {
            Some(index) => by_index.entry(index).or_default().push(pod),
            None => surplus.push(*pod),
        }
    }
    for mut pods in by_index.into_values() {
        deletion_order::sort(&mut pods);
        needed.extend(pods.pop());
        surplus.extend(pods);
    }
    (surplus, needed)
}

/// Per index, the failed pod whose finalizer stays until its replacement is there: it holds the index's number of
/// failures, which the replacement inherits. Without it a crash between the two would reset the count.
pub(super) fn predecessors<'a>(
    job: &Job,
    pods: &'a [Arc<Pod>],
    is_tracked: impl Fn(&Pod) -> bool,
    is_settled: impl Fn(i32) -> bool,
) -> BTreeMap<i32, &'a Arc<Pod>> {
    let mut last: BTreeMap<i32, &'a Arc<Pod>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_tracked(pod) && seen::is_failed(pod, job)) {
        let Some(index) = seen::valid_index(pod, job).filter(|index| !is_settled(*index)) else { continue };
        let rank = |pod: &Pod| (seen::all_failures(pod), seen::finish_time(pod));
        let held = last.entry(index).or_insert(pod);
        if rank(pod) >= rank(held) {
            *held = pod;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::{
        batch::Batch,
        fixture::{Case, job},
    };
    use crate::fixture::now;

    fn indexed(parallelism: i32, pods: &[&str]) -> Case {
        job(json!({"completionMode": "Indexed", "completions": 4, "parallelism": parallelism}), pods)
    }

    fn created(case: &Case) -> Vec<String> {
        let plan = case.plan();
        let creates = plan.actions().filter(|action| action.reason == "CreatePod");
        creates.map(|action| action.target.key.name.rsplit_once('-').unwrap().0.to_owned()).collect()
    }

    #[test]
    fn the_lowest_indexes_come_first() {
        assert_eq!(created(&indexed(3, &["a ok index=0", "b run index=2"])), ["pi-1", "pi-3"]);
        let replaced = indexed(4, &["a run index=0 going", "b run index=1"]);
        assert_eq!(created(&replaced), [""; 0], "ten seconds after a failure");
        let policy = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4, "podReplacementPolicy": "Failed"});
        assert_eq!(created(&Case { spec: policy, ..replaced }), ["pi-2", "pi-3"], "0 is still there");
    }

    /// What an index's pods are like: name, labels, annotations, host name, environment, finalizer.
    #[test]
    fn a_pod_is_told_its_index() {
        let mut case = indexed(1, &["a ok index=0"]);
        case.face = trysail_core::Face::Crd;
        case.spec["template"] = json!({"metadata": {"labels": {"app": "pi"}}, "spec": {"restartPolicy": "Never",
            "initContainers": [{"name": "i", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "mine"}]}],
            "containers": [{"name": "c", "env": null}]}});
        let plan = case.plan();
        let create = plan.actions().find(|action| action.reason == "CreatePod").unwrap();
        let trysail_core::plan::Verb::Create { body, .. } = &create.verb else { unreachable!() };
        let body = serde_json::to_string_pretty(&body.to_value()).unwrap();
        assert_snapshot!(body, @r#"
        {
          "apiVersion": "v1",
          "kind": "Pod",
          "metadata": {
            "annotations": {
              "batch.kubernetes.io/job-completion-index": "1"
            },
            "finalizers": [
              "batch.trysail.dev/job-tracking"
            ],
            "labels": {
              "app": "pi",
              "batch.kubernetes.io/controller-uid": "uid-pi",
              "batch.kubernetes.io/job-completion-index": "1",
              "batch.kubernetes.io/job-name": "pi",
              "controller-uid": "uid-pi",
              "job-name": "pi"
            },
            "name": "pi-1-5dgpm",
            "namespace": "shop",
            "ownerReferences": [
              {
                "apiVersion": "batch.trysail.dev/v1",
                "blockOwnerDeletion": true,
                "controller": true,
                "kind": "Job",
                "name": "pi",
                "uid": "uid-pi"
              }
            ]
          },
          "spec": {
            "containers": [
              {
                "env": [
                  {
                    "name": "JOB_COMPLETION_INDEX",
                    "valueFrom": {
                      "fieldRef": {
                        "fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"
                      }
                    }
                  }
                ],
                "name": "c"
              }
            ],
            "hostname": "pi-1",
            "initContainers": [
              {
                "env": [
                  {
                    "name": "JOB_COMPLETION_INDEX",
                    "value": "mine"
                  }
                ],
                "name": "i"
              }
            ],
            "restartPolicy": "Never"
          }
        }
        "#);
    }

    #[test]
    fn duplicates_and_pods_without_a_valid_index_go() {
        let pods =
            ["a run index=1", "b ready index=1", "c run index=4", "d run", "e run index=x", "f run index=0"];
        assert_snapshot!(indexed(4, &pods).text(), @r#"
        1. patch Pod shop/c {"metadata":{"finalizers":[]}} (too many)
        1. patch Pod shop/d {"metadata":{"finalizers":[]}} (too many)
        1. patch Pod shop/e {"metadata":{"finalizers":[]}} (too many)
        1. patch Pod shop/a {"metadata":{"finalizers":[]}} (too many)
        2. delete Pod shop/c (too many)
        2. delete Pod shop/d (too many)
        2. delete Pod shop/e (too many)
        2. delete Pod shop/a (too many)
        waiting on 0 of 4 pods succeeded
        look again at 2026-01-01T00:00:11Z
        "#);
    }

    /// The failed pod stays until its successor has inherited its failures.
    #[test]
    fn the_failures_of_an_index_are_inherited() {
        let spec = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 2,
            "podFailurePolicy": {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [9]}}]}});
        let failures = |pod: &str| {
            let plan = job(spec.clone(), &[pod, "z run index=1"]).plan();
            let removed = plan.actions().any(|action| action.reason == "RemoveFinalizer");
            let create = plan.actions().find(|action| action.reason == "CreatePod").map(|create| {
                let trysail_core::plan::Verb::Create { body, .. } = &create.verb else { unreachable!() };
                let annotations = body.to_value()["metadata"]["annotations"].clone();
                let value =
                    |name: &str| annotations[format!("batch.kubernetes.io/job-index-{name}-count")].clone();
                (value("failure"), value("ignored-failure"))
            });
            (removed, create)
        };
        assert_eq!(failures("a failed index=0 ended=11 code=1"), (false, Some((json!("1"), json!(null)))));
        let two = "a failed index=0 failures=1 ended=21 code=1";
        assert_eq!(failures(two), (false, Some((json!("2"), json!(null)))));
        let ignored = "a failed index=0 failures=1 ignored=1 ended=41 code=9";
        assert_eq!(failures(ignored), (false, Some((json!("1"), json!("2")))));
        assert_eq!(
            failures("a failed index=0 failures=1 ended=19 code=1"),
            (false, None),
            "20 s have not passed"
        );
        // The index has failed; a second later that is written.
        let third = "a failed index=0 failures=2 ended=99 code=1";
        assert_eq!(failures(third), (false, None));
        let mut case = job(spec.clone(), &[third, "z run index=1"]);
        case.memory.batch = Batch::default().waiting(now() - jiff::SignedDuration::from_secs(1));
        let text = case.text();
        assert!(text.contains(r#""failedIndexes":"0""#) && text.contains("patch Pod shop/a"), "{text}");
    }
}
