//! When the template of a Job may change: while the Job is suspended and has no pods, and then only what decides where
//! pods run and what they consume. Queueing controllers rely on it.

use serde_json::Value;

use crate::{crd::CrdError, schema};

/// Fields of a pod's spec that may change. `affinity` is compared by its parts, the containers by their fields;
/// `overhead` cannot be compared, because no rule can read quantities.
const MUTABLE_OR_APART: [&str; 7] = [
    "affinity",
    "containers",
    "initContainers",
    "nodeSelector",
    "overhead",
    "schedulingGates",
    "tolerations",
];

/// Why a rule here is violated.
const IMMUTABLE: &str = "field is immutable unless the Job is suspended and has no pods";
const LIMITED: &str = "field is immutable; while a Job is suspended and has no pods, only nodeSelector, node affinity, \
                       tolerations, schedulingGates, resources of containers, labels and annotations can change";

/// An expression: the Job was suspended, and its pods are gone or never were.
const MUTABLE: &str = "(oldSelf.spec.suspend && (!has(oldSelf.status) \
                       || ((!has(oldSelf.status.active) || oldSelf.status.active == 0) \
                       && (!has(oldSelf.status.startTime) || (has(oldSelf.status.conditions) \
                       && oldSelf.status.conditions.exists(c, c.type == 'Suspended' && c.status == 'True'))))))";

/// Rules of a whole Job, whose spec has the schema `spec`: the fields are those of the schema, so that one that is new
/// upstream is immutable.
pub(super) fn mutable_while_suspended(spec: &Value) -> Result<Vec<Value>, CrdError> {
    const POD: &str = "template.spec";
    let mut spec = spec.clone();
    let pod = schema::at(&mut spec, POD)?;
    let fields = names(pod, &MUTABLE_OR_APART);
    let mut rules = vec![
        rule("", &format!("{MUTABLE} || self.spec.template == oldSelf.spec.template"), IMMUTABLE),
        unless_mutable(".spec", |object| lined_up(&format!("[{object}.spec.{POD}]"), &fields)),
        unless_mutable(".spec.affinity", |object| {
            let parts = ["podAffinity".into(), "podAntiAffinity".into()];
            given(object, "affinity", |affinity| lined_up(&format!("[{affinity}]"), &parts), "[[[], []]]")
        }),
    ];
    for list in ["containers", "initContainers"] {
        let fields = names(&pod["properties"][list]["items"], &["resources"]);
        rules.push(unless_mutable(&format!(".spec.{list}"), |object| {
            given(object, list, |containers| lined_up(containers, &fields), "[]")
        }));
    }
    Ok(rules)
}

fn rule(field: &str, text: &str, message: &str) -> Value {
    schema::rule(&format!("spec.template{field}"), "FieldValueInvalid", text, message)
}

/// The rule that while the template is mutable, what `part` takes from a Job is as it was.
fn unless_mutable(field: &str, part: impl Fn(&str) -> String) -> Value {
    rule(field, &format!("!{MUTABLE} || {} == {}", part("self"), part("oldSelf")), LIMITED)
}

/// The names of the fields of `schema`, but for some.
fn names(schema: &Value, without: &[&str]) -> Vec<String> {
    let fields = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name);
    fields.filter(|name| !without.contains(&name.as_str())).cloned().collect()
}

/// An expression: `list` of the field `name` of the pod's spec, or `absent` when the field is not there.
fn given(object: &str, name: &str, list: impl Fn(&str) -> String, absent: &str) -> String {
    let pod = format!("{object}.spec.template.spec");
    format!("({} ? {} : {absent})", schema::given(&pod, name), list(&format!("{pod}.{name}")))
}

/// An expression: the fields `names` of every object in `list`. Two of these are compared as a whole, because looking
/// up every container among the old ones would exceed the budget.
fn lined_up(list: &str, names: &[String]) -> String {
    let values: Vec<String> =
        names.iter().map(|name| format!("has(v.{name}) ? [dyn(v.{name})] : []")).collect();
    format!("{list}.map(v, [{}])", values.join(", "))
}
