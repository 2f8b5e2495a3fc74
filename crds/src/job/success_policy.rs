//! `successPolicy`: what it may say.
//!
//! That the indexes of a rule are in range and in order is not said here: taking their list apart is beyond the API
//! server's budget for rules. The controller says so in a condition.

use serde_json::{Value, json};

use super::completions::indexed;
use crate::{crd::CrdError, schema};

const MAX_RULES: u32 = 20;

/// Longest list of indexes.
const MAX_INDEXES: u32 = 64 * 1024;

/// Form of a list of indexes: `1,3-5,7`, or nothing.
pub(super) const INDEXES: &str = "^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$";

/// Completes the policy, and adds rules to the spec that holds it.
pub(super) fn rules(spec: &mut Value) -> Result<(), CrdError> {
    const RULES: &str = "successPolicy.rules";
    schema::insert(spec, RULES, json!({"minItems": 1, "maxItems": MAX_RULES}))?;
    let rule = &mut schema::at(spec, RULES)?["items"];
    schema::insert(rule, "succeededCount", json!({"minimum": 0}))?;
    schema::insert(rule, "succeededIndexes", json!({"maxLength": MAX_INDEXES, "pattern": INDEXES}))?;
    schema::validate(
        rule,
        "",
        vec![schema::rule(
            "succeededCount",
            "FieldValueRequired",
            "has(self.succeededCount) || has(self.succeededIndexes)",
            "at least one of succeededCount or succeededIndexes must be specified",
        )],
    )?;
    let given = |field: &str| schema::given("self", field);
    schema::validate(
        spec,
        "",
        vec![
            schema::rule(
                "successPolicy",
                "FieldValueInvalid",
                &format!("!{} || {}", given("successPolicy"), indexed("self")),
                "requires indexed completion mode",
            ),
            schema::rule(
                RULES,
                "FieldValueInvalid",
                &format!(
                    "!{} || !{} || self.successPolicy.rules.all(r, \
                     !has(r.succeededCount) || r.succeededCount <= self.completions)",
                    given("successPolicy"),
                    given("completions")
                ),
                "succeededCount must be less than or equal to the number of specified completions",
            ),
        ],
    )
}
