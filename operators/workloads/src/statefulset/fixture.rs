//! Compact notation for the examples of this kind.

use jiff::SignedDuration;
use serde_json::{Value, json};
use trysail_core::{
    Face, Key, Plan, Symbol,
    plan::{Context, Planner, Refusal},
    pod::Pod,
};

use super::{Memory, StatefulSetPlanner, observe};
use crate::{
    fixture::{List, now},
    pod_control::{CREATE_POD, DELETE_POD},
    views::{ControllerRevision, PersistentVolumeClaim, StatefulSet},
};

/// What surrounds a StatefulSet `db`. Pods are lines of words: the ordinal, then `ready[=SECONDS]`, `pending`,
/// `failed[=REASON]`, `going`, `starting` (running, never ready), `sick` (was ready once), `restarts=N`, `rev=NAME`,
/// `bare` (no identity labels), `stray`, `foreign`, `other`.
/// Claims are names, with `going`, `of=set`, `of=pod:UID`, `of=former`, `keeper`.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) face: Face,
    pub(super) spec: Value,
    pub(super) status: Value,
    pub(super) pods: Vec<String>,
    pub(super) claims: Vec<String>,
    /// `NAME IMAGE`, oldest first.
    pub(super) revisions: Vec<String>,
    pub(super) refusal: Option<Refusal>,
    pub(super) memory: Memory,
    pub(super) is_deleted: bool,
}

/// Three pods of the image `v2`, of which the revision is called `db-v2`; there was a `db-v1` before it.
pub(super) fn world(spec: Value) -> World {
    World {
        face: Face::Native,
        spec,
        status: json!({"currentRevision": "db-v2", "updateRevision": "db-v2", "observedGeneration": 1}),
        pods: Vec::new(),
        claims: Vec::new(),
        revisions: vec!["db-v1 v1".to_owned(), "db-v2 v2".to_owned()],
        refusal: None,
        memory: Memory::default(),
        is_deleted: false,
    }
}

impl World {
    pub(super) fn pods(mut self, pods: &[&str]) -> Self {
        self.pods = pods.iter().map(|pod| (*pod).to_owned()).collect();
        self
    }

    pub(super) fn claims(mut self, claims: &[&str]) -> Self {
        self.claims = claims.iter().map(|claim| (*claim).to_owned()).collect();
        self
    }

    pub(super) fn revisions(mut self, revisions: &[&str]) -> Self {
        self.revisions = revisions.iter().map(|revision| (*revision).to_owned()).collect();
        self
    }

    pub(super) fn current(mut self, revision: &str) -> Self {
        self.status["currentRevision"] = revision.into();
        self
    }

    pub(super) fn plan(&self) -> Plan<Memory> {
        let mut spec = self.spec.clone();
        if spec["selector"].is_null() {
            spec["selector"] = json!({"matchLabels": {"app": "db"}});
        }
        if spec["template"].is_null() {
            spec["template"] = template("v2");
        }
        if spec["serviceName"].is_null() {
            spec["serviceName"] = "peers".into();
        }
        let mut metadata = metadata("db", 9, None);
        if self.is_deleted {
            metadata["deletionTimestamp"] = json!(now());
        }
        let set = json!({"metadata": metadata, "spec": spec, "status": self.status});
        let sets = List::<StatefulSet>::of(&[set]);
        let pods: Vec<Value> = self.pods.iter().map(|text| pod(text)).collect();
        let pods = List::<Pod>::of(&pods);
        let claims: Vec<Value> = self.claims.iter().map(|text| claim(text)).collect();
        let claims = List::<PersistentVolumeClaim>::of(&claims);
        let revisions = self.revisions.iter().enumerate();
        let revisions: Vec<Value> = revisions.map(|(at, text)| revision(at + 1, text)).collect();
        let revisions = List::<ControllerRevision>::of(&revisions);
        let context = Context { now: now(), memory: self.memory.clone(), refusal: self.refusal.clone() };
        let key = Key::new("shop", "db");
        let planner = StatefulSetPlanner::new(self.face);
        let snapshot = observe(planner, &key, context, (&sets, &pods, &claims, &revisions)).unwrap();
        let plan = planner.plan(&snapshot);
        planner.audit(&snapshot, &plan).unwrap_or_else(|violation| panic!("{violation}\n{plan}"));
        plan
    }

    /// The plan without its status.
    pub(super) fn acts(&self) -> String {
        let mut plan = self.plan();
        for wave in &mut plan.waves {
            wave.retain(|action| action.reason != super::status::UPDATE_STATUS);
        }
        plan.waves.retain(|wave| !wave.is_empty());
        plan.requeue_at = None;
        plan.to_string()
    }

