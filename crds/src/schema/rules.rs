//! Small tools with which a kind's file completes its schema: find a field, describe it, give it a default or a rule.

use serde_json::{Value, json};

use crate::crd::CrdError;

/// The schema at `path`, a dotted list of fields below an object's schema; `""` is the object itself.
pub(crate) fn at<'a>(schema: &'a mut Value, path: &str) -> Result<&'a mut Value, CrdError> {
    let names = path.split('.').filter(|name| !name.is_empty());
    let pointer = names.fold(String::new(), |pointer, name| pointer + "/properties/" + name);
    schema.pointer_mut(&pointer).ok_or(CrdError::MissingField { path: path.to_owned() })
}

/// Sets keywords on the field at `path`.
pub(crate) fn insert(schema: &mut Value, path: &str, keywords: Value) -> Result<(), CrdError> {
    let field = at(schema, path)?;
    if let Value::Object(keywords) = keywords {
        for (key, value) in keywords {
            field[key] = value;
        }
    }
    Ok(())
}

/// Puts one sentence on each field.
pub(crate) fn describe(schema: &mut Value, sentences: &[(&str, &str)]) -> Result<(), CrdError> {
    for (path, sentence) in sentences {
        at(schema, path)?["description"] = json!(sentence);
    }
    Ok(())
}

/// Sets the default of the field at `path`.
pub(crate) fn set_default(schema: &mut Value, path: &str, value: Value) -> Result<(), CrdError> {
    at(schema, path)?["default"] = value;
    Ok(())
}

/// A CEL rule. `field` is the path, below the object that carries the rule, to which a violation is attributed (`""`
/// for the object itself); `reason` is one of the API server's four field error reasons.
pub(crate) fn rule(field: &str, reason: &str, rule: &str, message: &str) -> Value {
    let mut out = json!({"rule": rule, "message": message, "reason": reason});
    if !field.is_empty() {
        out["fieldPath"] = json!(format!(".{field}"));
    }
    out
}

/// Adds CEL rules to the field at `path`.
pub(crate) fn validate(schema: &mut Value, path: &str, rules: Vec<Value>) -> Result<(), CrdError> {
    let field = at(schema, path)?;
    let mut all =
        field.get("x-kubernetes-validations").and_then(Value::as_array).cloned().unwrap_or_default();
    all.extend(rules);
    field["x-kubernetes-validations"] = Value::Array(all);
    Ok(())
}

/// An expression: `field` of `object` is there and not null. For fields that may be null, which CEL takes for a value.
pub(crate) fn given(object: &str, field: &str) -> String {
    format!("(has({object}.{field}) && dyn({object}.{field}) != null)")
}

/// An expression: `field` of `self` is as it was in `oldSelf`, where null and absent are the same.
fn same(field: &str) -> String {
    let (new, old) = (given("self", field), given("oldSelf", field));
    format!("{new} == {old} && (!{new} || self.{field} == oldSelf.{field})")
}

/// The rule of a spec that `field` cannot be added, removed or changed.
pub(crate) fn unchanged(field: &str) -> Value {
    rule(field, "FieldValueInvalid", &same(field), "field is immutable")
}

/// The rule of a status that the counter `field`, where absent is 0, does not fall.
pub(crate) fn never_falls(field: &str, message: &str) -> Value {
    let text = format!("!has(oldSelf.{field}) || (has(self.{field}) ? self.{field} : 0) >= oldSelf.{field}");
    rule(field, "FieldValueInvalid", &text, message)
}
