//! `StatefulSet`: fields, defaults and validation.
//!
//! Differences from upstream on purpose:
//! - A `rollingUpdate` that says nothing (partition 0 and no `maxUnavailable`) may stay when the type becomes
//!   `OnDelete`. The server itself fills it in, and natively a StatefulSet that is later switched with `kubectl apply`
//!   is refused for a field that its author never wrote.
//! - Two claim templates of one name, an ordinal beyond int32, a negative history limit and a `maxUnavailable` of 0 are
//!   refused. Natively they are stored, and the controller can do nothing right with them.

use k8s_openapi::{
    api::apps::v1::{
        StatefulSetOrdinals, StatefulSetPersistentVolumeClaimRetentionPolicy,
        StatefulSetSpec as UpstreamSpec, StatefulSetUpdateStrategy,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{CustomResource, CustomResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    ClaimTemplate, Condition, PodTemplate,
    crd::{CrdError, Whole, with_rules},
    schema,
};

/// Bound on the claim templates, over which rules iterate. Far above what a node can attach.
const MAX_CLAIM_TEMPLATES: u32 = 64;

/// Syntax of a label of the domain name system, or nothing: natively an empty name is as good as an absent one.
const SERVICE_NAME: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$";

/// What the user wants of a StatefulSet: upstream's `apps/v1` fields.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "apps.trysail.dev",
    version = "v1",
    kind = "StatefulSet",
    plural = "statefulsets",
    singular = "statefulset",
    shortname = "tsts",
    category = "trysail",
    namespaced,
    schema = "disabled",
    status = "StatefulSetStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A StatefulSet of `apps.trysail.dev/v1`. Its complete CRD comes from [`crd`], not from the derived trait.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Containers", type_ = "string", json_path = ".status.containers", priority = 1),
    printcolumn(name = "Images", type_ = "string", json_path = ".status.images", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSetSpec {
    /// Desired number of pods; the server fills in 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Which pods are ours; immutable.
    pub selector: LabelSelector,
    /// What pods are made from.
    pub template: PodTemplate,
    /// Claims that every pod gets for itself; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim_templates: Option<Vec<ClaimTemplate>>,
    /// The headless Service that names the pods; immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// `OrderedReady` or `Parallel`; immutable; the server fills in `OrderedReady`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_management_policy: Option<String>,
    /// How old pods are replaced; the server fills in `RollingUpdate` with partition 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<StatefulSetUpdateStrategy>,
    /// How many old revisions are kept for rollback; the server fills in 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
    /// Seconds for which a pod must have been ready to count as available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// What happens to claims when the set is deleted or shrinks; the server fills in `Retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_retention_policy: Option<StatefulSetPersistentVolumeClaimRetentionPolicy>,
    /// Where the pods' numbers start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinals: Option<StatefulSetOrdinals>,
}

/// What was observed of a StatefulSet: upstream's counters and revisions, the selector, and what printers show.
///
/// Counters are written when zero too: `kubectl get` prints a missing one as a blank where the native printer says 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStatus {
    /// Generation of the spec that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that were created.
    pub replicas: i32,
    /// Ready pods.
    pub ready_replicas: i32,
    /// Pods ready for at least `minReadySeconds`.
    pub available_replicas: i32,
    /// Pods of the current revision.
    pub current_replicas: i32,
    /// Pods of the update revision.
    pub updated_replicas: i32,
    /// Name of the revision that pods are of which were not yet updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// Name of the revision that pods become.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_revision: Option<String>,
    /// How often a revision's name was already taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    /// kstatus' conditions, and those of other writers.
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
    const SENTENCE: &str = "Keeps numbered pods running, each with a name and storage of its own.";
    // The name becomes a part of the pods' host names.
    let name = json!({"type": "string", "maxLength": 63, "pattern": schema::DNS_LABEL});
    let whole = Whole { name: Some(name), rules: Vec::new() };
    with_rules(StatefulSet::crd(), SENTENCE, &spec()?, &status()?, &whole)
}

fn spec() -> Result<Value, CrdError> {
    let mut spec = schema::structural::<UpstreamSpec>()?;
    schema::pod_template(&mut spec, schema::RestartPolicies::Always)?;
    schema::label_selector(&mut spec)?;
    defaults_and_bounds(&mut spec)?;
    update_strategy(&mut spec)?;
    claim_templates(&mut spec)?;
    schema::validate(&mut spec, "", schema::selector_matches_template())?;
    schema::validate(&mut spec, "", schema::forbidden_in_template("StatefulSet"))?;
    schema::validate(&mut spec, "", immutable())?;
    schema::validate(
        &mut spec,
        "",
        vec![schema::rule(
            "ordinals.start",
            "FieldValueInvalid",
            &format!(
                "!{} || !has(self.ordinals.start) || self.ordinals.start + self.replicas <= 2147483647",
                schema::given("self", "ordinals")
            ),
            "the last pod's number, this plus `replicas`, must not exceed 2147483647",
        )],
    )?;
    describe(&mut spec)?;
    Ok(spec)
}

fn defaults_and_bounds(spec: &mut Value) -> Result<(), CrdError> {
    const RETENTION: &str = "persistentVolumeClaimRetentionPolicy";
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "ordinals.start"] {
        schema::insert(spec, field, json!({"minimum": 0}))?;
    }
    for field in ["minReadySeconds", "ordinals", "serviceName", "volumeClaimTemplates"] {
        schema::insert(spec, field, json!({"nullable": true}))?;
    }
    schema::set_default(spec, "replicas", json!(1))?;
    schema::set_default(spec, "revisionHistoryLimit", json!(10))?;
    schema::insert(
        spec,
        "podManagementPolicy",
        json!({"default": "OrderedReady", "enum": ["OrderedReady", "Parallel"]}),
    )?;
    schema::insert(spec, "serviceName", json!({"maxLength": 63, "pattern": SERVICE_NAME}))?;
    schema::set_default(spec, RETENTION, json!({"whenDeleted": "Retain", "whenScaled": "Retain"}))?;
    for field in ["whenDeleted", "whenScaled"] {
        let field = format!("{RETENTION}.{field}");
        schema::insert(spec, &field, json!({"default": "Retain", "enum": ["Retain", "Delete"]}))?;
    }
    Ok(())
}