    /// Only what happens to pods: `+db-1` and `-db-2`.
    pub(super) fn moves(&self) -> String {
        let plan = self.plan();
        let moves = plan.actions().filter_map(|action| match action.reason {
            CREATE_POD => Some(format!("+{}", action.target.key.name)),
            DELETE_POD => Some(format!("-{}", action.target.key.name)),
            _ => None,
        });
        moves.collect::<Vec<_>>().join(" ")
    }
}

pub(super) fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "main", "image": image}]}})
}

fn metadata(name: &str, version: usize, owner: Option<&str>) -> Value {
    let owners =
        owner.map(|uid| json!([{"uid": uid, "controller": true, "kind": "StatefulSet", "name": "db"}]));
    json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
        "generation": 1, "creationTimestamp": "2026-01-01T00:00:01Z", "ownerReferences": owners,
        "labels": {"app": "db"}})
}

fn revision(number: usize, text: &str) -> Value {
    let (name, image) = text.split_once(' ').unwrap();
    let mut template = template(image);
    template["$patch"] = "replace".into();
    json!({"metadata": metadata(name, number, Some("uid-db")), "revision": number, "data": {"spec": {"template": template}}})
}

fn pod(text: &str) -> Value {
    let mut words = text.split(' ');
    let ordinal = words.next().unwrap();
    let name = format!("db-{ordinal}");
    let mut pod = json!({"metadata": metadata(&name, 1, Some("uid-db")), "spec": {"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")}}]},
        "status": {"phase": "Running", "startTime": "2026-01-01T00:00:01Z"}});
    let labels = &mut pod["metadata"]["labels"];
    labels["controller-revision-hash"] = "db-v2".into();
    labels["statefulset.kubernetes.io/pod-name"] = name.as_str().into();
    labels["apps.kubernetes.io/pod-index"] = ordinal.into();
    for word in words {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        apply(&mut pod, word, value);
    }
    pod
}

fn apply(pod: &mut Value, word: &str, value: &str) {
    let ready =
        |status: &str, since: &str| json!([{"type": "Ready", "status": status, "lastTransitionTime": since}]);
    match word {
        "ready" => {
            let since = now() - SignedDuration::from_secs(value.parse().unwrap_or(5));
            pod["status"]["conditions"] = ready("True", &since.to_string());
        }
        "pending" => pod["status"] = json!({"phase": "Pending"}),
        "starting" => pod["status"]["conditions"] = ready("False", "2026-01-01T00:00:01Z"),
        "sick" => pod["status"]["conditions"] = ready("False", "2026-01-01T00:00:08Z"),
        "failed" => pod["status"] = json!({"phase": "Failed", "reason": value}),
        "succeeded" => pod["status"] = json!({"phase": "Succeeded"}),
        "going" => pod["metadata"]["deletionTimestamp"] = json!(now()),
        "restarts" => {
            let count: i32 = value.parse().unwrap();
            pod["status"]["containerStatuses"] = json!([{"name": "main", "restartCount": count}]);
        }
        "rev" => pod["metadata"]["labels"]["controller-revision-hash"] = value.into(),
        "bare" => {
            let labels = pod["metadata"]["labels"].as_object_mut().unwrap();
            labels.remove("statefulset.kubernetes.io/pod-name");
            labels.remove("apps.kubernetes.io/pod-index");
        }
        "novolume" => pod["spec"]["volumes"] = json!([]),
        "stray" => pod["metadata"]["ownerReferences"] = Value::Null,
        "foreign" => pod["metadata"]["ownerReferences"][0]["uid"] = "uid-of-another".into(),
        "other" => pod["metadata"]["labels"]["app"] = "other".into(),
        word => panic!("no such word: {word}"),
    }
}

fn claim(text: &str) -> Value {
    let mut words = text.split(' ');
    let mut claim = json!({"metadata": metadata(words.next().unwrap(), 1, None)});
    let mut owners = Vec::new();
    for word in words {
        let mut own = |kind: &str, name: &str, uid: &str| {
            let api = if kind == "Pod" { "v1" } else { "apps/v1" };
            owners
                .push(json!({"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true}));
        };
        match word.split_once('=').unwrap_or((word, "")) {
            ("going", _) => claim["metadata"]["deletionTimestamp"] = json!(now()),
            ("of", "set") => own("StatefulSet", "db", "uid-db"),
            ("of", "former") => own("StatefulSet", "db", "uid-of-former"),
            ("of", pod) => own("Pod", pod, &format!("uid-{pod}")),
            ("keeper", _) => own("Keeper", "k", "uid-of-keeper"),
            _ => panic!("no such word: {word}"),
        }
    }
    claim["metadata"]["ownerReferences"] = owners.into();
    claim
}

/// `spec.volumeClaimTemplates` with those names.
pub(super) fn claim_templates(names: &[&str]) -> Value {
    let template = |name: &&str| {
        json!({"metadata": {"name": Symbol::from(*name), "labels": {"tier": "disk"}},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}}})
    };
    names.iter().map(template).collect()
}
