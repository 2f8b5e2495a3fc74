//! Native manifests with only their `apiVersion` changed: `manifests/` are accepted, `refused/` are not, and say why.
//! Of the documents in a file of `changes/` each is accepted as an update of the one before, its status too; in
//! `refused-status/` it is the second document's status that is refused.
//!
//! The files are as a user writes them for the native kinds; the same corpora are applied to a real API server by the
//! end-to-end tests. The first line of a refused file holds the expected message. When such a file holds two
//! documents, the first is stored and the second is the update that is refused. The second line of a file says so when
//! the native server judges differently, and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trysail_crds::{
    CronJob, DaemonSet, Deployment, Job, PodTemplate, ReplicaSet, ReplicationController, StatefulSet,
};

use crate::{
    rules::{self, Violation},
    schema,
};

pub(crate) fn corpus(folder: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_name().unwrap().display().to_string(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The documents of a manifest, as ours. Octal numbers are read as kubectl reads them.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let mut documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).unwrap();
    for document in &mut documents {
        let ours = match document["apiVersion"].as_str().unwrap() {
            "v1" | "apps/v1" => "apps.trysail.dev/v1",
            "batch/v1" => "batch.trysail.dev/v1",
            other => panic!("{other} is not the version of a native manifest"),
        };
        document["apiVersion"] = json!(ours);
    }
    documents
}

fn schemas() -> BTreeMap<String, Value> {
    let schema = |crd: CustomResourceDefinition| {
        let kind = crd.spec.names.kind;
        let schema =
            crd.spec.versions.into_iter().next().unwrap().schema.unwrap().open_api_v3_schema.unwrap();
        (kind, serde_json::to_value(schema).unwrap())
    };
    trysail_crds::all().unwrap().into_iter().map(schema).collect()
}

/// Why an object is refused.
#[derive(Default)]
struct Refusal {
    structural: Vec<String>,
    rules: Vec<Violation>,
}

impl Refusal {
    fn messages(&self) -> Vec<String> {
        let rules = self.rules.iter().map(|violation| violation.message.clone());
        self.structural.iter().cloned().chain(rules).collect()
    }

    fn says(&self, wanted: &str) -> bool {
        self.messages().iter().any(|message| message.contains(wanted))
    }

    /// The rule without which nothing would say `wanted`.
    fn only_rule_that_says(&self, wanted: &str) -> Option<&str> {
        let mut rules = self.rules.iter().filter(|violation| violation.message.contains(wanted));
        let (first, second) = (rules.next()?, rules.next());
        let only = second.is_none() && !self.structural.iter().any(|message| message.contains(wanted));
        only.then_some(first.rule.as_str())
    }
}

/// What the server makes of `object`: the stored form, or why not.
fn admit(object: &Value, old: Option<&Value>, schemas: &BTreeMap<String, Value>) -> Result<Value, Refusal> {
    let schema = &schemas[object["kind"].as_str().unwrap()];
    let mut object = object.clone();
    let mut refusal = Refusal::default();
    schema::drop_nulls(&mut object, schema);
    schema::set_defaults(&mut object, schema);
    if old.is_none() {
        // The status of a new object is dropped, and its default is not put back before the object is read again.
        object.as_object_mut().unwrap().remove("status");
    }
    schema::validate(&object, schema, "", &mut refusal.structural);
    if refusal.structural.is_empty() {
        rules::evaluate(&object, old, schema, "", &mut refusal.rules);
    }
    schema::set_defaults(&mut object, schema);
    if refusal.messages().is_empty() { Ok(object) } else { Err(refusal) }
}

/// As [`admit`] where a refusal is a mistake of the test.
fn admitted(name: &str, object: &Value, old: Option<&Value>, schemas: &BTreeMap<String, Value>) -> Value {
    admit(object, old, schemas).unwrap_or_else(|refusal| panic!("{name}: {:#?}", refusal.messages()))
}

#[test]
fn native_manifests_are_accepted() {
    let schemas = schemas();
    let corpus = corpus("manifests");
    assert!(corpus.len() >= 100, "the corpus has shrunk to {}", corpus.len());
    for (name, text) in corpus {
        for document in documents(&text) {
            let stored = admitted(&name, &document, None, &schemas);
            // Applying the same again changes nothing.
            let again = admitted(&name, &stored, Some(&stored), &schemas);
            assert_eq!(stored, again, "{name}");
            read_as_types(&name, &stored);
        }
    }
}