fn update_strategy(spec: &mut Value) -> Result<(), CrdError> {
    const ROLLING: &str = "updateStrategy.rollingUpdate";
    let default = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
    schema::set_default(spec, "updateStrategy", default)?;
    let kinds = json!({"default": "RollingUpdate", "enum": ["RollingUpdate", "OnDelete"]});
    schema::insert(spec, "updateStrategy.type", kinds)?;
    schema::insert(spec, ROLLING, json!({"nullable": true}))?;
    schema::insert(spec, &format!("{ROLLING}.partition"), json!({"minimum": 0, "default": 0}))?;
    schema::insert(spec, &format!("{ROLLING}.maxUnavailable"), schema::int_or_percent_bound())?;
    schema::validate(
        spec,
        "updateStrategy",
        vec![schema::rule(
            "rollingUpdate",
            "FieldValueInvalid",
            &format!(
                "self.type != 'OnDelete' || !{} \
                 || (self.rollingUpdate.partition == 0 && !has(self.rollingUpdate.maxUnavailable))",
                schema::given("self", "rollingUpdate")
            ),
            "only allowed for updateStrategy 'RollingUpdate'",
        )],
    )?;
    let zero = schema::rule(
        "maxUnavailable",
        "FieldValueInvalid",
        &format!("!({})", schema::is_zero("maxUnavailable")),
        "cannot be 0",
    );
    let rules = vec![schema::int_or_percent("maxUnavailable"), schema::at_most_all("maxUnavailable"), zero];
    schema::validate(spec, ROLLING, rules)
}

