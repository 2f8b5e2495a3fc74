//! Compact notation for the examples at the bottom of the files.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use trysail_core::{
    Face, Key, Plan,
    plan::{Context, Planner, Refusal, Verb},
    pod::Pod,
};

use super::{DaemonSetPlanner, Memory, Snapshot, observe};
use crate::{
    fixture::{List, now},
    views::{ControllerRevision, DaemonSet, Node},
};

/// A DaemonSet `agent`, whose template is recorded under the hash `new`; the one before it under `old`.
pub(super) struct World {
    pub(super) face: Face,
    pub(super) spec: Value,
    pub(super) template: Value,
    pub(super) nodes: Vec<Value>,
    pub(super) pods: Vec<Value>,
    pub(super) revisions: Vec<Value>,
    pub(super) memory: Memory,
    pub(super) refusal: Option<Refusal>,
    /// The deprecated annotation.
    pub(super) generation: Option<i64>,
    /// It is being deleted, its pods before it.
    pub(super) is_going: bool,
    pub(super) now: Timestamp,
}

fn seconds_ago(now: Timestamp, seconds: &str) -> Timestamp {
    now - SignedDuration::from_secs(seconds.parse().unwrap())
}

pub(super) fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "main", "image": image}]}})
}

impl World {
    /// Nodes are words: a name, then `label=K:V`, `taint=KEY:EFFECT`, `down=SECONDS` (since when).
    ///
    /// Pods are words: a name, a node, then `old` (of the template before), `unbound`, `ready=SECONDS` (for how
    /// long), `failed`, `succeeded`, `going=SECONDS` (since its grace ended), `age=SECONDS`, `stray` (without a
    /// controller), `other` (another label), `stuck` (no scheduler can bind it).
    pub(super) fn new(spec: Value, nodes: &[&str], pods: &[&str]) -> Self {
        Self {
            face: Face::Native,
            spec,
            template: template("v2"),
            nodes: nodes.iter().map(|text| node(text)).collect(),
            pods: pods.iter().map(|text| pod(text)).collect(),
            revisions: vec![revision("new", 2, "v2"), revision("old", 1, "v1")],
            memory: Memory::default(),
            refusal: None,
            generation: None,
            is_going: false,
            now: now(),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut spec = self.spec.clone();
        if spec["selector"].is_null() {
            spec["selector"] = json!({"matchLabels": {"app": "agent"}});
        }
        spec["template"] = self.template.clone();
        let mut metadata = metadata("agent", None);
        metadata["resourceVersion"] = "9".into();
        metadata["annotations"] = json!({"team": "ops"});
        if let Some(generation) = self.generation {
            metadata["annotations"]["deprecated.daemonset.template.generation"] =
                generation.to_string().into();
        }
        if self.is_going {
            metadata["deletionTimestamp"] = json!(self.now);
        }
        let sets = List::<DaemonSet>::of(&[json!({"metadata": metadata, "spec": spec})]);
        let context = Context { now: self.now, memory: self.memory.clone(), refusal: self.refusal.clone() };
        let key = Key::new("shop", "agent");
        let (pods, nodes) = (List::<Pod>::of(&self.pods), List::<Node>::of(&self.nodes));
        let revisions = List::<ControllerRevision>::of(&self.revisions);
        observe(DaemonSetPlanner::new(self.face), &key, context, &sets, &pods, &nodes, &revisions).unwrap()
    }

    /// The plan, audited, and the same whatever order the views have.
    pub(super) fn plan(&self) -> Plan<Memory> {
        let planner = DaemonSetPlanner::new(self.face);
        let snapshot = self.snapshot();
        let plan = planner.plan(&snapshot);
        planner.audit(&snapshot, &plan).unwrap();
        plan
    }

    /// The plan's writes but the status: `+NODE` and `-POD`, in order.
    pub(super) fn steps(&self) -> String {
        let plan = self.plan();
        let word = |action: &trysail_core::Action| {
            let name = &action.target.key.name;
            let is_pod = action.target.resource.kind == "Pod";
            match &action.verb {
                Verb::Create { .. } if is_pod => Some(action.because.replace("for node ", "+")),
                Verb::Create { .. } => Some("record".to_owned()),
                Verb::Delete { .. } => Some(format!("-{name}")),
                Verb::Patch { subresource: Some(_), .. } => None,
                Verb::Patch { .. } | Verb::PatchOrphan { .. } => Some(format!("patch {name}")),
                Verb::Adopt { .. } => Some(format!("adopt {name}")),
                Verb::Release { .. } => Some(format!("release {name}")),
            }
        };
        plan.actions().filter_map(word).collect::<Vec<_>>().join(" ")
    }

    /// The next look comes so much later, with what this one left in memory.
    pub(super) fn later(&mut self, seconds: i64) {
        self.memory = self.plan().memory;
        self.now += SignedDuration::from_secs(seconds);
    }

    /// One field of the planned status.
    pub(super) fn status(&self) -> Value {
        let plan = self.plan();
        let mut writes = plan.actions().filter_map(|action| match &action.verb {
            Verb::Patch { subresource: Some("status"), body } => Some(body["status"].clone()),
            _ => None,
        });
        writes.next().unwrap_or_default()
    }
}

/// The plan's writes for these nodes and pods.
pub(super) fn steps(spec: Value, nodes: &[&str], pods: &[&str]) -> String {
    World::new(spec, nodes, pods).steps()
}

fn metadata(name: &str, owner: Option<&str>) -> Value {
    let owners = owner.map(|uid| json!([{"uid": uid, "controller": true, "kind": "X", "name": "x"}]));
    json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "1",
        "generation": 1, "creationTimestamp": "2025-12-31T00:00:00Z", "ownerReferences": owners,
        "labels": {"app": "agent"}})
}

