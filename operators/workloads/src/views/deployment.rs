//! Deployments of both faces.

use serde::{Deserialize, Deserializer};
use trysail_core::{
    IntOrPercent, Labels, Meta, Selector, Template, condition::Conditions, meta::MetaWith, slim_object,
};

use super::{annotations::Annotations, selector};

/// What decisions read of a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Metadata.
    pub meta: Meta,
    /// Annotations; all but a few are copied to the ReplicaSets.
    pub annotations: Labels,
    /// `spec.replicas`; 1 when absent.
    pub replicas: i32,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// `spec.selector`.
    pub selector: Selector,
    /// `spec.template`.
    pub template: Template,
    /// `spec.strategy`.
    pub strategy: Strategy,
    /// `spec.paused`.
    pub paused: bool,
    /// `spec.revisionHistoryLimit`; `None` keeps everything.
    pub revision_history_limit: Option<i32>,
    /// `spec.progressDeadlineSeconds`; `None` when there is no deadline.
    pub progress_deadline_seconds: Option<i32>,
    /// `status` as it was read.
    pub status: DeploymentStatus,
}

slim_object!(Deployment);

/// `spec.strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Old pods go before new ones come.
    Recreate,
    /// Old pods are replaced gradually.
    RollingUpdate {
        /// How many pods there may be beyond `spec.replicas`.
        max_surge: IntOrPercent,
        /// How many of `spec.replicas` may be unavailable.
        max_unavailable: IntOrPercent,
    },
}

/// `status` of a [`Deployment`]. Absent counters stay absent: native servers leave out zeros, CRDs keep them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    /// Which generation of the spec the status speaks of.
    pub observed_generation: Option<i64>,
    /// Active pods of all ReplicaSets.
    pub replicas: Option<i32>,
    /// Those of the current template.
    pub updated_replicas: Option<i32>,
    /// Ready pods.
    pub ready_replicas: Option<i32>,
    /// Available pods.
    pub available_replicas: Option<i32>,
    /// Pods that are missing to full availability.
    pub unavailable_replicas: Option<i32>,
    /// Terminating pods.
    pub terminating_replicas: Option<i32>,
    /// How often a ReplicaSet's name was taken.
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

impl Deployment {
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
    status: Option<DeploymentStatus>,
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
    template: Template,
    #[serde(default)]
    strategy: Option<StrategyWire>,
    #[serde(default)]
    paused: Option<bool>,
    #[serde(default)]
    revision_history_limit: Option<i32>,
    #[serde(default)]
    progress_deadline_seconds: Option<i32>,
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
    fn read<E: serde::de::Error>(self) -> Result<Strategy, E> {
        const QUARTER: IntOrPercent = IntOrPercent::Percent(25);
        let rolling = self.rolling_update.unwrap_or_default();
        match self.kind.as_deref() {
            Some("Recreate") => Ok(Strategy::Recreate),
            None | Some("" | "RollingUpdate") => Ok(Strategy::RollingUpdate {
                max_surge: rolling.max_surge.unwrap_or(QUARTER),
                max_unavailable: rolling.max_unavailable.unwrap_or(QUARTER),
            }),
            Some(kind) => Err(E::custom(format!("unknown spec.strategy.type {kind:?}"))),
        }
    }
}

impl<'de> Deserialize<'de> for Deployment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        // The largest number means "off", absent means the default.
        let limit = |value: Option<i32>, default| Some(value.unwrap_or(default)).filter(|n| *n != i32::MAX);
        Ok(Self {
            meta: metadata.meta,
            annotations: metadata.annotations.0,
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: spec.selector,
            template: spec.template,
            strategy: spec.strategy.unwrap_or_default().read()?,
            paused: spec.paused.unwrap_or(false),
            revision_history_limit: limit(spec.revision_history_limit, 10),
            progress_deadline_seconds: limit(spec.progress_deadline_seconds, 600),
            status: status.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &str) -> Result<Deployment, serde_json::Error> {
        let spec = format!(r#"{{"metadata":{{"name":"web"}},"spec":{{"template":{{}},{spec}}}}}"#);
        serde_json::from_str(&spec)
    }

    #[test]
    fn what_is_left_out_has_upstreams_default() {
        let quarter = IntOrPercent::Percent(25);
        let rolling = Strategy::RollingUpdate { max_surge: quarter, max_unavailable: quarter };
        for spec in [
            r#""strategy":{"type":"RollingUpdate"}"#,
            r#""strategy":null,"paused":null"#,
            r#""strategy":{"rollingUpdate":null}"#,
        ] {
            let deployment = read(spec).unwrap();
            assert_eq!(deployment.strategy, rolling, "{spec}");
            assert_eq!((deployment.replicas, deployment.paused), (1, false));
            assert_eq!(deployment.revision_history_limit, Some(10));
            assert_eq!(deployment.progress_deadline_seconds, Some(600));
        }
    }

    #[test]
    fn the_largest_number_means_off() {
        let spec = r#""progressDeadlineSeconds":2147483647,"revisionHistoryLimit":2147483647"#;
        let deployment = read(spec).unwrap();
        assert_eq!((deployment.progress_deadline_seconds, deployment.revision_history_limit), (None, None));
    }

    #[test]
    fn an_unknown_strategy_is_an_error() {
        assert!(read(r#""strategy":{"type":"BlueGreen"}"#).is_err());
    }
}