/// Claims have a name, because a volume is called by it, and what every claim must say. The rest is checked when a
/// claim is created.
fn claim_templates(spec: &mut Value) -> Result<(), CrdError> {
    const CLAIMS: &str = "volumeClaimTemplates";
    let claims = schema::at(spec, CLAIMS)?;
    claims["maxItems"] = json!(MAX_CLAIM_TEMPLATES);
    let claim = &mut claims["items"];
    for (field, required) in [
        ("", json!(["metadata", "spec"])),
        ("metadata", json!(["name"])),
        ("spec", json!(["accessModes", "resources"])),
        ("spec.resources", json!(["requests"])),
        ("spec.resources.requests", json!(["storage"])),
    ] {
        schema::insert(claim, field, json!({"required": required}))?;
    }
    schema::allow_null(claim, CLAIMS);
    schema::insert(claim, "metadata.name", json!({"pattern": schema::DNS_LABEL, "maxLength": 63}))?;
    schema::insert(claim, "spec.volumeMode", json!({"enum": ["Block", "Filesystem"]}))?;
    schema::insert(claim, "spec.accessModes", json!({"minItems": 1, "maxItems": 8}))?;
    schema::at(claim, "spec.accessModes")?["items"]["enum"] =
        json!(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]);
    // Of no meaning in a template, so its schema would be dead weight.
    claim["properties"]["status"] =
        json!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true});
    schema::validate(
        claim,
        "spec",
        vec![schema::rule(
            "accessModes",
            "FieldValueForbidden",
            "!('ReadWriteOncePod' in self.accessModes) || size(self.accessModes) == 1",
            "may not use ReadWriteOncePod with other access modes",
        )],
    )?;
    schema::validate(
        spec,
        CLAIMS,
        vec![schema::rule(
            "",
            "FieldValueInvalid",
            "self.all(c, self.exists_one(other, other.metadata.name == c.metadata.name))",
            "two claim templates have the same name",
        )],
    )
}

/// What cannot change, and, in upstream's words, what can.
fn immutable() -> Vec<Value> {
    const MESSAGE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                           'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                           'minReadySeconds' are forbidden";
    let claims = |object: &str| {
        let given = schema::given(object, "volumeClaimTemplates");
        format!("({given} ? {object}.volumeClaimTemplates : [])")
    };
    let service =
        |object: &str| format!("({} ? {object}.serviceName : '')", schema::given(object, "serviceName"));
    let rule = |field: &str, text: &str| schema::rule(field, "FieldValueForbidden", text, MESSAGE);
    vec![
        rule("volumeClaimTemplates", &format!("{} == {}", claims("self"), claims("oldSelf"))),
        rule("serviceName", &format!("{} == {}", service("self"), service("oldSelf"))),
        rule("podManagementPolicy", "self.podManagementPolicy == oldSelf.podManagementPolicy"),
    ]
}

fn describe(spec: &mut Value) -> Result<(), CrdError> {
    schema::describe(
        spec,
        &[
            ("replicas", "Desired number of pods."),
            ("selector", "Which pods belong to this StatefulSet; must match the template's labels."),
            ("template", "What pods are made from."),
            ("volumeClaimTemplates", "Claims that every pod gets for itself."),
            ("serviceName", "The headless Service that gives the pods their DNS names."),
            ("podManagementPolicy", "Whether pods start and stop one after the other."),
            ("updateStrategy", "How old pods are replaced by new ones."),
            ("updateStrategy.rollingUpdate.partition", "Pods with a lower number stay as they are."),
            ("revisionHistoryLimit", "How many old revisions are kept for rollback."),
            ("minReadySeconds", "Seconds for which a pod must have been ready to count as available."),
            ("persistentVolumeClaimRetentionPolicy", "When claims are deleted."),
            ("ordinals", "How pods are numbered."),
        ],
    )
}

fn status() -> Result<Value, CrdError> {
    let mut status = schema::status(
        &[
            ("replicas", "Pods that were created."),
            ("readyReplicas", "Ready pods."),
            ("availableReplicas", "Pods ready for at least minReadySeconds."),
            ("currentReplicas", "Pods of currentRevision."),
            ("updatedReplicas", "Pods of updateRevision."),
            ("collisionCount", "How often the name of a new revision was already taken."),
        ],
        &schema::REPLICATED,
    );
    for (name, sentence) in [
        ("currentRevision", "The revision of pods that were not yet updated."),
        ("updateRevision", "The revision that pods become."),
    ] {
        status["properties"][name] = json!({"type": "string", "description": sentence});
    }
    let at_most = |field: &str, bound: &str| {
        schema::rule(
            field,
            "FieldValueInvalid",
            &format!("(has(self.{field}) ? self.{field} : 0) <= (has(self.{bound}) ? self.{bound} : 0)"),
            &format!("cannot be greater than status.{bound}"),
        )
    };
    schema::validate(
        &mut status,
        "",
        vec![
            at_most("readyReplicas", "replicas"),
            at_most("currentReplicas", "replicas"),
            at_most("updatedReplicas", "replicas"),
            at_most("availableReplicas", "readyReplicas"),
            schema::never_falls("collisionCount", "cannot be decremented"),
        ],
    )?;
    Ok(status)
}