/// The stored object decodes into our types and back without loss, and its templates into upstream's types.
fn read_as_types(name: &str, stored: &Value) {
    fn spec<K: DeserializeOwned>(stored: &Value, spec: impl Fn(K) -> Value) -> Value {
        spec(serde_json::from_value(stored.clone()).unwrap())
    }
    let written = match stored["kind"].as_str().unwrap() {
        "Deployment" => spec(stored, |object: Deployment| json!(object.spec)),
        "ReplicaSet" => spec(stored, |object: ReplicaSet| json!(object.spec)),
        "ReplicationController" => spec(stored, |object: ReplicationController| {
            assert!(!object.spec.effective_selector().is_empty(), "{name}");
            json!(object.spec)
        }),
        "StatefulSet" => spec(stored, |object: StatefulSet| {
            for claim in object.spec.volume_claim_templates.iter().flatten() {
                let typed = claim.typed().unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(typed.metadata.name.as_deref(), Some(claim.name()), "{name}");
            }
            json!(object.spec)
        }),
        "DaemonSet" => spec(stored, |object: DaemonSet| json!(object.spec)),
        "Job" => spec(stored, |object: Job| json!(object.spec)),
        "CronJob" => spec(stored, |object: CronJob| json!(object.spec)),
        other => panic!("{name}: {other} is not a kind of ours"),
    };
    let template =
        ["/template", "/jobTemplate/spec/template"].into_iter().find_map(|path| written.pointer(path));
    let template = PodTemplate(template.unwrap().clone());
    template.typed().unwrap_or_else(|error| panic!("{name}: {error}"));
    keeps(name, &stored["spec"], &written);
}

/// Everything that `stored` says, `written` says as well, except for what says nothing.
fn keeps(name: &str, stored: &Value, written: &Value) {
    let nothing = |value: &Value| value.is_null() || *value == json!({}) || *value == json!([]);
    match (stored, written) {
        (Value::Object(stored), Value::Object(written)) => {
            for (field, value) in stored.iter().filter(|(_, value)| !nothing(value)) {
                let kept = written.get(field);
                keeps(name, value, kept.unwrap_or_else(|| panic!("{name}: our type has no field {field}")));
            }
        }
        (Value::Array(stored), Value::Array(written)) => {
            assert_eq!(stored.len(), written.len(), "{name}");
            stored.iter().zip(written).for_each(|(stored, written)| keeps(name, stored, written));
        }
        (stored, written) => assert_eq!(stored, written, "{name}"),
    }
}

/// How the last document of a manifest is refused, the first being stored.
fn refusal_of(name: &str, text: &str, schemas: &BTreeMap<String, Value>) -> Refusal {
    let documents = documents(text);
    let refused = match documents.as_slice() {
        [only] => admit(only, None, schemas),
        [first, second] => admit(second, Some(&admitted(name, first, None, schemas)), schemas),
        other => panic!("{name} has {} documents", other.len()),
    };
    refused.err().unwrap_or_default()
}

/// How the status of the second document is refused, that of the first being stored.
fn refusal_of_status(name: &str, text: &str, schemas: &BTreeMap<String, Value>) -> Refusal {
    let documents = documents(text);
    let [first, second] = documents.as_slice() else { panic!("{name} has {} documents", documents.len()) };
    let with_status = |object: &Value, other: &Value| {
        let mut object = object.clone();
        object["status"] = other["status"].clone();
        object
    };
    let created = admitted(name, first, None, schemas);
    let stored = admitted(name, &with_status(&created, first), Some(&created), schemas);
    admit(&with_status(&stored, second), Some(&stored), schemas).err().unwrap_or_default()
}

/// The object that is stored after each document was applied in turn, and its status written when it has one.
#[test]
fn changes_are_accepted() {
    let schemas = schemas();
    for (name, text) in corpus("changes") {
        let mut stored: Option<Value> = None;
        for document in documents(&text) {
            let mut applied = document.clone();
            if let Some(old) = &stored {
                applied["status"] = old["status"].clone();
            }
            let mut next = admitted(&name, &applied, stored.as_ref(), &schemas);
            if let Some(status) = document.get("status") {
                let old = next.clone();
                next["status"] = status.clone();
                next = admitted(&name, &next, Some(&old), &schemas);
            }
            stored = Some(next);
        }
    }
}

/// The message that a refused manifest names in its first line.
pub(crate) fn wanted(text: &str) -> &str {
    text.lines().next().unwrap().strip_prefix("# refused: ").unwrap()
}

/// Every bad manifest and every bad status: its name, the message that is wanted, and how it is refused.
fn refusals(schemas: &BTreeMap<String, Value>) -> Vec<(String, String, Refusal)> {
    type Judge = fn(&str, &str, &BTreeMap<String, Value>) -> Refusal;
    let corpora: [(&str, Judge); 2] = [("refused", refusal_of), ("refused-status", refusal_of_status)];
    let judged = corpora.map(|(folder, judge)| {
        corpus(folder).into_iter().map(move |(name, text)| {
            let refusal = judge(&name, &text, schemas);
            (name, wanted(&text).to_owned(), refusal)
        })
    });
    judged.into_iter().flatten().collect()
}

