//! Compact notation for the examples at the bottom of the policy files.

use std::{fmt::Write as _, sync::Arc};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trysail_core::{
    Face, Key, Object, Plan, Uid, View,
    plan::{Context, Planner, Refusal, Verb},
    pod::Pod,
};

use crate::{
    cronjob::{self, CronJobPlanner},
    deployment::{self, DeploymentPlanner},
    replicaset::{self, ReplicaSetPlanner},
    views::{CronJob, Deployment, Job, ReplicaSet},
};

/// Ten seconds past midnight: pods are as old as the notation says, back from here.
const NOW: &str = "2026-01-01T00:00:10Z";

pub(crate) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A view of a plain list.
pub(crate) struct List<T>(Vec<Arc<T>>);

impl<T: DeserializeOwned> List<T> {
    pub(crate) fn of(objects: &[Value]) -> Self {
        // Through text: raw members are not read out of a parsed value.
        let read = |object: &Value| Arc::new(serde_json::from_str(&object.to_string()).unwrap());
        Self(objects.iter().map(read).collect())
    }
}

impl<T: Object> View<T> for List<T> {
    fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.0.iter().find(|object| object.key() == *key).cloned()
    }

    fn controlled_by(&self, owner: &Uid) -> Vec<Arc<T>> {
        self.0.iter().filter(|object| object.controller().as_ref() == Some(owner)).cloned().collect()
    }

    fn orphans(&self, namespace: &str) -> Vec<Arc<T>> {
        let is_orphan =
            |object: &&Arc<T>| object.controller().is_none() && object.key().namespace == namespace;
        self.0.iter().filter(is_orphan).cloned().collect()
    }

    fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.0.iter().filter(|object| object.key().namespace == namespace).cloned().collect()
    }
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}]}})
}

fn metadata(name: &str, version: usize, owner: Option<&str>) -> Value {
    let owners = owner.map(|uid| json!([{"uid": uid, "controller": true, "kind": "X", "name": "x"}]));
    json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
        "generation": 1, "creationTimestamp": format!("2026-01-01T00:00:0{version}Z"), "ownerReferences": owners,
        "labels": {"app": "web"}})
}

/// The plan for a Deployment of the image `v2`, as sizes.
///
/// `spec` is the Deployment's, without selector and template. Each set is
/// `IMAGE SPEC/HAS/AVAILABLE`, with `!` when its controller has not seen its size yet, and `@N` when it was sized
/// for a Deployment of N pods.
pub(crate) fn rollout(spec: Value, sets: &[&str]) -> String {
    let mut text = String::new();
    for action in deployment_plan(spec, sets, None).actions() {
        let name = &action.target.key.name;
        let size = match &action.verb {
            Verb::Create { body, .. } => Some(("new", body.to_value()["spec"]["replicas"].clone())),
            Verb::Patch { subresource: None, body } => {
                body["spec"].get("replicas").map(|size| (&name[4..], size.clone()))
            }
            Verb::Delete { .. } => Some((&name[4..], "gone".into())),
            _ => None,
        };
        if let Some((set, size)) = size {
            let _ = write!(text, "{}{set} {size}", if text.is_empty() { "" } else { ", " });
        }
    }
    text.replace('"', "")
}

/// The same plan itself, with the last refusal.
pub(crate) fn deployment_plan(
    mut spec: Value,
    sets: &[&str],
    refusal: Option<Refusal>,
) -> Plan<deployment::Memory> {
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    spec["template"] = template("v2");
    let wanted = spec["replicas"].clone();
    let deployment = json!({"metadata": metadata("web", 9, None), "spec": spec});
    let objects: Vec<Value> =
        sets.iter().enumerate().map(|(at, text)| replica_set(at + 1, text, &wanted)).collect();
    let deployments = List::<Deployment>::of(&[deployment]);
    let replica_sets = List::<ReplicaSet>::of(&objects);
    let memory = deployment::Memory { attempted: 1, ..deployment::Memory::default() };
    let context = Context { now: now(), memory, refusal };
    let key = Key::new("shop", "web");
    let pods = List::<Pod>(Vec::new());
    let snapshot = deployment::observe(&key, context, &deployments, &replica_sets, &pods).unwrap();
    let planner = DeploymentPlanner::new(Face::Crd);
    let plan = planner.plan(&snapshot);
    planner.audit(&snapshot, &plan).unwrap();
    plan
}

fn replica_set(at: usize, text: &str, wanted: &Value) -> Value {
    let (image, rest) = text.split_once(' ').unwrap();
    let (figures, sized_for) = rest.trim_end_matches('!').split_once('@').unwrap_or((rest, ""));
    let figures = figures.trim_end_matches('!');
    let counts: Vec<i64> = figures.split('/').map(|figure| figure.trim().parse().unwrap()).collect();
    let mut metadata = metadata(&format!("web-{image}"), at, Some("uid-web"));
    let desired = if sized_for.is_empty() { wanted.to_string() } else { sized_for.to_owned() };
    let max = desired.parse::<i64>().unwrap() + 3;
    metadata["annotations"] = json!({
        "deployment.kubernetes.io/desired-replicas": desired,
        "deployment.kubernetes.io/max-replicas": max.to_string(),
        "deployment.kubernetes.io/revision": at.to_string(),
    });
    let observed = i32::from(!text.ends_with('!'));
    json!({
        "metadata": metadata,
        "spec": {"replicas": counts[0], "selector": {"matchLabels": {"app": "web"}}, "template": template(image)},
        "status": {"replicas": counts[1], "readyReplicas": counts[2], "availableReplicas": counts[2],
            "observedGeneration": observed},
    })
}

