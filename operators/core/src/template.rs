//! A pod template, kept once: its spec as the raw bytes the server sent, shared by content between a
//! Deployment and its ReplicaSets; its metadata parsed, because labels and annotations are worked with.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Number, Value, value::RawValue};

use crate::{
    Json, Labels, Symbol,
    intern::{Interner, SameAs, fnv64},
    names::content_hash,
};

/// The label that tells the pods of one ReplicaSet from those of its siblings.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

static SPECS: LazyLock<Interner<Spec>> = LazyLock::new(Interner::new);

/// A pod spec, shared by all templates that have the same bytes.
struct Spec {
    raw: Arc<RawValue>,
    /// Hash of the normal form, made when first asked for: a Deployment is compared with each of its
    /// ReplicaSets at every look, and all but one differ.
    digest: OnceLock<u64>,
    /// The last spec of other bytes that was found equal: an owner is compared with the record of its current
    /// revision, whose bytes are in another order, at every look.
    same: Mutex<Weak<Spec>>,
}

impl Spec {
    fn get(&self) -> &str {
        self.raw.get()
    }

    fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| match normal_form(self.get()) {
            Some(normal) => fnv64(&[normal.to_string().as_bytes()]),
            None => fnv64(&[self.get().as_bytes()]),
        })
    }

    fn last_same(&self) -> MutexGuard<'_, Weak<Spec>> {
        // It is only ever replaced as a whole.
        self.same.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `spec.template` of a workload.
#[derive(Clone)]
pub struct Template {
    /// Labels of the pods to come.
    pub labels: Labels,
    /// Annotations of the pods to come.
    pub annotations: Labels,
    /// Finalizers of the pods to come.
    pub finalizers: Vec<Symbol>,
    /// Metadata that no pod takes over, a name say. Kept, because records of revisions repeat the whole template.
    other_metadata: Option<Arc<Map<String, Value>>>,
    spec: Arc<Spec>,
}

impl Template {
    /// The pod spec, to be spliced into a body.
    pub fn spec(&self) -> Json {
        Json::Raw(Arc::clone(&self.spec.raw))
    }

    /// The pod spec as the server sent it.
    pub fn spec_json(&self) -> &str {
        self.spec.get()
    }

    /// A copy with one more label.
    #[must_use]
    pub fn with_label(&self, key: &str, value: &str) -> Self {
        Self { labels: self.labels.with(key, value), ..self.clone() }
    }

    /// A copy without the hash label, as the user wrote it.
    #[must_use]
    pub fn without_hash(&self) -> Self {
        Self { labels: self.labels.without(POD_TEMPLATE_HASH), ..self.clone() }
    }

    /// The same pods would come of both, the hash label aside (upstream: `EqualIgnoreHash`). Byte order, absent
    /// and empty lists and nulls make no difference.
    pub fn same_pods(&self, other: &Template) -> bool {
        self.labels.without(POD_TEMPLATE_HASH) == other.labels.without(POD_TEMPLATE_HASH)
            && self.annotations == other.annotations
            && self.finalizers == other.finalizers
            && self.same_spec(other)
    }

