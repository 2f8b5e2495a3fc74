//! The part of `metadata` that decisions read. Everything else is skipped while decoding.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::{Key, Labels, Symbol, Uid};

/// Slim object metadata. Annotations and finalizers belong to the kinds that read them.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// Namespace and name.
    pub key: Key,
    /// This incarnation.
    pub uid: Uid,
    /// Comparable within a resource (KEP-5504).
    pub resource_version: u64,
    /// Bumped by the server when the spec changes.
    pub generation: i64,
    /// `creationTimestamp`.
    pub created: Timestamp,
    /// `deletionTimestamp`: set while the object is terminating.
    pub deleted: Option<Timestamp>,
    /// Labels, shared between objects that have the same.
    pub labels: Labels,
    /// Uid of the owner reference whose `controller` is true.
    pub controller: Option<Uid>,
}

impl Meta {
    /// True while the object is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.deleted.is_some()
    }
}

/// Metadata with those annotations that a kind reads: `A` says which (`Labels` for all of them).
#[derive(Clone, Debug, PartialEq)]
pub struct MetaWith<A> {
    /// The common part.
    pub meta: Meta,
    /// The kind's own part.
    pub annotations: A,
    /// `metadata.finalizers`, for the kinds that read them.
    pub finalizers: Vec<Symbol>,
    /// `deletionGracePeriodSeconds`: how long before `deletionTimestamp` the deletion was asked for.
    pub grace_seconds: i64,
    /// The controlling owner, if it is a Job of whatever group.
    pub job: Option<JobReference>,
}

/// A controlling owner of kind Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobReference {
    /// Which Job kind it is: ours, Kubernetes' own or somebody else's.
    pub api_version: Symbol,
    /// In the namespace of the object.
    pub name: Symbol,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "A: Deserialize<'de>"))]
struct Wire<'a, A> {
    #[serde(default)]
    annotations: Option<A>,
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    #[serde(default)]
    namespace: Symbol,
    #[serde(default)]
    uid: Option<Uid>,
    #[serde(default)]
    resource_version: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    creation_timestamp: Option<Timestamp>,
    #[serde(default)]
    deletion_timestamp: Option<Timestamp>,
    #[serde(default)]
    deletion_grace_period_seconds: Option<i64>,
    #[serde(default)]
    labels: Labels,
    #[serde(default, borrow)]
    owner_references: Option<Vec<Owner<'a>>>,
    #[serde(default)]
    finalizers: Option<Vec<Symbol>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner<'a> {
    uid: Uid,
    #[serde(default)]
    controller: Option<bool>,
    #[serde(default, borrow)]
    api_version: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    name: std::borrow::Cow<'a, str>,
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(MetaWith::<IgnoredAny>::deserialize(deserializer)?.meta)
    }
}

impl<'de, A: Deserialize<'de> + Default> Deserialize<'de> for MetaWith<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::<A>::deserialize(deserializer)?;
        let resource_version = match wire.resource_version.as_deref() {
            None | Some("") => 0,
            Some(text) => text
                .parse()
                .map_err(|_| serde::de::Error::custom(format!("resourceVersion {text:?} is not a number")))?,
        };
        let owners = wire.owner_references.unwrap_or_default();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true));
        let job = controller.as_ref().filter(|owner| owner.kind == "Job");
        let job = job.map(|owner| JobReference {
            api_version: owner.api_version.as_ref().into(),
            name: owner.name.as_ref().into(),
        });
        let meta = Meta {
            key: Key { namespace: wire.namespace, name: Arc::from(wire.name.as_ref()) },
            uid: wire.uid.unwrap_or_else(|| Uid::from("")),
            resource_version,
            generation: wire.generation,
            created: wire.creation_timestamp.unwrap_or(Timestamp::UNIX_EPOCH),
            deleted: wire.deletion_timestamp,
            labels: wire.labels,
            controller: controller.map(|owner| owner.uid),
        };
        Ok(Self {
            meta,
            annotations: wire.annotations.unwrap_or_default(),
            finalizers: wire.finalizers.unwrap_or_default(),
            grace_seconds: wire.deletion_grace_period_seconds.unwrap_or(0),
            job,
        })
    }
}

/// What an informer, an index and a gate need to know of any object.
///
/// Every `kube::Resource` has it; slim views implement it through their [`Meta`] with [`slim_object!`].
pub trait Object: Send + Sync + 'static {
    /// Namespace and name.
    fn key(&self) -> Key;
    /// This incarnation.
    fn uid(&self) -> Uid;
    /// 0 when the server sent none.
    fn resource_version(&self) -> u64;
    /// Uid of the controlling owner.
    fn controller(&self) -> Option<Uid>;
    /// Labels.
    fn labels(&self) -> Labels;
    /// True while the object is being deleted.
    fn is_terminating(&self) -> bool;
}

impl<K> Object for K
where
    K: kube::Resource + Send + Sync + 'static,
{
    fn key(&self) -> Key {
        let meta = self.meta();
        Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    fn uid(&self) -> Uid {
        Uid::from(self.meta().uid.as_deref().unwrap_or_default())
    }

    fn resource_version(&self) -> u64 {
        self.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn controller(&self) -> Option<Uid> {
        let owners = self.meta().owner_references.as_deref().unwrap_or_default();
        owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| Uid::from(owner.uid.as_str()))
    }

    fn labels(&self) -> Labels {
        let labels = self.meta().labels.as_ref();
        labels.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    fn is_terminating(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }
}

/// Implements [`Object`] for a slim view with a field `meta: Meta`.
#[macro_export]
macro_rules! slim_object {
    ($view:ty) => {
        impl $crate::Object for $view {
            fn key(&self) -> $crate::Key {
                self.meta.key.clone()
            }
            fn uid(&self) -> $crate::Uid {
                self.meta.uid.clone()
            }
            fn resource_version(&self) -> u64 {
                self.meta.resource_version
            }
            fn controller(&self) -> Option<$crate::Uid> {
                self.meta.controller.clone()
            }
            fn labels(&self) -> $crate::Labels {
                self.meta.labels.clone()
            }
            fn is_terminating(&self) -> bool {
                self.meta.is_terminating()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_and_the_rest_skipped() {
        let meta: Meta = serde_json::from_str(
            r#"{"name":"web-x","namespace":"shop","uid":"u1","resourceVersion":"42","generation":3,
                "creationTimestamp":"2026-01-02T03:04:05Z","managedFields":[{"fieldsV1":{"f:a":{}}}],
                "ownerReferences":[{"uid":"a","kind":"X","name":"n","apiVersion":"v1"},
                                   {"uid":"b","kind":"X","name":"n","apiVersion":"v1","controller":true}]}"#,
        )
        .unwrap();
        assert_eq!(meta.key, Key::new("shop", "web-x"));
        assert_eq!(meta.controller, Some(Uid::from("b")));
        assert_eq!((meta.resource_version, meta.generation), (42, 3));
        assert!(!meta.is_terminating());
    }

    #[test]
    fn a_version_that_is_no_number_is_an_error() {
        let error = serde_json::from_str::<Meta>(r#"{"name":"a","resourceVersion":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("resourceVersion"), "{error}");
    }
}
