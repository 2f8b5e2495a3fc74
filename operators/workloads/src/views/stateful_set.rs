//! StatefulSets of both faces.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use trysail_core::{
    IntOrPercent, Labels, Meta, Selector, Symbol, Template, condition::Conditions, meta::MetaWith,
    slim_object,
};

use super::{annotations::Annotations, selector};

/// What decisions read of a StatefulSet.
#[derive(Clone, Debug, PartialEq)]
pub struct StatefulSet {
    /// Metadata.
    pub meta: Meta,
    /// Annotations: copied to revisions, where `rollout history` looks for the cause of a change.
    pub annotations: Labels,
    /// `spec.replicas`; 1 when absent.
    pub replicas: i32,
    /// `spec.ordinals.start`.
    pub start: i32,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// `spec.selector`.
    pub selector: Selector,
    /// `spec.template`.
    pub template: Template,
    /// `spec.serviceName`.
    pub service_name: Symbol,
    /// `spec.volumeClaimTemplates`.
    pub claim_templates: Vec<ClaimTemplate>,
    /// `spec.podManagementPolicy`.
    pub pod_management_policy: PodManagementPolicy,
    /// `spec.updateStrategy`.
    pub update_strategy: StatefulSetUpdateStrategy,
    /// `spec.persistentVolumeClaimRetentionPolicy`.
    pub retention: ClaimRetention,
    /// `spec.revisionHistoryLimit`; negative keeps everything.
    pub revision_history_limit: i32,
    /// `status` as it was read.
    pub status: StatefulSetStatus,
}

slim_object!(StatefulSet);

/// An entry of `spec.volumeClaimTemplates`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimTemplate {
    /// Its name, which is also the volume's.
    pub name: Symbol,
    /// Labels, annotations, finalizers and the claim's spec, as raw bytes.
    pub claim: Template,
}

/// `spec.podManagementPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodManagementPolicy {
    /// One pod after the other, in order.
    OrderedReady,
    /// All at once.
    Parallel,
}

/// `spec.updateStrategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatefulSetUpdateStrategy {
    /// Whoever deletes a pod gets the new revision for it.
    OnDelete,
    /// Pods are replaced from the highest ordinal down.
    RollingUpdate {
        /// So many pods, from the first, keep the old revision.
        partition: i32,
        /// How many pods may be unavailable; `None` is upstream's older way: one at a time.
        max_unavailable: Option<IntOrPercent>,
    },
}

/// `spec.persistentVolumeClaimRetentionPolicy`: whether claims go with what they were made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimRetention {
    /// `whenDeleted: Delete`.
    pub goes_with_set: bool,
    /// `whenScaled: Delete`.
    pub goes_with_pod: bool,
}

/// `status` of a [`StatefulSet`]. Absent counters stay absent: native servers leave out zeros, CRDs keep them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStatus {
    /// Which generation of the spec the status speaks of.
    pub observed_generation: Option<i64>,
    /// Pods.
    pub replicas: Option<i32>,
    /// Ready pods.
    pub ready_replicas: Option<i32>,
    /// Available pods.
    pub available_replicas: Option<i32>,
    /// Pods of the current revision that are not terminating.
    pub current_replicas: Option<i32>,
    /// Pods of the update revision that are not terminating.
    pub updated_replicas: Option<i32>,
    /// The revision that all pods had when the last update was complete.
    pub current_revision: Option<String>,
    /// The revision of `spec.template`.
    pub update_revision: Option<String>,
    /// How often a revision's name was taken.
    pub collision_count: Option<i32>,
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

