//! Native manifests with only their `apiVersion` changed: `manifests/` are accepted, `refused/` are not, and say why.
//!
//! The files are as a user writes them for the native kinds; the same corpora are applied to a real API server by the
//! end-to-end tests. The first line of a refused file holds the expected message. When such a file holds two
//! documents, the first is stored and the second is the update that is refused.

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

use crate::{rules, schema};

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

/// What the server makes of `object`: the stored form, or the errors.
fn admit(
    object: &Value,
    old: Option<&Value>,
    schemas: &BTreeMap<String, Value>,
) -> Result<Value, Vec<String>> {
    let schema = &schemas[object["kind"].as_str().unwrap()];
    let mut object = object.clone();
    let mut errors = Vec::new();
    schema::drop_nulls(&mut object, schema);
    schema::set_defaults(&mut object, schema);
    schema::validate(&object, schema, "", &mut errors);
    if errors.is_empty() {
        rules::evaluate(&object, old, schema, "", &mut errors);
    }
    if errors.is_empty() { Ok(object) } else { Err(errors) }
}

#[test]
fn native_manifests_are_accepted() {
    let schemas = schemas();
    let corpus = corpus("manifests");
    assert!(corpus.len() >= 100, "the corpus has shrunk to {}", corpus.len());
    for (name, text) in corpus {
        for document in documents(&text) {
            let stored =
                admit(&document, None, &schemas).unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
            // Applying the same again changes nothing.
            let again = admit(&stored, Some(&stored), &schemas)
                .unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
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
    let template = ["/template", "/jobTemplate/spec/template"].into_iter().find_map(|path| written.pointer(path));
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

/// The errors of a refused manifest under `schemas`; empty when it is accepted.
fn errors_of(name: &str, text: &str, schemas: &BTreeMap<String, Value>) -> Vec<String> {
    let documents = documents(text);
    let refused = match documents.as_slice() {
        [only] => admit(only, None, schemas),
        [first, second] => {
            let stored = admit(first, None, schemas).unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
            admit(second, Some(&stored), schemas)
        }
        other => panic!("{name} has {} documents", other.len()),
    };
    refused.err().unwrap_or_default()
}

/// The message that a refused manifest names in its first line.
pub(crate) fn wanted(text: &str) -> &str {
    text.lines().next().unwrap().strip_prefix("# refused: ").unwrap()
}

/// The errors of a refused status: the first document is stored with its status, the second is the status written next.
fn errors_of_status(name: &str, text: &str, schemas: &BTreeMap<String, Value>) -> Vec<String> {
    let documents = documents(text);
    let [first, second] = documents.as_slice() else { panic!("{name} has {} documents", documents.len()) };
    let admitted = |object: &Value, old: Option<&Value>| admit(object, old, schemas);
    let created = admitted(first, None).unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
    let mut next = created.clone();
    next["status"] = second["status"].clone();
    admitted(&next, Some(&created)).err().unwrap_or_default()
}

/// The errors of every bad manifest and every bad status under `schemas`, with the one that is wanted.
fn bad(schemas: &BTreeMap<String, Value>) -> Vec<(String, String, Vec<String>)> {
    let specs = corpus("refused").into_iter().map(|(name, text)| {
        let errors = errors_of(&name, &text, schemas);
        (name, wanted(&text).to_owned(), errors)
    });
    let statuses = corpus("refused-status").into_iter().map(|(name, text)| {
        let errors = errors_of_status(&name, &text, schemas);
        (name, wanted(&text).to_owned(), errors)
    });
    specs.chain(statuses).collect()
}

#[test]
fn bad_manifests_are_refused_with_a_reason() {
    let misses: Vec<String> = bad(&schemas())
        .into_iter()
        .filter(|(_, wanted, errors)| !errors.iter().any(|error| error.contains(wanted)))
        .map(|(name, wanted, errors)| format!("{name}: wanted {wanted}, got {errors:#?}"))
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
    fn remove(schema: &mut Value, text: &str) {
        if let Some(own) = schema.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut) {
            own.retain(|rule| rule["rule"] != text);
        }
        match schema {
            Value::Object(fields) => fields.values_mut().for_each(|field| remove(field, text)),
            Value::Array(items) => items.iter_mut().for_each(|item| remove(item, text)),
            _ => {}
        }
    }
    let schemas = schemas();
    let mut rules = BTreeSet::new();
    for schema in schemas.values() {
        collect(schema, &mut rules);
    }
    assert!(rules.len() > 15, "the rules were not found");
    let corpus = corpus("refused");
    for rule in rules {
        let mut without = schemas.clone();
        for schema in without.values_mut() {
            remove(schema, &rule);
        }
        let missed = corpus.iter().any(|(name, text)| {
            let errors = errors_of(name, text, &without);
            !errors.iter().any(|error| error.contains(wanted(text)))
        });
        assert!(missed, "no bad manifest is refused by {rule}");
    }
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
        let template = json!({
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 1}]}]},
        });
        let selector = if kind == "ReplicationController" {
            json!({"app": "a"})
        } else {
            json!({"matchLabels": {"app": "a"}})
        };
        let spec = json!({"selector": selector, "template": template});
        let object = json!({"apiVersion": "apps.trysail.dev/v1", "kind": kind, "metadata": {"name": "a"}, "spec": spec});
        let mut stored = admit(&object, None, &schemas).unwrap();
        assert_eq!(stored["spec"]["template"], template);
        let mut added = stored["spec"].take();
        added.as_object_mut().unwrap().retain(|name, _| !["selector", "template"].contains(&name.as_str()));
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
}

/// kstatus calls an object without a status current: `helm install --wait` would be done before our controllers
/// have looked. One that says that it has observed no generation is in progress.
#[test]
fn an_object_that_nobody_has_looked_at_says_so() {
    let schemas = schemas();
    for (name, text) in corpus("manifests").into_iter().filter(|(name, _)| name.contains("-minimal")) {
        let stored = admit(&documents(&text)[0], None, &schemas).unwrap();
        assert_eq!(stored["status"], json!({"observedGeneration": 0}), "{name}");
    }
}