    fn same_spec(&self, other: &Template) -> bool {
        if Arc::ptr_eq(&self.spec, &other.spec) || self.spec.get() == other.spec.get() {
            return true;
        }
        if self.spec.digest() != other.spec.digest() {
            return false;
        }
        if Weak::as_ptr(&self.spec.last_same()) == Arc::as_ptr(&other.spec) {
            return true;
        }
        let same = match (normal_form(self.spec.get()), normal_form(other.spec.get())) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        };
        if same {
            *self.spec.last_same() = Arc::downgrade(&other.spec);
        }
        same
    }

    /// The value of the `pod-template-hash` label for this template; `collisions` chooses another one when a
    /// foreign object sits on the name.
    pub fn hash(&self, collisions: i32) -> String {
        let metadata = self.metadata_value(&self.labels.without(POD_TEMPLATE_HASH)).to_string();
        // The normal form, so that a server which merely orders fields anew does not change the name.
        let spec = normal_form(self.spec.get()).map_or_else(|| self.spec.get().to_owned(), |v| v.to_string());
        content_hash(&[metadata.as_bytes(), spec.as_bytes(), &collisions.to_le_bytes()])
    }

    /// The template as a body to send.
    pub fn to_json(&self) -> Json {
        Json::Object(vec![("metadata", self.metadata_value(&self.labels).into()), ("spec", self.spec())])
    }

    /// The whole template as a value, fields that no pod takes over included.
    pub fn to_value(&self) -> Value {
        let mut template = self.to_json().to_value();
        if let (Some(other), Value::Object(metadata)) = (&self.other_metadata, &mut template["metadata"]) {
            metadata.extend(other.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        template
    }

    fn metadata_value(&self, labels: &Labels) -> Value {
        let mut metadata = Map::new();
        let mut put = |key: &str, pairs: &Labels| {
            if !pairs.is_empty() {
                let pairs = pairs.iter().map(|(k, v)| (k.to_owned(), Value::from(v))).collect();
                metadata.insert(key.to_owned(), Value::Object(pairs));
            }
        };
        put("labels", labels);
        put("annotations", &self.annotations);
        if !self.finalizers.is_empty() {
            let finalizers = self.finalizers.iter().map(|name| Value::from(name.as_str())).collect();
            metadata.insert("finalizers".to_owned(), Value::Array(finalizers));
        }
        Value::Object(metadata)
    }

    /// Container names and images in order, for the columns that `kubectl get -o wide` shows.
    pub fn containers(&self) -> Vec<(String, String)> {
        #[derive(Deserialize)]
        struct Spec {
            #[serde(default)]
            containers: Vec<Container>,
        }
        #[derive(Deserialize)]
        struct Container {
            #[serde(default)]
            name: String,
            #[serde(default)]
            image: String,
        }
        let spec: Spec = serde_json::from_str(self.spec.get()).unwrap_or(Spec { containers: Vec::new() });
        spec.containers.into_iter().map(|container| (container.name, container.image)).collect()
    }
}

/// Sorted keys (serde_json's map sorts), without nulls and empty lists: Go's nil and empty slice are one. Numbers
/// are as near as a float comes: what has once been through a generic value of Go's is no nearer.
fn normal_form(json: &str) -> Option<Value> {
    let mut value = serde_json::from_str(json).ok()?;
    prune(&mut value);
    Some(value)
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| {
                prune(member);
                // Empty objects stay: `emptyDir: {}` says something.
                !(member.is_null() || member.as_array().is_some_and(Vec::is_empty))
            });
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().and_then(Number::from_f64) {
                *number = float;
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

impl SameAs<str> for Spec {
    fn same_as(&self, other: &str) -> bool {
        self.get() == other
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels && self.same_pods(other)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?}, {})", self.labels, self.spec.get())
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            metadata: Option<TemplateMeta>,
            #[serde(default)]
            spec: Option<Box<RawValue>>,
        }
        let wire = Wire::deserialize(deserializer)?;
        let metadata = wire.metadata.unwrap_or_default();
        let spec = match wire.spec {
            Some(spec) => spec,
            None => RawValue::from_string("{}".to_owned()).map_err(serde::de::Error::custom)?,
        };
        let text = spec.get().to_owned();
        Ok(Self {
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            other_metadata: (!metadata.other.is_empty()).then(|| Arc::new(metadata.other)),
            spec: SPECS.intern(fnv64(&[text.as_bytes()]), text.as_str(), || {
                Arc::new(Spec { raw: Arc::from(spec), digest: OnceLock::new(), same: Mutex::default() })
            }),
        })
    }
}

#[derive(Default)]
struct TemplateMeta {
    labels: Labels,
    annotations: Labels,
    finalizers: Vec<Symbol>,
    other: Map<String, Value>,
}

impl<'de> Deserialize<'de> for TemplateMeta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetaVisitor)
    }
}

struct MetaVisitor;

