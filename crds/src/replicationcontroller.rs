//! `ReplicationController`: fields, defaults and validation.
//!
//! Natively an absent selector is filled in from the template's labels when the object is created. A schema cannot copy
//! one field into another, so here an absent selector *means* the template's labels
//! ([`ReplicationControllerSpec::effective_selector`]), and while it is absent those labels cannot change: natively
//! such a change is refused as well, because the selector that was filled in no longer matches.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ReplicationControllerSpec as UpstreamSpec,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{CustomResource, CustomResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    PodTemplate,
    crd::{CrdError, with_schema},
    replicaset::COUNTERS,
    schema,
};

/// What the user wants of a ReplicationController: upstream's core `v1` fields.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "apps.trysail.dev",
    version = "v1",
    kind = "ReplicationController",
    plural = "replicationcontrollers",
    singular = "replicationcontroller",
    shortname = "trc",
    category = "trysail",
    namespaced,
    schema = "disabled",
    status = "ReplicationControllerStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A ReplicationController of `apps.trysail.dev/v1`. Its complete CRD comes from [`crd`].",
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
pub struct ReplicationControllerSpec {
    /// Desired number of pods; the server fills in 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Seconds for which a pod must have been ready to count as available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// Which pods are ours; see [`Self::effective_selector`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<BTreeMap<String, String>>,
    /// What pods are made from.
    pub template: PodTemplate,
}

impl ReplicationControllerSpec {
    /// The labels that select this controller's pods: the selector, or the template's labels when it is absent or empty.
    pub fn effective_selector(&self) -> BTreeMap<String, String> {
        match &self.selector {
            Some(selector) if !selector.is_empty() => selector.clone(),
            _ => self.template.labels(),
        }
    }
}

/// What was observed of a ReplicationController.
pub type ReplicationControllerStatus = crate::replicaset::ReplicaSetStatus;

/// The CRD with its complete schema.
pub fn crd() -> Result<CustomResourceDefinition, CrdError> {
    const SENTENCE: &str = "Keeps a number of identical pods running; the predecessor of ReplicaSet.";
    with_schema(
        ReplicationController::crd(),
        SENTENCE,
        &spec()?,
        &schema::status(&COUNTERS, &schema::REPLICATED),
    )
}

fn spec() -> Result<Value, CrdError> {
    let mut spec = schema::structural::<UpstreamSpec>()?;
    schema::insert(&mut spec, "", json!({"required": ["template"]}))?;
    schema::pod_template(&mut spec, schema::RestartPolicies::Always)?;
    for field in ["replicas", "minReadySeconds"] {
        schema::insert(&mut spec, field, json!({"minimum": 0}))?;
    }
    schema::insert(&mut spec, "minReadySeconds", json!({"nullable": true}))?;
    schema::set_default(&mut spec, "replicas", json!(1))?;
    schema::selector_map(&mut spec)?;
    schema::validate(&mut spec, "", selector_rules())?;
    schema::validate(&mut spec, "", schema::forbidden_in_template("ReplicationController"))?;
    schema::describe(
        &mut spec,
        &[
            ("replicas", "Desired number of pods."),
            ("selector", "Which pods belong to this controller; the template's labels when absent."),
            ("template", "What pods are made from; a change does not touch existing pods."),
            ("minReadySeconds", "Seconds for which a pod must have been ready to count as available."),
        ],
    )?;
    Ok(spec)
}

fn selector_rules() -> Vec<Value> {
    const HAS_SELECTOR: &str = "has(self.selector) && size(self.selector) > 0";
    const HAS_LABELS: &str = "has(self.template.metadata) && has(self.template.metadata.labels)";
    const LABELS: &str = "self.template.metadata.labels";
    vec![
        schema::rule(
            "selector",
            "FieldValueRequired",
            &format!("({HAS_SELECTOR}) || ({HAS_LABELS} && size({LABELS}) > 0)"),
            "set `selector`, or give the template the labels that shall serve as one",
        ),
        schema::rule(
            "template.metadata.labels",
            "FieldValueInvalid",
            &format!(
                "!({HAS_SELECTOR}) || ({HAS_LABELS} \
                 && self.selector.all(k, k in {LABELS} && {LABELS}[k] == self.selector[k]))"
            ),
            "`selector` does not match template `labels`",
        ),
        schema::rule(
            "template.metadata.labels",
            "FieldValueInvalid",
            &format!(
                "({HAS_SELECTOR}) || (has(oldSelf.selector) && size(oldSelf.selector) > 0) \
                 || ({HAS_LABELS} && has(oldSelf.template.metadata) && has(oldSelf.template.metadata.labels) \
                 && {LABELS} == oldSelf.template.metadata.labels)"
            ),
            "without a `selector` these labels are the selector and cannot change: set `selector` first",
        ),
    ]
}
