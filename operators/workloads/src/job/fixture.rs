//! Compact notation for the examples of this folder.

use jiff::SignedDuration;
use serde_json::{Value, json};
use trysail_core::{
    Face, Key, Plan,
    plan::{Context, Planner, Refusal},
    pod::{JOB_UNCOUNTED, Pod},
};

use super::{JobPlanner, Memory, observe};
use crate::{
    fixture::{List, now},
    views::Job,
};

/// A Job called `pi`, and what is around it.
pub(super) struct Case {
    pub(super) face: Face,
    pub(super) spec: Value,
    pub(super) status: Value,
    /// Each a line of words: the name, then `ok`, `failed`, `run`, `ready` (its state; pending otherwise), `going`,
    /// `index=N`, `code=N`, `ended=SECONDS` (ago), `failures=N`, `ignored=N`, `restarts=N`, `has=CONDITION`,
    /// `bare` (without our finalizer), `left` (to itself, uncounted), `stray` (without a controller), `other` (the wrong labels).
    pub(super) pods: Vec<String>,
    pub(super) metadata: Value,
    pub(super) memory: Memory,
    pub(super) refusal: Option<Refusal>,
}

/// A native Job that has started and has these pods.
pub(super) fn job(spec: Value, pods: &[&str]) -> Case {
    Case {
        face: Face::Native,
        spec,
        status: json!({"startTime": "2026-01-01T00:00:00Z"}),
        pods: pods.iter().map(|&pod| pod.to_owned()).collect(),
        metadata: json!({"name": "pi", "namespace": "shop", "uid": "uid-pi", "resourceVersion": "9", "generation": 1}),
        memory: Memory::default(),
        refusal: None,
    }
}

impl Case {
    pub(super) fn status(mut self, status: &Value) -> Self {
        let held = self.status.as_object_mut().unwrap();
        held.extend(status.as_object().unwrap().clone());
        self
    }

    pub(super) fn refused(mut self, action: &'static str) -> Self {
        let retry_at = now() + SignedDuration::from_secs(4);
        self.refusal = Some(Refusal { action, message: "no".to_owned(), attempts: 1, retry_at });
        self
    }

    pub(super) fn plan(&self) -> Plan<Memory> {
        let mut spec = json!({"template": {"metadata": {"labels": {"app": "pi"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "pi"}]}}});
        spec.as_object_mut().unwrap().extend(self.spec.as_object().unwrap().clone());
        let job = json!({"metadata": self.metadata, "spec": spec, "status": self.status});
        let pods: Vec<Value> = self.pods.iter().map(|text| pod(self.face, text)).collect();
        let context = Context { now: now(), memory: self.memory.clone(), refusal: self.refusal.clone() };
        let (jobs, pods) = (List::<Job>::of(&[job]), List::<Pod>::of(&pods));
        let snapshot = observe(self.face, &Key::new("shop", "pi"), context, &jobs, &pods).unwrap();
        let planner = JobPlanner::new(self.face);
        let plan = planner.plan(&snapshot);
        planner.audit(&snapshot, &plan).map_err(|violation| format!("{violation}\n{plan}")).unwrap();
        plan
    }

    pub(super) fn text(&self) -> String {
        self.plan().to_string()
    }
}

pub(super) fn pod(face: Face, text: &str) -> Value {
    let mut words = text.split(' ');
    let name = words.next().unwrap();
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "5",
            "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": [super::tracking_finalizer(face)],
            "labels": {"batch.kubernetes.io/controller-uid": "uid-pi"}, "annotations": {},
            "ownerReferences": [{"apiVersion": super::Resource::jobs(face).api_version(), "kind": "Job",
                "name": "pi", "uid": "uid-pi", "controller": true}]},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": "Pending", "conditions": [], "containerStatuses": []},
    });
    for word in words {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse::<i64>().unwrap();
        let annotate = |pod: &mut Value, key: &str| {
            pod["metadata"]["annotations"][format!("batch.kubernetes.io/{key}")] = value.into();
        };
        match word {
            "ok" => pod["status"]["phase"] = "Succeeded".into(),
            "failed" => pod["status"]["phase"] = "Failed".into(),
            "run" | "ready" => {
                pod["spec"]["nodeName"] = "node".into();
                pod["status"]["phase"] = "Running".into();
                if word == "ready" {
                    pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}]);
                }
            }
            "going" => pod["metadata"]["deletionTimestamp"] = json!(now()),
            "index" => annotate(&mut pod, "job-completion-index"),
            "failures" => annotate(&mut pod, "job-index-failure-count"),
            "ignored" => annotate(&mut pod, "job-index-ignored-failure-count"),
            "code" => container(&mut pod)["state"]["terminated"]["exitCode"] = number().into(),
            "ended" => {
                let at = now() - SignedDuration::from_secs(number());
                container(&mut pod)["state"]["terminated"]["finishedAt"] = json!(at);
            }
            "restarts" => {
                pod["status"]["containerStatuses"] = json!([{"name": "main", "restartCount": number()}]);
            }
            "has" => pod["status"]["conditions"] = json!([{"type": value, "status": "True"}]),
            "bare" => pod["metadata"]["finalizers"] = json!([]),
            "left" => {
                pod["metadata"]["finalizers"] = json!([]);
                pod["metadata"]["annotations"][JOB_UNCOUNTED] = "true".into();
            }
            "stray" => pod["metadata"]["ownerReferences"] = json!([]),
            "other" => pod["metadata"]["labels"] = json!({"batch.kubernetes.io/controller-uid": "other"}),
            word => panic!("{word}"),
        }
    }
    pod
}

fn container(pod: &mut Value) -> &mut Value {
    let statuses = &mut pod["status"]["containerStatuses"];
    if statuses[0].is_null() {
        *statuses = json!([{"name": "main"}]);
    }
    &mut statuses[0]
}
