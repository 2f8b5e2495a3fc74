//! `podFailurePolicy`: what it may say, and what it demands of its neighbours.

use serde_json::{Value, json};

use crate::{crd::CrdError, schema};

const MAX_RULES: u32 = 20;
const MAX_EXIT_CODES: u32 = 255;
const MAX_PATTERNS: u32 = 20;

/// Syntax of a condition's type: an optional domain, and a name.
const CONDITION_TYPE: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$";

/// Completes the policy, and adds rules to the spec that holds it.
pub(super) fn rules(spec: &mut Value) -> Result<(), CrdError> {
    schema::insert(spec, "podFailurePolicy.rules", json!({"maxItems": MAX_RULES}))?;
    let rule = &mut schema::at(spec, "podFailurePolicy.rules")?["items"];
    one_rule(rule)?;
    schema::validate(spec, "", neighbours())
}

fn one_rule(rule: &mut Value) -> Result<(), CrdError> {
    const CODES: &str = "has(self.onExitCodes)";
    const CONDITIONS: &str = "(has(self.onPodConditions) && size(self.onPodConditions) > 0)";
    schema::insert(rule, "action", json!({"enum": ["FailJob", "FailIndex", "Ignore", "Count"]}))?;
    exit_codes(rule)?;
    schema::insert(rule, "onPodConditions", json!({"maxItems": MAX_PATTERNS}))?;
    let pattern = &mut schema::at(rule, "onPodConditions")?["items"];
    schema::insert(pattern, "type", json!({"maxLength": 317, "pattern": CONDITION_TYPE}))?;
    let statuses = json!({"default": "True", "enum": ["True", "False", "Unknown"]});
    schema::insert(pattern, "status", statuses)?;
    schema::validate(
        rule,
        "",
        vec![
            schema::rule(
                "onExitCodes",
                "FieldValueInvalid",
                &format!("!({CODES} && {CONDITIONS})"),
                "specifying both OnExitCodes and OnPodConditions is not supported",
            ),
            schema::rule(
                "onExitCodes",
                "FieldValueInvalid",
                &format!("{CODES} || {CONDITIONS}"),
                "specifying one of OnExitCodes and OnPodConditions is required",
            ),
        ],
    )
}

fn exit_codes(rule: &mut Value) -> Result<(), CrdError> {
    schema::insert(rule, "onExitCodes.operator", json!({"enum": ["In", "NotIn"]}))?;
    schema::insert(rule, "onExitCodes.values", json!({"minItems": 1, "maxItems": MAX_EXIT_CODES}))?;
    schema::insert(rule, "onExitCodes.containerName", json!({"maxLength": 63}))?;
    schema::validate(
        rule,
        "onExitCodes",
        vec![
            schema::rule(
                "values",
                "FieldValueInvalid",
                "self.operator != 'In' || !(0 in self.values)",
                "must not be 0 for the In operator",
            ),
            schema::rule("values", "FieldValueInvalid", "self.values.isSorted()", "must be ordered"),
        ],
    )
}

fn neighbours() -> Vec<Value> {
    let none = format!("!{}", schema::given("self", "podFailurePolicy"));
    let no_rules = format!("{none} || !has(self.podFailurePolicy.rules)");
    let named = |list: &str| {
        format!(
            "{} && self.template.spec.{list}.exists(c, c.name == r.onExitCodes.containerName)",
            schema::given("self.template.spec", list)
        )
    };
    vec![
        schema::rule(
            "template.spec.restartPolicy",
            "FieldValueInvalid",
            &format!("{none} || self.template.spec.restartPolicy == 'Never'"),
            "only \"Never\" is supported when podFailurePolicy is specified",
        ),
        schema::rule(
            "podReplacementPolicy",
            "FieldValueInvalid",
            &format!("{none} || !has(self.podReplacementPolicy) || self.podReplacementPolicy == 'Failed'"),
            "only \"Failed\" is supported when podFailurePolicy is specified",
        ),
        schema::rule(
            "podFailurePolicy.rules",
            "FieldValueInvalid",
            &format!(
                "{no_rules} || {} || self.podFailurePolicy.rules.all(r, r.action != 'FailIndex')",
                schema::given("self", "backoffLimitPerIndex")
            ),
            "action 'FailIndex' requires the backoffLimitPerIndex to be set",
        ),
        schema::rule(
            "podFailurePolicy.rules",
            "FieldValueInvalid",
            &format!(
                "{no_rules} || self.podFailurePolicy.rules.all(r, !has(r.onExitCodes) \
                 || !has(r.onExitCodes.containerName) || ({}) || ({}))",
                named("containers"),
                named("initContainers")
            ),
            "containerName must be one of the container or initContainer names in the pod template",
        ),
    ]
}
