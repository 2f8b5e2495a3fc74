//! ReplicaSets of both faces, and ReplicationControllers: one engine runs all three.

use serde::{Deserialize, Deserializer};
use trysail_core::{Labels, Meta, Selector, Template, condition::Conditions, meta::MetaWith, slim_object};

use super::{annotations::Annotations, selector};

/// What decisions read of a ReplicaSet or ReplicationController.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSet {
    /// Metadata.
    pub meta: Meta,
    /// Annotations, among them a Deployment's bookkeeping.
    pub annotations: Labels,
    /// `spec.replicas`; 1 when absent.
    pub replicas: i32,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// `spec.selector`; the template's labels when absent or empty, as a ReplicationController's default is.
    pub selector: Selector,
    /// `spec.template`.
    pub template: Template,
    /// `status` as it was read.
    pub status: ReplicaSetStatus,
}

slim_object!(ReplicaSet);

/// `status` of a [`ReplicaSet`]. Absent counters stay absent: native servers leave out zeros, CRDs keep them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetStatus {
    /// Which generation of the spec the status speaks of.
    pub observed_generation: Option<i64>,
    /// Active pods.
    pub replicas: Option<i32>,
    /// Those that carry every label of the template.
    pub fully_labeled_replicas: Option<i32>,
    /// Ready pods.
    pub ready_replicas: Option<i32>,
    /// Available pods.
    pub available_replicas: Option<i32>,
    /// Terminating pods.
    pub terminating_replicas: Option<i32>,
    /// Conditions, foreign ones included.
    pub conditions: Conditions,
    /// CRD face: the selector as a string.
    pub selector: Option<String>,
    /// CRD face: `ready/wanted`.
    pub ready: Option<String>,
    /// CRD face: container names.
    pub containers: Option<String>,
    /// CRD face: container images.
    pub images: Option<String>,
}

impl ReplicaSet {
    /// True when the status speaks of the spec as it is now.
    pub fn is_observed(&self) -> bool {
        self.status.observed_generation.unwrap_or(0) >= self.meta.generation
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: MetaWith<Annotations>,
    spec: SpecWire,
    #[serde(default)]
    status: Option<ReplicaSetStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecWire {
    #[serde(default)]
    replicas: Option<i32>,
    #[serde(default)]
    min_ready_seconds: Option<i32>,
    #[serde(default, deserialize_with = "selector::either")]
    selector: Selector,
    #[serde(default)]
    template: Option<Template>,
}

impl<'de> Deserialize<'de> for ReplicaSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let template = spec.template.ok_or_else(|| serde::de::Error::missing_field("spec.template"))?;
        let selector = if spec.selector.is_empty() {
            Selector::from_labels(template.labels.clone())
        } else {
            spec.selector
        };
        Ok(Self {
            meta: metadata.meta,
            annotations: metadata.annotations.0,
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector,
            template,
            status: status.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_set_and_a_replication_controller_read_alike() {
        for selector in [r#"{"matchLabels":{"app":"web"}}"#, r#"{"app":"web"}"#, "null"] {
            let text = format!(
                r#"{{"apiVersion":"v1","kind":"X","metadata":{{"name":"web","namespace":"shop","uid":"u"}},
                "spec":{{"selector":{selector},"minReadySeconds":null,"template":{{"metadata":{{"labels":{{"app":"web"}}}},
                "spec":{{"containers":[]}}}}}}}}"#
            );
            let set: ReplicaSet = serde_json::from_str(&text).unwrap();
            assert_eq!((set.replicas, set.min_ready_seconds), (1, 0));
            assert_eq!(set.selector.to_string(), "app=web");
            assert_eq!(set.status, ReplicaSetStatus::default());
        }
    }

    #[test]
    fn a_status_is_kept_as_it_was_read() {
        let status: ReplicaSetStatus = serde_json::from_str(
            r#"{"replicas":0,"conditions":[{"type":"Foreign","status":"True","extra":1}],"observedGeneration":2}"#,
        )
        .unwrap();
        assert_eq!((status.replicas, status.ready_replicas), (Some(0), None));
        assert!(status.conditions.is_true("Foreign"));
    }
}
