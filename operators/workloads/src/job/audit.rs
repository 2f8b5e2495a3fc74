//! Invariants of every plan for a Job, written independently of the decisions: from the pods, the status and the
//! actions alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use trysail_core::{
    Action, Plan, Symbol, Uid,
    plan::{Verb, Violation},
    pod::{JOB_COMPLETION_INDEX, JOB_UNCOUNTED, Phase, Pod},
    resource::PODS,
};

use super::{BURST, JobPlanner, Memory, Snapshot, transition};
use crate::views::{JobStatus, UncountedPods};

pub(super) fn audit(planner: JobPlanner, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let status = new_status(planner, snapshot, plan)?;
    if let Some(what) = transition::illegal(&snapshot.job, &status).filter(|_| status != snapshot.job.status)
    {
        return Err(Violation(format!("a status the API server would refuse: {what}")));
    }
    preconditions(snapshot, plan)?;
    creates(planner, snapshot, plan)?;
    counted_once(planner, snapshot, &status)?;
    finalizers(planner, snapshot, plan, &status)
}

fn broken(what: &str, action: &Action) -> Result<(), Violation> {
    Err(Violation(format!("{what}: {action}")))
}

/// The status after the plan.
fn new_status(planner: JobPlanner, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<JobStatus, Violation> {
    let mut status = snapshot.job.status.clone();
    let mut writes = 0;
    for action in plan.actions() {
        let Verb::Patch { subresource: Some(_), body } = &action.verb else { continue };
        writes += 1;
        let is_ours = action.target.resource == planner.resource()
            && action.target.resource_version == snapshot.job.meta.resource_version;
        let fields =
            body["status"].as_object().filter(|_| body.as_object().is_some_and(|body| body.len() == 1));
        let Some(fields) = fields.filter(|_| is_ours && writes == 1) else {
            return Err(Violation(format!("no plain status of this Job: {action}")));
        };
        for (name, value) in fields {
            apply(&mut status, name, value).map_err(|error| Violation(format!("{name}: {error}")))?;
        }
        let lost =
            snapshot.job.status.conditions.iter().find(|held| status.conditions.get(&held.kind).is_none());
        if let Some(lost) = lost.filter(|lost| !matches!(&*lost.kind, "Reconciling" | "Stalled")) {
            return Err(Violation(format!("the condition {} would be lost", lost.kind)));
        }
    }
    Ok(status)
}

fn apply(status: &mut JobStatus, name: &str, value: &Value) -> Result<(), serde_json::Error> {
    // One field alone, decoded as the whole would be.
    let only: JobStatus = serde_json::from_value(json!({ name: value }))?;
    match name {
        "active" => status.active = only.active,
        "ready" => status.ready = only.ready,
        "terminating" => status.terminating = only.terminating,
        "succeeded" => status.succeeded = only.succeeded,
        "failed" => status.failed = only.failed,
        "startTime" => status.start_time = only.start_time,
        "completionTime" => status.completion_time = only.completion_time,
        "completedIndexes" => status.completed_indexes = only.completed_indexes,
        "failedIndexes" => status.failed_indexes = only.failed_indexes,
        "uncountedTerminatedPods" => status.uncounted_terminated_pods = only.uncounted_terminated_pods,
        "conditions" => status.conditions = only.conditions,
        "observedGeneration" => status.observed_generation = only.observed_generation,
        // For people.
        _ => {}
    }
    Ok(())
}

/// Every write names the incarnation and version it was decided for, and stays in its namespace.
fn preconditions(snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let mut patched = BTreeSet::new();
    for action in plan.actions() {
        let target = &action.target;
        if target.key.namespace != snapshot.job.meta.key.namespace {
            return broken("a write in another namespace", action);
        }
        let is_create = matches!(action.verb, Verb::Create { .. });
        if is_create != target.uid.is_none() {
            return broken("a write without a uid", action);
        }
        if matches!(action.verb, Verb::Patch { .. })
            && (target.resource_version == 0 || !patched.insert(target.key.clone()))
        {
            return broken("a patch of an unknown or a second version", action);
        }
    }
    Ok(())
}

/// No pod is made for a Job that is decided, suspended, deleted or somebody else's; none beyond what is asked for; and
/// never two for one index.
fn creates(planner: JobPlanner, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
    let job = &snapshot.job;
    let creates: Vec<&Action> =
        plan.actions().filter(|action| matches!(action.verb, Verb::Create { .. })).collect();
    let deletes: Vec<&Action> =
        plan.actions().filter(|action| matches!(action.verb, Verb::Delete { .. })).collect();
    if let Some(foreign) = deletes.iter().find(|action| {
        action.target.resource != PODS
            || !snapshot.pods.iter().any(|pod| Some(&pod.meta.uid) == action.target.uid.as_ref())
    }) {
        return broken("a deletion of what is not ours", foreign);
    }
    if creates.len() > BURST || deletes.len() > BURST {
        return Err(Violation("more than one burst".to_owned()));
    }
    let Some(first) = creates.first() else { return Ok(()) };
    if !deletes.is_empty() {
        return broken("creates beside deletes", first);
    }
    let conditions = &job.status.conditions;
    let ends = ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"];
    if ends.iter().any(|kind| conditions.is_true(kind)) || job.suspend || job.meta.deleted.is_some() {
        return broken("a pod for a Job that wants none", first);
    }
    let active = snapshot.pods.iter().filter(|pod| runs(pod)).count();
    let most = job.completions.unwrap_or(i32::MAX).min(job.parallelism).max(0);
    if active + creates.len() > usize::try_from(most).unwrap_or(0) {
        return broken("more pods than the parallelism", first);
    }
    let mut taken: BTreeSet<i64> =
        snapshot.pods.iter().filter(|pod| runs(pod)).filter_map(|pod| index_of(pod)).collect();
    for create in creates {
        let Verb::Create { controller, body } = &create.verb else { continue };
        let body = body.to_value();
        let metadata = &body["metadata"];
        let is_tracked =
            metadata["finalizers"].as_array().is_some_and(|held| held.contains(&json!(planner.finalizer())));
        if controller.as_ref() != Some(&job.meta.uid) || !is_tracked {
            return broken("a pod that could not be counted", create);
        }
        if !job.is_indexed() {
            continue;
        }
        let index =
            metadata["annotations"][JOB_COMPLETION_INDEX].as_str().and_then(|text| text.parse::<i64>().ok());
        let valid = index.filter(|index| (0..i64::from(job.completions.unwrap_or(0))).contains(index));
        if valid.is_none_or(|index| !taken.insert(index)) {
            return broken("an index twice, or out of range", create);
        }
    }
    Ok(())
}

fn runs(pod: &Pod) -> bool {
    !matches!(pod.phase, Phase::Succeeded | Phase::Failed) && pod.meta.deleted.is_none()
}

fn index_of(pod: &Pod) -> Option<i64> {
    pod.details.as_ref()?.annotations.get(JOB_COMPLETION_INDEX)?.parse().ok()
}

fn holds(planner: JobPlanner, pod: &Pod) -> bool {
    pod.details.as_ref().is_some_and(|held| held.finalizers.iter().any(|name| name == planner.finalizer()))
}

/// What enters the list of uncounted pods is a pod with our finalizer; what leaves it for the counter is one without;
/// and nothing else moves the counter.
fn counted_once(planner: JobPlanner, snapshot: &Snapshot, new: &JobStatus) -> Result<(), Violation> {
    let (job, old) = (&snapshot.job, &snapshot.job.status);
    let held: BTreeMap<&Uid, &Pod> =
        snapshot.pods.iter().filter(|pod| holds(planner, pod)).map(|pod| (&pod.meta.uid, &**pod)).collect();
    let empty = UncountedPods::default();
    let before = old.uncounted_terminated_pods.as_ref().unwrap_or(&empty);
    let after = new.uncounted_terminated_pods.as_ref().unwrap_or(&empty);
    let value = |count: Option<i32>| i64::from(count.unwrap_or(0));
    for (name, before, after, moved) in [
        ("succeeded", &before.succeeded, &after.succeeded, value(new.succeeded) - value(old.succeeded)),
        ("failed", &before.failed, &after.failed, value(new.failed) - value(old.failed)),
    ] {
        let entered = after.iter().filter(|uid| !before.contains(uid));
        if let Some(uid) = entered.into_iter().find(|uid| !held.contains_key(uid)) {
            return Err(Violation(format!(
                "{uid} is recorded as {name} without a finalizer that waits for it"
            )));
        }
        let left: Vec<&Uid> = before.iter().filter(|uid| !after.contains(uid)).collect();
        if let Some(uid) = left.iter().find(|uid| held.contains_key(*uid)) {
            return Err(Violation(format!("{uid} is counted as {name} while its finalizer is still there")));
        }
        let is_by_index = job.is_indexed() && name == "succeeded";
        if !is_by_index && moved != left.len() as i64 {
            return Err(Violation(format!("{name} grows by {moved}, and {} pods are counted", left.len())));
        }
    }
    let ended = |uid: &Uid| held.get(uid).is_some_and(|pod| pod.phase == Phase::Succeeded);
    match after.succeeded.iter().find(|uid| !before.succeeded.contains(uid) && !ended(uid)) {
        Some(uid) => Err(Violation(format!("{uid} is recorded as succeeded and did not"))),
        None => Ok(()),
    }
}

/// A finalizer goes when the pod is recorded in a status that is written before, or need not be: nobody counts it.
fn finalizers(
    planner: JobPlanner,
    snapshot: &Snapshot,
    plan: &Plan<Memory>,
    new: &JobStatus,
) -> Result<(), Violation> {
    let job = &snapshot.job;
    let mut is_written = false;
    let deleted: BTreeSet<&Uid> = plan
        .actions()
        .filter(|action| matches!(action.verb, Verb::Delete { .. }))
        .filter_map(|action| action.target.uid.as_ref())
        .collect();
    for wave in &plan.waves {
        for action in wave {
            let Verb::Patch { subresource: None, body } = &action.verb else { continue };
            let candidates = snapshot.pods.iter().chain(&snapshot.strays).chain(&snapshot.orphans);
            let pod = candidates.into_iter().find(|pod| Some(&pod.meta.uid) == action.target.uid.as_ref());
            let Some(pod) = pod.filter(|_| action.target.resource == PODS) else {
                return broken("a patch of what is not ours", action);
            };
            only_our_finalizer(planner, pod, body, action)?;
            let recorded = if is_written { new } else { &job.status };
            // Pods that a plan deletes because they are too many count neither way. Those that end with their Job do.
            let is_surplus = deleted.contains(&pod.meta.uid) && runs(pod) && !is_failing(new);
            let goes = holds(planner, pod) && snapshot.pods.iter().any(|own| own.meta.uid == pod.meta.uid);
            if goes && !is_surplus && !is_settled(snapshot, pod, recorded) {
                return broken("a finalizer goes before its pod is recorded", action);
            }
        }
        is_written |=
            wave.iter().any(|action| matches!(action.verb, Verb::Patch { subresource: Some(_), .. }));
    }
    Ok(())
}

fn is_failing(status: &JobStatus) -> bool {
    status.conditions.is_true("FailureTarget")
}

fn only_our_finalizer(
    planner: JobPlanner,
    pod: &Pod,
    body: &Value,
    action: &Action,
) -> Result<(), Violation> {
    let others = |list: &[&str]| -> BTreeSet<String> {
        list.iter().filter(|name| **name != planner.finalizer()).map(|name| (*name).to_owned()).collect()
    };
    let held: Vec<&str> =
        pod.details.iter().flat_map(|details| details.finalizers.iter().map(Symbol::as_str)).collect();
    let left: Option<Vec<&str>> =
        body["metadata"]["finalizers"].as_array().map(|list| list.iter().filter_map(Value::as_str).collect());
    let is_alone = |metadata: &serde_json::Map<String, Value>| match metadata.get("annotations") {
        None => metadata.len() == 1,
        // What stood in for the finalizer goes as that comes back.
        Some(annotations) => {
            let is_back = left.as_ref().is_some_and(|left| left.contains(&planner.finalizer()));
            metadata.len() == 2 && is_back && *annotations == json!({JOB_UNCOUNTED: null})
        }
    };
    let is_alone = body.as_object().is_some_and(|body| body.len() == 1)
        && body["metadata"].as_object().is_some_and(is_alone);
    match left {
        Some(left) if is_alone && others(&left) == others(&held) => Ok(()),
        _ => broken("more than our finalizer changes", action),
    }
}

/// True when nothing will ever ask for the pod again.
fn is_settled(snapshot: &Snapshot, pod: &Pod, recorded: &JobStatus) -> bool {
    let job = &snapshot.job;
    let conditions = &recorded.conditions;
    let is_moot = job.meta.deleted.is_some()
        || ["Complete", "Failed"].iter().any(|kind| job.status.conditions.is_true(kind))
        || (conditions.is_true("SuccessCriteriaMet") && pod.phase != Phase::Succeeded);
    let is_listed = recorded
        .uncounted_terminated_pods
        .as_ref()
        .is_some_and(|pods| pods.succeeded.contains(&pod.meta.uid) || pods.failed.contains(&pod.meta.uid));
    if is_moot || is_listed {
        return true;
    }
    if job.is_indexed() {
        let completions = i64::from(job.completions.unwrap_or(0));
        let Some(index) = index_of(pod).filter(|index| (0..completions).contains(index)) else { return true };
        let text = recorded.completed_indexes.as_deref().unwrap_or_default();
        if pod.phase == Phase::Succeeded && includes(text, index) {
            return true;
        }
    }
    // What the policy ignores is not counted; which rule matches is the decision's business.
    pod.phase == Phase::Failed && job.pod_failure_policy.is_some()
}

fn includes(text: &str, index: i64) -> bool {
    text.split(',').any(|piece| {
        let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
        matches!((first.parse::<i64>(), last.parse::<i64>()), (Ok(first), Ok(last)) if (first..=last).contains(&index))
    })
}
