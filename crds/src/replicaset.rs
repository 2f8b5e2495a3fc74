//! `ReplicaSet`: fields, defaults and validation.

use k8s_openapi::{
    api::apps::v1::ReplicaSetSpec as UpstreamSpec,
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

/// What the user wants of a ReplicaSet: upstream's `apps/v1` fields.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "apps.trysail.dev",
    version = "v1",
    kind = "ReplicaSet",
    plural = "replicasets",
    singular = "replicaset",
    shortname = "trs",
    category = "trysail",
    namespaced,
    schema = "disabled",
    status = "ReplicaSetStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A ReplicaSet of `apps.trysail.dev/v1`. Its complete CRD comes from [`crd`], not from the derived trait.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Containers", type_ = "string", json_path = ".status.containers", priority = 1),
    printcolumn(name = "Images", type_ = "string", json_path = ".status.images", priority = 1),
    printcolumn(name = "Selector", type_ = "string", json_path = ".status.selector", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSetSpec {
    /// Desired number of pods; the server fills in 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Seconds for which a pod must have been ready to count as available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// Which pods are ours; immutable.
    pub selector: LabelSelector,
    /// What pods are made from.
    pub template: PodTemplate,
}

/// What was observed of a ReplicaSet. Counters are written when zero too, so that printers show them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetStatus {
    /// Generation of the spec that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that are neither finished nor terminating.
    pub replicas: i32,
    /// Those among them that carry every label of the template.
    pub fully_labeled_replicas: i32,
    /// Ready pods.
    pub ready_replicas: i32,
    /// Pods ready for at least `minReadySeconds`.
    pub available_replicas: i32,
    /// Pods that are terminating.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i32>,
    /// Upstream's conditions, kstatus' conditions, and those of other writers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The selector in its string form, for `/scale`.
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
    const SENTENCE: &str = "Keeps a number of identical pods running; usually made by a Deployment.";
    with_schema(ReplicaSet::crd(), SENTENCE, &spec()?, &status())
}

fn spec() -> Result<Value, CrdError> {
    let mut spec = schema::structural::<UpstreamSpec>()?;
    // Optional in upstream's type, yet its validation demands containers, hence a template.
    schema::insert(&mut spec, "", json!({"required": ["selector", "template"]}))?;
    schema::pod_template(&mut spec, schema::RestartPolicies::Always)?;
    schema::label_selector(&mut spec)?;
    for field in ["replicas", "minReadySeconds"] {
        schema::insert(&mut spec, field, json!({"minimum": 0}))?;
    }
    schema::insert(&mut spec, "minReadySeconds", json!({"nullable": true}))?;
    schema::set_default(&mut spec, "replicas", json!(1))?;
    schema::validate(&mut spec, "", schema::selector_matches_template())?;
    schema::validate(&mut spec, "", schema::forbidden_in_template("ReplicaSet"))?;
    schema::describe(
        &mut spec,
        &[
            ("replicas", "Desired number of pods."),
            ("selector", "Which pods belong to this ReplicaSet; must match the template's labels."),
            ("template", "What pods are made from; a change does not touch existing pods."),
            ("minReadySeconds", "Seconds for which a pod must have been ready to count as available."),
        ],
    )?;
    Ok(spec)
}

/// Counters that ReplicaSet and ReplicationController share.
pub(crate) const COUNTERS: [(&str, &str); 5] = [
    ("replicas", "Pods that are neither finished nor terminating."),
    ("fullyLabeledReplicas", "Those among them that carry every label of the template."),
    ("readyReplicas", "Ready pods."),
    ("availableReplicas", "Pods ready for at least minReadySeconds."),
    ("terminatingReplicas", "Pods that are terminating."),
];

fn status() -> Value {
    schema::status(&COUNTERS, &schema::REPLICATED)
}