impl StatefulSet {
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
    status: Option<StatefulSetStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecWire {
    #[serde(default)]
    replicas: Option<i32>,
    #[serde(default)]
    ordinals: Option<OrdinalsWire>,
    #[serde(default)]
    min_ready_seconds: Option<i32>,
    #[serde(default, deserialize_with = "selector::either")]
    selector: Selector,
    template: Template,
    #[serde(default)]
    service_name: Option<Symbol>,
    #[serde(default)]
    volume_claim_templates: Option<Vec<ClaimTemplate>>,
    #[serde(default)]
    pod_management_policy: Option<Symbol>,
    #[serde(default)]
    update_strategy: Option<StrategyWire>,
    #[serde(default)]
    persistent_volume_claim_retention_policy: Option<RetentionWire>,
    #[serde(default)]
    revision_history_limit: Option<i32>,
}

#[derive(Deserialize)]
struct OrdinalsWire {
    #[serde(default)]
    start: Option<i32>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct StrategyWire {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    rolling_update: Option<RollingUpdateWire>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RollingUpdateWire {
    #[serde(default)]
    partition: Option<i32>,
    #[serde(default)]
    max_unavailable: Option<IntOrPercent>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RetentionWire {
    #[serde(default)]
    when_deleted: Option<Symbol>,
    #[serde(default)]
    when_scaled: Option<Symbol>,
}

impl StrategyWire {
    fn read<E: serde::de::Error>(self) -> Result<StatefulSetUpdateStrategy, E> {
        match self.kind.as_deref() {
            Some("OnDelete") => Ok(StatefulSetUpdateStrategy::OnDelete),
            None | Some("" | "RollingUpdate") => {
                let rolling = self.rolling_update.unwrap_or_default();
                Ok(StatefulSetUpdateStrategy::RollingUpdate {
                    partition: rolling.partition.unwrap_or(0).max(0),
                    max_unavailable: rolling.max_unavailable,
                })
            }
            Some(other) => Err(E::custom(format!("unknown spec.updateStrategy.type {other}"))),
        }
    }
}

fn policy<E: serde::de::Error>(policy: Option<&str>) -> Result<PodManagementPolicy, E> {
    match policy {
        None | Some("" | "OrderedReady") => Ok(PodManagementPolicy::OrderedReady),
        Some("Parallel") => Ok(PodManagementPolicy::Parallel),
        Some(other) => Err(E::custom(format!("unknown spec.podManagementPolicy {other}"))),
    }
}

impl<'de> Deserialize<'de> for ClaimTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Named {
            metadata: Name,
        }
        #[derive(Deserialize)]
        struct Name {
            name: Symbol,
        }
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let named: Named = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        let claim = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { name: named.metadata.name, claim })
    }
}

impl<'de> Deserialize<'de> for StatefulSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let retention = spec.persistent_volume_claim_retention_policy.unwrap_or_default();
        Ok(Self {
            meta: metadata.meta,
            annotations: metadata.annotations.0,
            replicas: spec.replicas.unwrap_or(1),
            start: spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: spec.selector,
            template: spec.template,
            service_name: spec.service_name.unwrap_or_default(),
            claim_templates: spec.volume_claim_templates.unwrap_or_default(),
            pod_management_policy: policy(spec.pod_management_policy.as_deref())?,
            update_strategy: spec.update_strategy.unwrap_or_default().read()?,
            retention: ClaimRetention {
                goes_with_set: retention.when_deleted.as_deref() == Some("Delete"),
                goes_with_pod: retention.when_scaled.as_deref() == Some("Delete"),
            },
            revision_history_limit: spec.revision_history_limit.unwrap_or(10),
            status: status.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(spec: &str) -> Result<StatefulSet, serde_json::Error> {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"db","namespace":"shop","uid":"u"}},"spec":{{"selector":{{"matchLabels":{{"app":"db"}}}},
            "template":{{"metadata":{{"labels":{{"app":"db"}}}},"spec":{{"containers":[]}}}}{spec}}}}}"#
        ))
    }

    #[test]
    fn what_is_left_out_is_what_the_api_server_fills_in() {
        let rolling = StatefulSetUpdateStrategy::RollingUpdate { partition: 0, max_unavailable: None };
        for spec in ["", r#","replicas":1,"updateStrategy":{"rollingUpdate":null},"ordinals":null"#] {
            let set = set(spec).unwrap();
            assert_eq!((set.replicas, set.start, set.revision_history_limit), (1, 0, 10));
            assert_eq!(set.pod_management_policy, PodManagementPolicy::OrderedReady);
            assert_eq!((set.update_strategy, set.retention), (rolling, ClaimRetention::default()));
        }
    }

    #[test]
    fn everything_is_read() {
        let set = set(r#","replicas":0,"ordinals":{"start":7},"serviceName":"peers","podManagementPolicy":"Parallel",
            "updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"partition":2,"maxUnavailable":"30%"}},
            "persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Delete","whenScaled":"Retain"},
            "volumeClaimTemplates":[{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"data","labels":{"tier":"x"}},
              "spec":{"resources":{"requests":{"storage":"1Gi"}}},"status":{"phase":"Pending"}}]"#)
        .unwrap();
        assert_eq!((set.replicas, set.start, set.service_name.as_str()), (0, 7, "peers"));
        assert_eq!(set.pod_management_policy, PodManagementPolicy::Parallel);
        let max_unavailable = Some(IntOrPercent::Percent(30));
        assert_eq!(
            set.update_strategy,
            StatefulSetUpdateStrategy::RollingUpdate { partition: 2, max_unavailable }
        );
        assert_eq!(set.retention, ClaimRetention { goes_with_set: true, goes_with_pod: false });
        let template = &set.claim_templates[0];
        assert_eq!((template.name.as_str(), template.claim.labels.get("tier")), ("data", Some("x")));
        assert!(template.claim.spec_json().contains("1Gi"));
    }

    /// Acting on half of what is asked would be worse than not acting.
    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(set(r#","podManagementPolicy":"Sideways""#).is_err());
        assert!(set(r#","updateStrategy":{"type":"Recreate"}"#).is_err());
    }
}