pub(super) fn revision(hash: &str, number: i64, image: &str) -> Value {
    let mut template = template(image);
    template["$patch"] = "replace".into();
    let mut metadata = metadata(&format!("agent-{hash}"), Some("uid-agent"));
    metadata["labels"]["controller-revision-hash"] = hash.into();
    json!({"metadata": metadata, "revision": number, "data": {"spec": {"template": template}}})
}

pub(super) fn node(text: &str) -> Value {
    let mut words = text.split(' ');
    let mut node = json!({
        "metadata": {"name": words.next().unwrap(), "labels": {}},
        "spec": {"taints": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    for word in words {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        let (key, detail) = value.split_once(':').unwrap_or((value, ""));
        match word {
            "label" => node["metadata"]["labels"][key] = detail.into(),
            "taint" => {
                node["spec"]["taints"].as_array_mut().unwrap().push(json!({"key": key, "effect": detail}));
            }
            _ => {
                let since = seconds_ago(now(), value);
                node["status"]["conditions"] =
                    json!([{"type": "Ready", "status": "Unknown", "lastTransitionTime": since}]);
            }
        }
    }
    node
}

pub(super) fn pod(text: &str) -> Value {
    let mut words = text.split(' ');
    let mut metadata = metadata(words.next().unwrap(), Some("uid-agent"));
    metadata["labels"]["controller-revision-hash"] = "new".into();
    let node = words.next().unwrap();
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let terms = json!([{"matchFields": [field]}]);
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": terms}}});
    let mut pod = json!({"metadata": metadata, "spec": {"nodeName": node, "affinity": affinity},
        "status": {"phase": "Running"}});
    for word in words {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        match word {
            "old" => pod["metadata"]["labels"]["controller-revision-hash"] = "old".into(),
            "unbound" | "stuck" => {
                pod["spec"]["nodeName"] = Value::Null;
                pod["status"]["phase"] = "Pending".into();
                if word == "stuck" {
                    pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False",
                        "reason": "Unschedulable", "message": "no free ports"}]);
                }
            }
            "ready" => {
                let since = seconds_ago(now(), value);
                pod["status"]["conditions"] =
                    json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
            }
            "failed" => pod["status"]["phase"] = "Failed".into(),
            "succeeded" => pod["status"]["phase"] = "Succeeded".into(),
            "going" => pod["metadata"]["deletionTimestamp"] = json!(seconds_ago(now(), value)),
            "age" => pod["metadata"]["creationTimestamp"] = json!(seconds_ago(now(), value)),
            "stray" => pod["metadata"]["ownerReferences"] = Value::Null,
            "other" => pod["metadata"]["labels"]["app"] = "other".into(),
            _ => panic!("{word}?"),
        }
    }
    pod
}
