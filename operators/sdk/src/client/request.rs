//! The requests that controllers make, built by hand so that replies stay small: writes are answered with
//! metadata only.

use std::fmt;

use http::{Method, Request, header};
use kube::client::Body;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use trysail_core::{Key, Meta, Resource, Uid, plan::Propagation};

use super::{Client, Error};

const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// What a write's reply says about the object.
#[derive(Clone, Debug, PartialEq)]
pub struct WriteReply {
    /// Its metadata after the write.
    pub meta: Meta,
}

impl WriteReply {
    /// The version at which the write shows in a watch.
    pub fn resource_version(&self) -> u64 {
        self.meta.resource_version
    }
}

/// What a delete's reply says about the object.
#[derive(Clone, Debug, PartialEq)]
pub enum Deleted {
    /// It is terminating: grace period, finalizers or foreground deletion.
    Terminating(Box<Meta>),
    /// It is gone.
    Gone,
}

/// Conditions under which a write is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preconditions {
    /// This incarnation only.
    pub uid: Option<Uid>,
    /// This version only; 0 for any.
    pub resource_version: u64,
}

/// What a live read says about an object, whatever its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveMeta {
    /// Its metadata.
    pub meta: Meta,
    /// Its owner references, to the letter.
    pub owner_references: Vec<Value>,
}

impl<'de> Deserialize<'de> for LiveMeta {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Value,
        }
        let mut metadata = Wire::deserialize(deserializer)?.metadata;
        let owner_references = match metadata.get_mut("ownerReferences").map(Value::take) {
            Some(Value::Array(references)) => references,
            _ => Vec::new(),
        };
        let controller = owner_references.iter().find(|owner| owner["controller"] == true);
        let controller = controller.and_then(|owner| owner["uid"].as_str()).map(Uid::from);
        let mut meta = Meta::deserialize(metadata).map_err(serde::de::Error::custom)?;
        meta.controller = controller;
        Ok(Self { meta, owner_references })
    }
}

#[derive(Deserialize)]
struct Reply {
    metadata: Meta,
}

/// Named in errors and logs: `create Pod shop/web-x`.
struct What<'a>(&'static str, &'a Resource, &'a (dyn fmt::Display + Sync));

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.0, self.1, self.2)
    }
}

struct In<'a>(&'a str);

impl fmt::Display for In<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("in the cluster") } else { write!(f, "in {}", self.0) }
    }
}

impl Client {
    /// Creates an object in a namespace; `namespace` is empty for cluster-scoped kinds. The reply is metadata.
    pub async fn create(
        &self,
        resource: &Resource,
        namespace: &str,
        body: &impl Serialize,
    ) -> Result<WriteReply, Error> {
        let what = What("create", resource, &In(namespace));
        let path = resource.path(some(namespace), None, None);
        let request = self.write_request(&what, Method::POST, &path, JSON, body)?;
        self.write(&what, request).await
    }

    /// Merges a patch into an object or one of its subresources. Preconditions belong into the patch's own
    /// `metadata`; see [`Preconditions::into_patch`].
    pub async fn merge_patch(
        &self,
        resource: &Resource,
        key: &Key,
        subresource: Option<&str>,
        patch: &impl Serialize,
    ) -> Result<WriteReply, Error> {
        let what = What("patch", resource, key);
        let path = resource.path(some(&key.namespace), Some(&key.name), subresource);
        let request = self.write_request(&what, Method::PATCH, &path, MERGE_PATCH, patch)?;
        self.write(&what, request).await
    }

    /// Deletes one incarnation of an object. There is no delete without a uid: a name may by now belong to
    /// another object.
    pub async fn delete(
        &self,
        resource: &Resource,
        key: &Key,
        uid: &Uid,
        propagation: Option<Propagation>,
    ) -> Result<Deleted, Error> {
        let what = What("delete", resource, key);
        let path = resource.path(some(&key.namespace), Some(&key.name), None);
        let mut body = json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid},
        });
        if let Some(policy) = propagation {
            body["propagationPolicy"] = Value::from(match policy {
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
                Propagation::Orphan => "Orphan",
            });
        }
        let request = self.write_request(&what, Method::DELETE, &path, JSON, &body)?;
        let answer = self.bytes(&what, request).await?;
        match serde_json::from_slice::<Reply>(&answer) {
            Ok(Reply { metadata }) if metadata.is_terminating() => {
                Ok(Deleted::Terminating(Box::new(metadata)))
            }
            // A Status, whose metadata is that of a list; or the object as it was.
            Ok(_) | Err(_) => Ok(Deleted::Gone),
        }
    }

    /// Reads an object from the API server, consistently: not from a cache that may lag.
    pub async fn get<T: DeserializeOwned>(&self, resource: &Resource, key: &Key) -> Result<T, Error> {
        self.read(resource, key, JSON).await
    }

    /// Reads an object's metadata from the API server, consistently.
    pub async fn get_meta(&self, resource: &Resource, key: &Key) -> Result<LiveMeta, Error> {
        self.read(resource, key, METADATA_ONLY).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        key: &Key,
        accept: &'static str,
    ) -> Result<T, Error> {
        let what = What("get", resource, key);
        let path = resource.path(some(&key.namespace), Some(&key.name), None);
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty());
        let request =
            request.map_err(|source| Error::Request { what: what.to_string(), source: source.into() })?;
        let answer = self.bytes(&what, request).await?;
        serde_json::from_slice(&answer).map_err(|source| Error::Decode { what: what.to_string(), source })
    }

    async fn write(&self, what: &What<'_>, request: Request<Body>) -> Result<WriteReply, Error> {
        let answer = self.bytes(what, request).await?;
        let reply = serde_json::from_slice::<Reply>(&answer);
        let reply = reply.map_err(|source| Error::Decode { what: what.to_string(), source })?;
        Ok(WriteReply { meta: reply.metadata })
    }

    /// The server is told our limit, so that it does not carry on with a write that we have given up.
    fn write_request(
        &self,
        what: &What<'_>,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: &impl Serialize,
    ) -> Result<Request<Body>, Error> {
        let refuse = |source| Error::Request { what: what.to_string(), source };
        let body = serde_json::to_vec(body).map_err(|error| refuse(error.into()))?;
        let limit = self.timeouts().write.as_millis();
        Request::builder()
            .method(method)
            .uri(format!("{path}?timeout={limit}ms"))
            .header(header::CONTENT_TYPE, content_type)
            .header(header::ACCEPT, METADATA_ONLY)
            .body(Body::from(body))
            .map_err(|error| refuse(error.into()))
    }
}

impl Preconditions {
    /// Adds them to a merge patch: the server answers 409 if the object is another by then.
    #[must_use]
    pub fn into_patch(self, mut patch: Value) -> Value {
        // A patch that is no object is left for the server to refuse.
        let Some(metadata) =
            patch.as_object_mut().map(|patch| patch.entry("metadata").or_insert_with(|| json!({})))
        else {
            return patch;
        };
        if let Some(uid) = self.uid {
            metadata["uid"] = Value::from(uid.to_string());
        }
        if self.resource_version > 0 {
            metadata["resourceVersion"] = Value::from(self.resource_version.to_string());
        }
        patch
    }
}

fn some(namespace: &str) -> Option<&str> {
    (!namespace.is_empty()).then_some(namespace)
}