/// The plan for a ReplicaSet. Each pod is a line of words: its name, then `node=N`, `ready=SECONDS` (for how
/// long), `failed`, `young`, `going`, `restarts=N`, `cost=N`, `stray` (without a controller), `other` (another label).
pub(crate) fn replica_set_plan(spec: Value, pods: &[&str], refusal: Option<Refusal>) -> String {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    spec["template"] = template("v1");
    let sets = List::<ReplicaSet>::of(&[json!({"metadata": metadata("web", 9, None), "spec": spec})]);
    let objects: Vec<Value> = pods.iter().map(|text| pod(text)).collect();
    let pods = List::<Pod>::of(&objects);
    let context = Context { now: now(), memory: replicaset::Memory::default(), refusal };
    let snapshot = replicaset::observe(&Key::new("shop", "web"), context, &sets, &pods).unwrap();
    let planner = ReplicaSetPlanner::replica_sets(Face::Native);
    let plan = planner.plan(&snapshot);
    planner.audit(&snapshot, &plan).unwrap();
    plan.to_string()
}

fn pod(text: &str) -> Value {
    let mut words = text.split(' ');
    let mut pod = json!({"metadata": metadata(words.next().unwrap(), 1, Some("uid-web")), "status": {"phase": "Pending"}});
    for word in words {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        match word {
            "node" => {
                pod["spec"]["nodeName"] = value.into();
                pod["status"]["phase"] = "Running".into();
            }
            "ready" => {
                let since = now() - jiff::SignedDuration::from_secs(value.parse().unwrap());
                pod["status"]["conditions"] =
                    json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
            }
            "failed" => pod["status"]["phase"] = "Failed".into(),
            "young" => pod["metadata"]["creationTimestamp"] = NOW.into(),
            "going" => pod["metadata"]["deletionTimestamp"] = NOW.into(),
            "restarts" => {
                let count: i32 = value.parse().unwrap();
                pod["status"]["containerStatuses"] = json!([{"name": "main", "restartCount": count}]);
            }
            "cost" => {
                pod["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": value});
            }
            "stray" => pod["metadata"]["ownerReferences"] = Value::Null,
            _ => pod["metadata"]["labels"]["app"] = "other".into(),
        }
    }
    pod
}

/// A CronJob `shop/web`, created at noon of the day before, and its Jobs.
#[derive(Clone)]
pub(crate) struct CronJobCase {
    pub(crate) face: Face,
    pub(crate) cron_job: Value,
    pub(crate) refusal: Option<Refusal>,
    jobs: Vec<Value>,
    now: Timestamp,
    memory: cronjob::Memory,
}

impl CronJobCase {
    /// Each Job is a line of words: what its name has after `web-`, then `done`, `failed`, `going` (being deleted),
    /// `stranger` (controlled by somebody else).
    pub(crate) fn new(mut spec: Value, status: &Value, jobs: &[&str]) -> Self {
        spec["jobTemplate"] = json!({
            "metadata": {"labels": {"app": "web"}, "annotations": {"team": "shop"}},
            "spec": {"template": template("v1"), "newer": {"than": "our types"}},
        });
        let mut metadata = metadata("web", 9, None);
        metadata["creationTimestamp"] = "2025-12-31T12:00:00Z".into();
        Self {
            face: Face::Crd,
            cron_job: json!({"metadata": metadata, "spec": spec, "status": status}),
            refusal: None,
            jobs: jobs.iter().map(|text| job(text)).collect(),
            now: now(),
            memory: cronjob::Memory::default(),
        }
    }

    pub(crate) fn with_memory(&self, memory: cronjob::Memory) -> Self {
        Self { memory, ..self.clone() }
    }

    pub(crate) fn at(&self, now: Timestamp) -> Self {
        Self { now, ..self.clone() }
    }

    pub(crate) fn plan(&self) -> Plan<cronjob::Memory> {
        let cron_jobs = List::<CronJob>::of(std::slice::from_ref(&self.cron_job));
        let jobs = List::<Job>::of(&self.jobs);
        let context = Context { now: self.now, memory: self.memory.clone(), refusal: self.refusal.clone() };
        let snapshot = cronjob::observe(&Key::new("shop", "web"), context, &cron_jobs, &jobs).unwrap();
        let planner = CronJobPlanner::new(self.face);
        let plan = planner.plan(&snapshot);
        planner.audit(&snapshot, &plan).unwrap();
        plan
    }

    /// The Job that the plan creates.
    pub(crate) fn created(&self) -> Value {
        let plan = self.plan();
        let mut bodies = plan.actions().filter_map(|action| match &action.verb {
            Verb::Create { body, .. } => Some(body.to_value()),
            _ => None,
        });
        bodies.next().unwrap()
    }
}

fn job(text: &str) -> Value {
    let mut words = text.split(' ');
    let name = words.next().unwrap();
    let mut metadata = metadata(&format!("web-{name}"), 1, Some("uid-web"));
    metadata["uid"] = format!("uid-{name}").into();
    let start = if name.len() == 8 { minutes(name) } else { Value::Null };
    let mut job =
        json!({"metadata": metadata, "spec": {"template": template("v1")}, "status": {"startTime": start}});
    for word in words {
        match word {
            "done" => {
                job["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
                job["status"]["completionTime"] = job["status"]["startTime"].clone();
            }
            "failed" => job["status"]["conditions"] = json!([{"type": "Failed", "status": "True"}]),
            "going" => job["metadata"]["deletionTimestamp"] = NOW.into(),
            _ => job["metadata"]["ownerReferences"][0]["uid"] = "uid-of-somebody".into(),
        }
    }
    job
}

fn minutes(text: &str) -> Value {
    let minutes: i64 = text.parse().unwrap();
    json!(Timestamp::from_second(minutes * 60).unwrap())
}