impl<'de> Visitor<'de> for MetaVisitor {
    type Value = TemplateMeta;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a template's metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TemplateMeta, A::Error> {
        let mut metadata = TemplateMeta::default();
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match key.as_ref() {
                "labels" => metadata.labels = map.next_value()?,
                "annotations" => metadata.annotations = map.next_value()?,
                "finalizers" => metadata.finalizers = map.next_value::<Option<_>>()?.unwrap_or_default(),
                other => match map.next_value()? {
                    // Servers before 1.34 sent `creationTimestamp: null`.
                    Value::Null => {}
                    value => {
                        metadata.other.insert(other.to_owned(), value);
                    }
                },
            }
        }
        Ok(metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(json: &str) -> Template {
        serde_json::from_str(json).unwrap()
    }

    const WEB: &str = r#"{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"nginx"}],"volumes":[{"name":"v","emptyDir":{}}]}}"#;

    #[test]
    fn a_deployment_and_its_replica_set_share_one_spec() {
        let deployment = template(WEB);
        let set = template(&WEB.replace(r#""app":"web""#, r#""app":"web","pod-template-hash":"x""#));
        assert!(Arc::ptr_eq(&deployment.spec, &set.spec));
        assert!(deployment.same_pods(&set));
        assert_ne!(deployment, set);
    }

    #[test]
    fn order_nulls_and_empty_lists_make_no_difference_but_empty_objects_do() {
        let web = template(WEB);
        let reordered = r#"{"metadata":{"creationTimestamp":null,"labels":{"app":"web"}},"spec":{"volumes":[{"emptyDir":{},"name":"v"}],"tolerations":[],"nodeName":null,"containers":[{"image":"nginx","name":"c"}]}}"#;
        assert!(web.same_pods(&template(reordered)));
        assert_eq!(web.hash(0), template(reordered).hash(0));
        let other = template(&WEB.replace(r#","emptyDir":{}"#, ""));
        assert!(!web.same_pods(&other));
    }

    #[test]
    fn the_hash_follows_content_and_collisions() {
        let web = template(WEB);
        assert_ne!(web.hash(0), web.hash(1));
        assert_ne!(web.hash(0), template(&WEB.replace("nginx", "httpd")).hash(0));
        assert_eq!(web.hash(0), web.with_label(POD_TEMPLATE_HASH, "abc").hash(0));
    }

    #[test]
    fn what_is_sent_is_what_came() {
        assert_eq!(template(WEB).to_json().to_value(), serde_json::from_str::<Value>(WEB).unwrap());
        assert_eq!(template(WEB).containers(), [("c".to_owned(), "nginx".to_owned())]);
    }

    /// Go reads numbers of unknown type as floats, so that is what has become of them in a record it wrote.
    #[test]
    fn numbers_are_compared_as_floats() {
        let grace =
            |number: &str| template(&format!(r#"{{"spec":{{"terminationGracePeriodSeconds":{number}}}}}"#));
        assert!(grace("9007199254740993").same_pods(&grace("9007199254740992")));
        assert!(grace("30").same_pods(&grace("3e1")));
        assert!(!grace("30").same_pods(&grace("31")));
    }

    #[test]
    fn equality_once_found_is_found_again_and_only_then() {
        let spec = |text: &str| template(&format!(r#"{{"spec":{text}}}"#));
        let (one, two) = (spec(r#"{"a":1,"b":2}"#), spec(r#"{"b":2,"a":1}"#));
        let three = spec(r#"{"b":2,"a":1,"c":[]}"#);
        for _ in 0..2 {
            assert!(one.same_pods(&two) && two.same_pods(&one) && one.same_pods(&three));
            assert!(!one.same_pods(&spec(r#"{"b":2,"a":3}"#)));
        }
    }

    #[test]
    fn metadata_that_no_pod_takes_over_is_kept_for_records() {
        let named = r#"{"metadata":{"creationTimestamp":null,"labels":{"app":"web"},"name":"n"},"spec":{}}"#;
        let whole = serde_json::json!({"metadata": {"labels": {"app": "web"}, "name": "n"}, "spec": {}});
        assert_eq!(template(named).to_value(), whole);
        assert!(template(named).to_json().to_value()["metadata"].get("name").is_none());
        assert_eq!(template(named), template(&named.replace(r#","name":"n""#, "")));
    }
}
