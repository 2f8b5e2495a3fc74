//! A pod's body, made of an owner's template: the one place where pods come from.
//!
//! Without edits its spec is the template's, byte for byte. With them the spec is parsed, edited and sent whole:
//! fields newer than this program survive either way. There is no `generateName` beside the name: the server would
//! then word `AlreadyExists` as a collision of generated names and ask for a retry.

use serde_json::{Map, Value, json};
use trysail_core::{Json, Labels, Symbol, Template, plan::OwnerReference};

/// A pod to be created.
#[derive(Clone, Debug)]
pub struct PodBody<'a> {
    pub(crate) owner: &'a OwnerReference,
    pub(crate) name: String,
    labels: Labels,
    annotations: Labels,
    finalizers: Vec<Symbol>,
    spec: Json,
}

impl<'a> PodBody<'a> {
    /// The template's pod, called `name`, in the owner's namespace.
    pub fn new(owner: &'a OwnerReference, template: &Template, name: impl Into<String>) -> Self {
        Self {
            owner,
            name: name.into(),
            labels: template.labels.clone(),
            annotations: template.annotations.clone(),
            finalizers: template.finalizers.clone(),
            spec: template.spec(),
        }
    }

    /// With one more label, whatever the template says of it.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels = self.labels.with(key, value);
        self
    }

    /// With one more annotation, whatever the template says of it.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations = self.annotations.with(key, value);
        self
    }

    /// With one more finalizer, unless the template has it.
    #[must_use]
    pub fn finalizer(mut self, name: &str) -> Self {
        if !self.finalizers.iter().any(|held| held == name) {
            self.finalizers.push(name.into());
        }
        self
    }

    /// With another spec.
    #[must_use]
    pub fn spec(mut self, spec: Json) -> Self {
        self.spec = spec;
        self
    }

    /// With its spec edited.
    #[must_use]
    pub fn edit_spec(mut self, edit: impl FnOnce(&mut Map<String, Value>)) -> Self {
        let mut spec = self.spec.to_value();
        if let Value::Object(fields) = &mut spec {
            edit(fields);
        }
        self.spec = spec.into();
        self
    }

    /// The body to send.
    pub fn to_json(&self) -> Json {
        let mut metadata = Map::new();
        metadata.insert("name".into(), self.name.as_str().into());
        metadata.insert("namespace".into(), self.owner.key.namespace.as_str().into());
        metadata.insert("labels".into(), json!(self.labels));
        if !self.annotations.is_empty() {
            metadata.insert("annotations".into(), json!(self.annotations));
        }
        if !self.finalizers.is_empty() {
            metadata.insert("finalizers".into(), json!(self.finalizers));
        }
        metadata.insert("ownerReferences".into(), json!([self.owner.to_value()]));
        Json::Object(vec![
            ("apiVersion", Json::Value("v1".into())),
            ("kind", Json::Value("Pod".into())),
            ("metadata", Json::Value(Value::Object(metadata))),
            ("spec", self.spec.clone()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use trysail_core::{Face, Key, Resource, Uid};

    use super::*;

    fn body(edit: impl FnOnce(PodBody<'_>) -> PodBody<'_>) -> Json {
        let owner = OwnerReference {
            resource: Resource::jobs(Face::Native),
            key: Key::new("shop", "load"),
            uid: Uid::from("u"),
        };
        let template = r#"{"metadata":{"labels":{"app":"web"},"finalizers":["example.com/f"],"name":"x"},
            "spec":{"containers":[{"name":"c","fromTheFuture":{"a":1.50}}],"hostname":"h"}}"#;
        let template: Template = serde_json::from_str(template).unwrap();
        edit(PodBody::new(&owner, &template, "load-1")).to_json()
    }

    #[test]
    fn an_unedited_spec_is_sent_byte_for_byte() {
        let text = serde_json::to_string(&body(|pod| pod)).unwrap();
        assert!(
            text.contains(
                r#""spec":{"containers":[{"name":"c","fromTheFuture":{"a":1.50}}],"hostname":"h"}"#
            )
        );
    }

    #[test]
    fn marks_and_edits_are_added_and_all_else_survives() {
        let pod = body(|pod| {
            pod.label("app", "load")
                .label("index", "1")
                .annotation("a", "b")
                .finalizer("example.com/f")
                .finalizer("g")
                .edit_spec(|spec| {
                    spec.insert("hostname".into(), "load-1".into());
                })
        });
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "load", "uid": "u", "controller": true,
            "blockOwnerDeletion": true}]);
        let wanted = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "load-1", "namespace": "shop", "labels": {"app": "load", "index": "1"},
                "annotations": {"a": "b"}, "finalizers": ["example.com/f", "g"], "ownerReferences": owner},
            "spec": {"containers": [{"name": "c", "fromTheFuture": {"a": 1.5}}], "hostname": "load-1"}});
        assert_eq!(pod.to_value(), wanted);
    }
}
