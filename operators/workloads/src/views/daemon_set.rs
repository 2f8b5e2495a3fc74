//! DaemonSets of both faces.

use serde::{Deserialize, Deserializer, de::Error};
use trysail_core::{
    IntOrPercent, Labels, Meta, Selector, Template, condition::Conditions, meta::MetaWith, slim_object,
};

use super::{annotations::Annotations, placement::Placement, selector};

/// The annotation in which the API server counts the template's generations.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// What decisions read of a DaemonSet.
#[derive(Clone, Debug, PartialEq)]
pub struct DaemonSet {
    /// Metadata.
    pub meta: Meta,
    /// Annotations; they are copied to the revisions.
    pub annotations: Labels,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// `spec.selector`.
    pub selector: Selector,
    /// `spec.template`.
    pub template: Template,
    /// What `spec.template` asks of nodes.
    pub placement: Placement,
    /// `spec.updateStrategy`.
    pub update_strategy: UpdateStrategy,
    /// `spec.revisionHistoryLimit`.
    pub revision_history_limit: i32,
    /// From the deprecated annotation of native DaemonSets; `None` when absent or malformed.
    pub template_generation: Option<i64>,
    /// `status` as it was read.
    pub status: DaemonSetStatus,
}

slim_object!(DaemonSet);

/// `spec.updateStrategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateStrategy {
    /// Pods are replaced when somebody deletes them.
    OnDelete,
    /// Pods are replaced gradually.
    RollingUpdate {
        /// On how many nodes a pod may be unavailable.
        max_unavailable: IntOrPercent,
        /// On how many nodes there may be a new pod beside an old one.
        max_surge: IntOrPercent,
    },
}

/// `status` of a [`DaemonSet`]. Absent counters stay absent: native servers leave out zeros, CRDs keep them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    /// Which generation of the spec the status speaks of.
    pub observed_generation: Option<i64>,
    /// Nodes that should run a pod.
    pub desired_number_scheduled: Option<i32>,
    /// Those of them that have one.
    pub current_number_scheduled: Option<i32>,
    /// Nodes that have a pod and should not.
    pub number_misscheduled: Option<i32>,
    /// Nodes whose pod is ready.
    pub number_ready: Option<i32>,
    /// Nodes whose pod is of the current template.
    pub updated_number_scheduled: Option<i32>,
    /// Nodes whose pod is available.
    pub number_available: Option<i32>,
    /// Nodes that should run a pod and have none available.
    pub number_unavailable: Option<i32>,
    /// How often a revision's name was taken.
    pub collision_count: Option<i32>,
    /// Conditions, foreign ones included.
    pub conditions: Conditions,
    /// CRD face: the selector as a string.
    pub selector: Option<String>,
    /// CRD face: the template's node selector as a string.
    pub node_selector: Option<String>,
    /// CRD face: container names.
    pub containers: Option<String>,
    /// CRD face: container images.
    pub images: Option<String>,
}

impl DaemonSet {
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
    status: Option<DaemonSetStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecWire {
    #[serde(default)]
    min_ready_seconds: Option<i32>,
    #[serde(default, deserialize_with = "selector::either")]
    selector: Selector,
    template: Template,
    #[serde(default)]
    update_strategy: Option<StrategyWire>,
    #[serde(default)]
    revision_history_limit: Option<i32>,
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
    max_surge: Option<IntOrPercent>,
    #[serde(default)]
    max_unavailable: Option<IntOrPercent>,
}

impl StrategyWire {
    fn read<E: Error>(self) -> Result<UpdateStrategy, E> {
        let rolling = self.rolling_update.unwrap_or_default();
        match self.kind.as_deref() {
            Some("OnDelete") => Ok(UpdateStrategy::OnDelete),
            None | Some("" | "RollingUpdate") => Ok(UpdateStrategy::RollingUpdate {
                max_unavailable: rolling.max_unavailable.unwrap_or(IntOrPercent::Int(1)),
                max_surge: rolling.max_surge.unwrap_or(IntOrPercent::Int(0)),
            }),
            Some(kind) => Err(E::custom(format!("unknown spec.updateStrategy.type {kind:?}"))),
        }
    }
}

impl<'de> Deserialize<'de> for DaemonSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let placement = serde_json::from_str(spec.template.spec_json())
            .map_err(|error| D::Error::custom(format!("spec.template.spec: {error}")))?;
        let annotations = metadata.annotations.0;
        Ok(Self {
            meta: metadata.meta,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: spec.selector,
            template: spec.template,
            placement,
            update_strategy: spec.update_strategy.unwrap_or_default().read()?,
            revision_history_limit: spec.revision_history_limit.unwrap_or(10),
            template_generation: annotations.get(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()),
            annotations,
            status: status.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &str) -> Result<DaemonSet, serde_json::Error> {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"a","annotations":{{"{TEMPLATE_GENERATION}":"7"}}}},"spec":{spec}}}"#
        ))
    }

    #[test]
    fn what_is_left_out_has_upstreams_default() {
        for spec in [r#"{"template":{}}"#, r#"{"template":{},"updateStrategy":{"rollingUpdate":null}}"#] {
            let set = read(spec).unwrap();
            let strategy = UpdateStrategy::RollingUpdate {
                max_unavailable: IntOrPercent::Int(1),
                max_surge: IntOrPercent::Int(0),
            };
            assert_eq!(set.update_strategy, strategy);
            assert_eq!((set.revision_history_limit, set.min_ready_seconds), (10, 0));
            assert_eq!(set.template_generation, Some(7));
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(read(r#"{"template":{},"updateStrategy":{"type":"Canary"}}"#).is_err());
        let error = read(r#"{"template":{"spec":{"tolerations":"all"}}}"#).unwrap_err();
        assert!(error.to_string().contains("spec.template.spec"), "{error}");
    }
}
