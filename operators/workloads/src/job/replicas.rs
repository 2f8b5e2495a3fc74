//! The pods to create: their names and what they look like.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use trysail_core::{
    Action, Face,
    names::{MAX_CHILD_PREFIX, child_name},
    plan::OwnerReference,
    pod::{
        JOB_COMPLETION_INDEX, JOB_CONTROLLER_UID, JOB_INDEX_FAILURE_COUNT, JOB_INDEX_IGNORED_FAILURE_COUNT,
        Pod,
    },
};

use super::{
    JobPlanner, Snapshot,
    parallelism::Missing,
    pod_failure_policy::{self, Judgement},
    seen,
    snapshot::Name,
    tally::Tally,
};
use crate::{
    pod_body::PodBody,
    pod_control, slots,
    views::{JOB_NAME, Job},
};

/// The environment variable that tells the containers their index.
const ENVIRONMENT: &str = "JOB_COMPLETION_INDEX";

/// The furthest slot ever seen of a NonIndexed Job.
pub(super) fn furthest(job: &Job, remembered: Option<u32>, pods: &[Arc<Pod>]) -> Option<u32> {
    if job.is_indexed() { None } else { slots::furthest(&job.meta, remembered, pods) }
}

/// Free names for what is missing. A NonIndexed pod takes the slots one after the other; a pod of an index takes
/// the next slot of that index, so that the same index is asked for under the same name when a reply was lost.
pub(super) fn names(snapshot: &Snapshot, missing: &Missing, is_taken: impl Fn(&str) -> bool) -> Vec<Name> {
    let meta = &snapshot.job.meta;
    match missing {
        Missing::Pods(count) => slots::free(meta, snapshot.high_slot, *count, is_taken)
            .into_iter()
            .map(|slot| Name { index: None, name: child_name(&meta.key.name, &meta.uid, slot) })
            .collect(),
        Missing::Indexes(indexes) => {
            let mut by_index: BTreeMap<i32, Vec<Arc<Pod>>> = BTreeMap::new();
            for pod in &snapshot.pods {
                if let Some(index) = seen::index(pod) {
                    by_index.entry(index).or_default().push(Arc::clone(pod));
                }
            }
            let name = |index: &i32| {
                let mut owner = meta.clone();
                owner.key.name = indexed_prefix(&meta.key.name, *index).into();
                let pods = by_index.get(index).map(Vec::as_slice).unwrap_or_default();
                let furthest = slots::furthest(&owner, None, pods);
                let slot = slots::free(&owner, furthest, 1, &is_taken).first().copied()?;
                Some(Name { index: Some(*index), name: child_name(&owner.key.name, &meta.uid, slot) })
            };
            indexes.iter().filter_map(name).collect()
        }
    }
}

/// `JOB-INDEX`, the Job's name cut so that the index is not.
fn indexed_prefix(name: &str, index: i32) -> String {
    let suffix = format!("-{index}");
    let room = MAX_CHILD_PREFIX - suffix.len();
    let name = if name.len() > room { name[..room].trim_end_matches(['-', '.']) } else { name };
    format!("{name}{suffix}")
}

/// The creates for the names of the snapshot.
pub(super) fn creates(planner: JobPlanner, snapshot: &Snapshot, tally: &Tally<'_>) -> Vec<Action> {
    let job = &snapshot.job;
    let because = format!("{} of {} pods", tally.active.len(), super::parallelism::wanted(job, tally));
    let (resource, key, uid) = (planner.resource(), job.meta.key.clone(), job.meta.uid.clone());
    let owner = OwnerReference { resource, key, uid };
    let names = snapshot.names.iter();
    names.map(|name| pod_control::create(&body(planner, &owner, job, tally, name), because.clone())).collect()
}

/// What the pod looks like.
fn body<'a>(
    planner: JobPlanner,
    owner: &'a OwnerReference,
    job: &Job,
    tally: &Tally<'_>,
    name: &Name,
) -> PodBody<'a> {
    let mut body = PodBody::new(owner, &job.template, name.name.as_str()).finalizer(planner.finalizer());
    if planner.face == Face::Crd && !job.manual_selector {
        body = labeled(body, job);
    }
    let Some(index) = name.index else { return body };
    let text = index.to_string();
    body = body.label(JOB_COMPLETION_INDEX, &text).annotation(JOB_COMPLETION_INDEX, &text);
    if job.backoff_limit_per_index.is_some() {
        let predecessor = tally.predecessors.get(&index);
        let (failures, ignored) = predecessor.map_or((0, 0), |pod| inherited(job, pod));
        body = body.annotation(JOB_INDEX_FAILURE_COUNT, &failures.to_string());
        if ignored > 0 {
            body = body.annotation(JOB_INDEX_IGNORED_FAILURE_COUNT, &ignored.to_string());
        }
    }
    body.edit_spec(|spec| {
        for list in ["initContainers", "containers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            containers.into_iter().flatten().for_each(tell_index);
        }
        spec.insert("hostname".into(), format!("{}-{index}", job.meta.key.name).into());
    })
}

/// Adds the variable, unless the user has set it: he knows why.
fn tell_index(container: &mut Value) {
    let Some(container) = container.as_object_mut() else { return };
    let environment = container.entry("env").or_insert(Value::Null);
    if environment.is_null() {
        *environment = json!([]);
    }
    let Some(environment) = environment.as_array_mut() else { return };
    if environment.iter().all(|variable| variable["name"] != ENVIRONMENT) {
        let field = format!("metadata.labels['{JOB_COMPLETION_INDEX}']");
        environment.push(json!({"name": ENVIRONMENT, "valueFrom": {"fieldRef": {"fieldPath": field}}}));
    }
}

/// A native API server has put these labels into the template; for our own kind that is done here, and the spec stays
/// as the user wrote it.
fn labeled<'a>(mut body: PodBody<'a>, job: &Job) -> PodBody<'a> {
    let uid = job.meta.uid.to_string();
    let name: &str = &job.meta.key.name;
    for (label, value) in [("controller-uid", uid.as_str()), (JOB_NAME, name), ("job-name", name)] {
        if !job.template.labels.contains_key(label) {
            body = body.label(label, value);
        }
    }
    // The selector would not match any other value.
    body.label(JOB_CONTROLLER_UID, &uid)
}

/// How often the index has failed with this pod, and how many failures were ignored.
fn inherited(job: &Job, predecessor: &Pod) -> (i32, i32) {
    let failures = seen::failures(predecessor, JOB_INDEX_FAILURE_COUNT);
    let ignored = seen::failures(predecessor, JOB_INDEX_IGNORED_FAILURE_COUNT);
    match pod_failure_policy::judge(job, predecessor) {
        Judgement::Ignore => (failures, ignored.saturating_add(1)),
        Judgement::Count | Judgement::FailIndex | Judgement::FailJob(_) => {
            (failures.saturating_add(1), ignored)
        }
    }
}