#[test]
fn bad_manifests_are_refused_with_a_reason() {
    let misses: Vec<String> = refusals(&schemas())
        .into_iter()
        .filter(|(_, wanted, refusal)| !refusal.says(wanted))
        .map(|(name, wanted, refusal)| format!("{name}: wanted {wanted}, got {:#?}", refusal.messages()))
        .collect();
    assert!(misses.is_empty(), "{}", misses.join("\n"));
}

/// A rule without which every bad manifest is still refused in the same words is a rule that nothing tests.
#[test]
fn every_rule_refuses_something() {
    fn collect(schema: &Value, rules: &mut BTreeSet<String>) {
        if let Some(own) = schema["x-kubernetes-validations"].as_array() {
            rules.extend(own.iter().map(|rule| rule["rule"].as_str().unwrap().to_owned()));
        }
        children(schema).for_each(|child| collect(child, rules));
    }
    let schemas = schemas();
    let mut rules = BTreeSet::new();
    for schema in schemas.values() {
        collect(schema, &mut rules);
    }
    assert!(rules.len() > 80, "the rules were not found");
    for (_, wanted, refusal) in refusals(&schemas) {
        if let Some(rule) = refusal.only_rule_that_says(&wanted) {
            rules.remove(rule);
        }
    }
    assert!(rules.is_empty(), "no bad manifest is refused by {rules:#?}");
}

/// The schemas directly below a schema.
fn children(schema: &Value) -> impl Iterator<Item = &Value> {
    let fields = schema["properties"].as_object().into_iter().flat_map(serde_json::Map::values);
    fields.chain(schema.get("items")).chain(schema.get("additionalProperties"))
}

/// What the server fills in, and that it fills in nothing inside the template: a default there that changes with a
/// later version would restart every pod.
#[test]
fn defaults_are_those_of_the_native_kinds() {
    let schemas = schemas();
    let stored = |kind: &str| {
        let batch = ["Job", "CronJob"].contains(&kind);
        let mut template = json!({
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 1}]}]},
        });
        if batch {
            template["spec"]["restartPolicy"] = json!("Never");
        }
        let spec = match kind {
            "ReplicationController" => json!({"selector": {"app": "a"}, "template": template}),
            "Job" => json!({"template": template}),
            "CronJob" => json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
            _ => json!({"selector": {"matchLabels": {"app": "a"}}, "template": template}),
        };
        let group = if batch { "batch" } else { "apps" };
        let object = json!({"apiVersion": format!("{group}.trysail.dev/v1"), "kind": kind,
            "metadata": {"name": "a"}, "spec": spec});
        let mut stored = admitted(kind, &object, None, &schemas);
        let mut added = stored["spec"].take();
        for (field, given) in spec.as_object().unwrap() {
            assert_eq!(added[field], *given, "{kind}");
        }
        added.as_object_mut().unwrap().retain(|name, _| spec.get(name).is_none());
        added
    };
    let deployment = json!({
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate"},
    });
    assert_eq!(stored("Deployment"), deployment);
    assert_eq!(stored("ReplicaSet"), json!({"replicas": 1}));
    assert_eq!(stored("ReplicationController"), json!({"replicas": 1}));
    let stateful_set = json!({
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    });
    assert_eq!(stored("StatefulSet"), stateful_set);
    let daemon_set = json!({
        "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
    });
    assert_eq!(stored("DaemonSet"), daemon_set);
    // The rest depends on other fields, and is read from their absence.
    let job = json!({"completionMode": "NonIndexed", "suspend": false, "manualSelector": false});
    assert_eq!(stored("Job"), job);
    let cron_job = json!({
        "concurrencyPolicy": "Allow",
        "suspend": false,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    });
    assert_eq!(stored("CronJob"), cron_job);
}

/// kstatus calls an object without a status current: `helm install --wait` would be done before our controllers
/// have looked. One that says that it has observed no generation is in progress.
#[test]
fn an_object_that_nobody_has_looked_at_says_so() {
    let schemas = schemas();
    for (name, text) in corpus("manifests").into_iter().filter(|(name, _)| name.contains("-minimal")) {
        let stored = admitted(&name, &documents(&text)[0], None, &schemas);
        assert_eq!(stored["status"], json!({"observedGeneration": 0}), "{name}");
    }
}

/// What the README sends people to is accepted as it stands.
#[test]
fn the_manifests_to_try_out_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/manifests");
    let schemas = schemas();
    let mut kinds = BTreeSet::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&path).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let is_ours = |object: &&Value| object["apiVersion"].as_str().unwrap().contains("trysail.dev/");
        for object in objects.iter().filter(is_ours) {
            admitted(&path.display().to_string(), object, None, &schemas);
            kinds.insert(object["kind"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["CronJob", "DaemonSet", "Job", "StatefulSet"]);
}
