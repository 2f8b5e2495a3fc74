//! `DaemonSet`: fields, defaults and validation.
//!
//! One default differs from upstream on purpose: a `rollingUpdate` that is absent next to an explicit `type` stays
//! absent and means one pod unavailable and no surge. It would be filled in for `OnDelete` as well, where it says
//! nothing.

use k8s_openapi::{
    api::apps::v1::{DaemonSetSpec as UpstreamSpec, DaemonSetUpdateStrategy},
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

/// What the user wants of a DaemonSet: upstream's `apps/v1` fields.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "apps.trysail.dev",
    version = "v1",
    kind = "DaemonSet",
    plural = "daemonsets",
    singular = "daemonset",
    shortname = "tds",
    category = "trysail",
    namespaced,
    schema = "disabled",
    status = "DaemonSetStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A DaemonSet of `apps.trysail.dev/v1`. Its complete CRD comes from [`crd`], not from the derived trait.",
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredNumberScheduled"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.currentNumberScheduled"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.numberReady"),
    printcolumn(name = "Up-to-date", type_ = "integer", json_path = ".status.updatedNumberScheduled"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.numberAvailable"),
    printcolumn(name = "Node Selector", type_ = "string", json_path = ".status.nodeSelector"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Containers", type_ = "string", json_path = ".status.containers", priority = 1),
    printcolumn(name = "Images", type_ = "string", json_path = ".status.images", priority = 1),
    printcolumn(name = "Selector", type_ = "string", json_path = ".status.selector", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct DaemonSetSpec {
    /// Which pods are ours; immutable.
    pub selector: LabelSelector,
    /// What pods are made from, and which nodes get one.
    pub template: PodTemplate,
    /// How old pods are replaced; the server fills in `RollingUpdate` with one pod unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<DaemonSetUpdateStrategy>,
    /// Seconds for which a pod must have been ready to count as available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// How many old revisions are kept for rollback; the server fills in 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
}

/// What was observed of a DaemonSet: upstream's counters, the selector, and what printers show.
///
/// Counters are written when zero too: `kubectl get` prints a missing one as a blank where the native printer says 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    /// Generation of the spec that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Nodes that should run a pod.
    pub desired_number_scheduled: i32,
    /// Nodes that should run a pod and do.
    pub current_number_scheduled: i32,
    /// Nodes that run a pod and should not.
    pub number_misscheduled: i32,
    /// Nodes that run a pod of the newest template.
    pub updated_number_scheduled: i32,
    /// Nodes with a ready pod.
    pub number_ready: i32,
    /// Nodes with a pod ready for at least `minReadySeconds`.
    pub number_available: i32,
    /// Nodes that should run a pod and have none available.
    pub number_unavailable: i32,
    /// How often a revision's name was already taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    /// kstatus' conditions, and those of other writers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// `spec.selector` in its string form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The template's `nodeSelector` in its string form, `<none>` when there is none, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<String>,
    /// Names of the containers joined by commas, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<String>,
    /// Images of the containers joined by commas, for printing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<String>,
}

/// The CRD with its complete schema.
pub fn crd() -> Result<CustomResourceDefinition, CrdError> {
    const SENTENCE: &str = "Keeps one pod running on every node that its template admits.";
    with_schema(DaemonSet::crd(), SENTENCE, &spec()?, &status()?)
}

fn spec() -> Result<Value, CrdError> {
    let mut spec = schema::structural::<UpstreamSpec>()?;
    schema::pod_template(&mut spec, schema::RestartPolicies::Always)?;
    schema::label_selector(&mut spec)?;
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        schema::insert(&mut spec, field, json!({"minimum": 0}))?;
    }
    schema::insert(&mut spec, "minReadySeconds", json!({"nullable": true}))?;
    schema::set_default(&mut spec, "revisionHistoryLimit", json!(10))?;
    update_strategy(&mut spec)?;
    schema::validate(&mut spec, "", schema::selector_matches_template())?;
    schema::validate(&mut spec, "", schema::forbidden_in_template("DaemonSet"))?;
    schema::describe(
        &mut spec,
        &[
            ("selector", "Which pods belong to this DaemonSet; must match the template's labels."),
            ("template", "What pods are made from, and which nodes get one."),
            ("updateStrategy", "How old pods are replaced by new ones."),
            ("minReadySeconds", "Seconds for which a pod must have been ready to count as available."),
            ("revisionHistoryLimit", "How many old revisions are kept for rollback."),
        ],
    )?;
    Ok(spec)
}

fn update_strategy(spec: &mut Value) -> Result<(), CrdError> {
    const ROLLING: &str = "updateStrategy.rollingUpdate";
    let default = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
    schema::set_default(spec, "updateStrategy", default)?;
    let kinds = json!({"default": "RollingUpdate", "enum": ["RollingUpdate", "OnDelete"]});
    schema::insert(spec, "updateStrategy.type", kinds)?;
    schema::insert(spec, ROLLING, json!({"nullable": true}))?;
    for (field, default) in [("maxUnavailable", 1), ("maxSurge", 0)] {
        let field = format!("{ROLLING}.{field}");
        schema::set_default(spec, &field, json!(default))?;
        schema::insert(spec, &field, schema::int_or_percent_bound())?;
    }
    let (no_surge, none_unavailable) = (schema::is_zero("maxSurge"), schema::is_zero("maxUnavailable"));
    let both = schema::rule(
        "maxSurge",
        "FieldValueInvalid",
        &format!("({no_surge}) || ({none_unavailable})"),
        "may not be set when maxUnavailable is non-zero",
    );
    let neither = schema::rule(
        "maxUnavailable",
        "FieldValueRequired",
        &format!("!(({no_surge}) && ({none_unavailable}))"),
        "cannot be 0 when maxSurge is 0",
    );
    let mut rules = vec![both, neither];
    for field in ["maxUnavailable", "maxSurge"] {
        rules.extend([schema::int_or_percent(field), schema::at_most_all(field)]);
    }
    schema::validate(spec, ROLLING, rules)
}

fn status() -> Result<Value, CrdError> {
    let mut status = schema::status(
        &[
            ("desiredNumberScheduled", "Nodes that should run a pod."),
            ("currentNumberScheduled", "Nodes that should run a pod and do."),
            ("numberMisscheduled", "Nodes that run a pod and should not."),
            ("updatedNumberScheduled", "Nodes that run a pod of the newest template."),
            ("numberReady", "Nodes with a ready pod."),
            ("numberAvailable", "Nodes with a pod ready for at least minReadySeconds."),
            ("numberUnavailable", "Nodes that should run a pod and have none available."),
            ("collisionCount", "How often the name of a new revision was already taken."),
        ],
        &schema::SELECTING,
    );
    status["properties"]["nodeSelector"] =
        json!({"type": "string", "description": "The template's nodeSelector, as printed by `kubectl get`."});
    schema::validate(&mut status, "", vec![schema::never_falls("collisionCount", "cannot be decremented")])?;
    Ok(status)
}
