//! `Deployment`: fields, defaults and validation.
//!
//! One default differs from upstream on purpose: an absent `strategy.rollingUpdate` stays absent and means 25 %/25 %.
//! Natively it is filled in, and a Deployment that is later switched to `Recreate` with `kubectl apply` is then refused
//! for a `rollingUpdate` that its author never wrote.

use k8s_openapi::{
    api::apps::v1::{DeploymentSpec as UpstreamSpec, DeploymentStrategy},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{CustomResource, CustomResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Condition, PodTemplate,
    crd::{CrdError, with_schema},
    schema,
};

/// What the user wants of a Deployment: upstream's `apps/v1` fields.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "apps.trysail.dev",
    version = "v1",
    kind = "Deployment",
    plural = "deployments",
    singular = "deployment",
    shortname = "tdeploy",
    category = "trysail",
    namespaced,
    schema = "disabled",
    status = "DeploymentStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A Deployment of `apps.trysail.dev/v1`. Its complete CRD comes from [`crd`], not from the derived trait.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Up-to-date", type_ = "integer", json_path = ".status.updatedReplicas"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.availableReplicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Containers", type_ = "string", json_path = ".status.containers", priority = 1),
    printcolumn(name = "Images", type_ = "string", json_path = ".status.images", priority = 1),
    printcolumn(name = "Selector", type_ = "string", json_path = ".status.selector", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// Desired number of pods; the server fills in 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Which pods are ours; immutable.
    pub selector: LabelSelector,
    /// What pods are made from.
    pub template: PodTemplate,
    /// How old pods are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<DeploymentStrategy>,
    /// Seconds for which a pod must have been ready to count as available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// How many old ReplicaSets are kept for rollback; the server fills in 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
    /// Template changes are not rolled out while true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Seconds without progress after which the rollout counts as failed; the server fills in 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline_seconds: Option<i32>,
}

/// What was observed of a Deployment: upstream's counters and conditions, the selector, and what printers show.
///
/// Counters are written when zero too: `kubectl get` prints a missing one as a blank where the native printer says 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    /// Generation of the spec that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods of all ReplicaSets that are not terminating.
    pub replicas: i32,
    /// Pods of the current template.
    pub updated_replicas: i32,
    /// Ready pods.
    pub ready_replicas: i32,
    /// Pods ready for at least `minReadySeconds`.
    pub available_replicas: i32,
    /// Pods still missing to full availability.
    pub unavailable_replicas: i32,
    /// Pods that are terminating; absent while a ReplicaSet does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i32>,
    /// How often a ReplicaSet's name was already taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    /// Upstream's conditions, kstatus' conditions, and those of other writers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// `spec.selector` in its string form, for `/scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// `readyReplicas/replicas of the spec`, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Names of the containers joined by commas, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<String>,
    /// Images of the containers joined by commas, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<String>,
}

/// The CRD with its complete schema.
pub fn crd() -> Result<CustomResourceDefinition, CrdError> {
    const SENTENCE: &str =
        "Keeps a number of identical pods running and rolls out changes of their template.";
    with_schema(Deployment::crd(), SENTENCE, &spec()?, &status())
}

fn spec() -> Result<Value, CrdError> {
    let mut spec = schema::structural::<UpstreamSpec>()?;
    schema::pod_template(&mut spec, schema::RestartPolicies::Always)?;
    schema::label_selector(&mut spec)?;
    defaults_and_bounds(&mut spec)?;
    strategy(&mut spec)?;
    schema::validate(&mut spec, "", schema::selector_matches_template())?;
    schema::validate(&mut spec, "", schema::forbidden_in_template("Deployment"))?;
    schema::validate(
        &mut spec,
        "",
        vec![schema::rule(
            "progressDeadlineSeconds",
            "FieldValueInvalid",
            "!has(self.progressDeadlineSeconds) \
             || self.progressDeadlineSeconds > \
             (has(self.minReadySeconds) && dyn(self.minReadySeconds) != null ? self.minReadySeconds : 0)",
            "must be greater than minReadySeconds",
        )],
    )?;
    schema::describe(
        &mut spec,
        &[
            ("replicas", "Desired number of pods."),
            ("selector", "Which pods belong to this Deployment; must match the template's labels."),
            ("template", "What pods are made from."),
            ("strategy", "How old pods are replaced by new ones."),
            ("minReadySeconds", "Seconds for which a pod must have been ready to count as available."),
            ("revisionHistoryLimit", "How many old ReplicaSets are kept for rollback."),
            ("paused", "While true, changes of the template are not rolled out."),
            ("progressDeadlineSeconds", "Seconds without progress after which a rollout counts as failed."),
        ],
    )?;
    Ok(spec)
}

fn defaults_and_bounds(spec: &mut Value) -> Result<(), CrdError> {
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        schema::insert(spec, field, json!({"minimum": 0}))?;
    }
    for field in ["minReadySeconds", "paused", "strategy.rollingUpdate"] {
        schema::insert(spec, field, json!({"nullable": true}))?;
    }
    schema::set_default(spec, "replicas", json!(1))?;
    schema::set_default(spec, "revisionHistoryLimit", json!(10))?;
    schema::set_default(spec, "progressDeadlineSeconds", json!(600))
}

fn strategy(spec: &mut Value) -> Result<(), CrdError> {
    const SURGE: &str = "strategy.rollingUpdate.maxSurge";
    const UNAVAILABLE: &str = "strategy.rollingUpdate.maxUnavailable";
    schema::set_default(spec, "strategy", json!({"type": "RollingUpdate"}))?;
    schema::set_default(spec, "strategy.type", json!("RollingUpdate"))?;
    schema::insert(spec, "strategy.type", json!({"enum": ["Recreate", "RollingUpdate"]}))?;
    for field in [SURGE, UNAVAILABLE] {
        schema::set_default(spec, field, json!("25%"))?;
        schema::insert(spec, field, schema::int_or_percent_bound())?;
    }
    schema::validate(
        spec,
        "strategy",
        vec![schema::rule(
            "rollingUpdate",
            "FieldValueForbidden",
            "self.type != 'Recreate' || !has(self.rollingUpdate) || dyn(self.rollingUpdate) == null",
            "may not be specified when strategy `type` is 'Recreate'",
        )],
    )?;
    let both_zero = schema::rule(
        "maxUnavailable",
        "FieldValueInvalid",
        &format!("!({} && {})", schema::is_zero("maxSurge"), schema::is_zero("maxUnavailable")),
        "may not be 0 when `maxSurge` is 0",
    );
    let rules = vec![
        schema::int_or_percent("maxSurge"),
        schema::int_or_percent("maxUnavailable"),
        schema::at_most_all("maxUnavailable"),
        both_zero,
    ];
    schema::validate(spec, "strategy.rollingUpdate", rules)
}

fn status() -> Value {
    schema::status(
        &[
            ("replicas", "Pods of all ReplicaSets that are not terminating."),
            ("updatedReplicas", "Pods of the current template."),
            ("readyReplicas", "Ready pods."),
            ("availableReplicas", "Pods ready for at least minReadySeconds."),
            ("unavailableReplicas", "Pods still missing to full availability."),
            ("terminatingReplicas", "Pods that are terminating."),
            ("collisionCount", "How often the name of a new ReplicaSet was already taken."),
        ],
        &schema::REPLICATED,
    )
}
