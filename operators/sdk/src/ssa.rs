//! Bodies for server-side apply that claim what was set, and nothing else.
//!
//! k8s-openapi's types are for reading: serialized, `Deployment::default()` says `spec: {selector: {}, template:
//! {}}`, and an HPA says `maxReplicas: 0`. Applied, such a body claims those fields, or wipes them. An
//! [`ApplyConfiguration`] starts with the object's identity alone.

use std::{fmt, marker::PhantomData};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use trysail_core::Key;

use crate::controller::Kind;

/// What one field manager wants of one object.
///
/// ```
/// use k8s_openapi::api::apps::v1::Deployment;
/// use trysail_sdk::{core::Key, ssa::ApplyConfiguration};
/// let wanted = ApplyConfiguration::<Deployment>::new(&Key::new("shop", "web")).set("spec.replicas", 3);
/// assert_eq!(
///     serde_json::to_value(&wanted).unwrap(),
///     serde_json::json!({
///         "apiVersion": "apps/v1", "kind": "Deployment",
///         "metadata": {"namespace": "shop", "name": "web"}, "spec": {"replicas": 3},
///     }),
/// );
/// ```
#[derive(Clone)]
#[must_use = "it says what is wanted; `kube::Api::patch` with `Patch::Apply` sends it"]
pub struct ApplyConfiguration<K> {
    body: Map<String, Value>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> ApplyConfiguration<K> {
    /// Nothing but that the object exists.
    pub fn new(key: &Key) -> Self {
        let mut metadata = Map::new();
        if !key.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), Value::from(&*key.namespace));
        }
        metadata.insert("name".to_owned(), Value::from(&*key.name));
        let mut body = Map::new();
        body.insert("apiVersion".to_owned(), Value::from(K::api_version(&())));
        body.insert("kind".to_owned(), Value::from(K::kind(&())));
        body.insert("metadata".to_owned(), Value::Object(metadata));
        Self { body, kind: PhantomData }
    }

    /// Wants `value` at `path`, whose members are separated by dots. For a member whose name has dots itself,
    /// set the object that holds it.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut members: Vec<&str> = path.split('.').collect();
        let Some(last) = members.pop() else { return self };
        let mut at = &mut self.body;
        for member in members {
            let entry = at.entry(member).or_insert_with(|| Value::Object(Map::new()));
            if !entry.is_object() {
                // The later wish wins.
                *entry = Value::Object(Map::new());
            }
            let Value::Object(next) = entry else { return self };
            at = next;
        }
        at.insert(last.to_owned(), value.into());
        self
    }

    /// Wants `owner` as its controller.
    pub fn owned_by<O: Kind>(self, owner: &O) -> Self {
        match owner.controller_owner_ref(&()) {
            Some(reference) => self.set("metadata.ownerReferences", json!([reference])),
            // An object without a uid was not read from the server: it cannot own anything.
            None => self,
        }
    }
}

impl<K> Serialize for ApplyConfiguration<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.body.serialize(serializer)
    }
}

impl<K> fmt::Debug for ApplyConfiguration<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Value::Object(self.body.clone()))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::Job,
        core::v1::Pod,
    };

    use super::*;

    /// Probe "ssa": every one of these types claims fields of its spec when its default is serialized.
    #[test]
    fn ssa() {
        fn identity_only<K: Kind + Default + Serialize>() {
            let body = serde_json::to_value(ApplyConfiguration::<K>::new(&Key::new("shop", "web"))).unwrap();
            let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(members, ["apiVersion", "kind", "metadata"]);
            assert_eq!(body["metadata"], json!({"namespace": "shop", "name": "web"}));
        }
        identity_only::<Deployment>();
        identity_only::<DaemonSet>();
        identity_only::<ReplicaSet>();
        identity_only::<StatefulSet>();
        identity_only::<HorizontalPodAutoscaler>();
        identity_only::<Job>();
        identity_only::<Pod>();
    }

    #[test]
    fn paths_make_their_objects_and_the_later_wish_wins() {
        let wanted = ApplyConfiguration::<Deployment>::new(&Key::new("shop", "web"))
            .set("spec.template", "nonsense")
            .set("spec.template.metadata.labels", json!({"app.kubernetes.io/name": "web"}))
            .set("spec.replicas", 2);
        let body = serde_json::to_value(wanted).unwrap();
        assert_eq!(
            body["spec"],
            json!({"replicas": 2, "template": {"metadata": {"labels": {"app.kubernetes.io/name": "web"}}}})
        );
    }
}
