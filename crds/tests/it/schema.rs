//! A small copy of what the API server does with a custom resource before it looks at the rules: drop nulls, fill in
//! defaults, refuse unknown fields, validate. Messages are worded as the server words them, so that one expectation
//! serves here and against a real server.

use std::{collections::BTreeMap, fmt::Write as _};

use regex::Regex;
use serde_json::{Map, Value};

/// Removes nulls that the schema does not admit, unless a default will replace them.
pub(crate) fn drop_nulls(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, field| {
                !(field.is_null()
                    && child(schema, name).is_some_and(|inner| {
                        inner.get("nullable").is_none() && inner.get("default").is_none()
                    }))
            });
            for (name, field) in fields {
                if let Some(inner) = child(schema, name) {
                    drop_nulls(field, inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_nulls(item, &schema["items"])),
        _ => {}
    }
}

/// Fills in defaults.
pub(crate) fn set_defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = inner.get("default") {
                    let field = fields.entry(name.clone()).or_insert_with(|| default.clone());
                    if field.is_null() && inner.get("nullable").is_none() {
                        *field = default.clone();
                    }
                }
            }
            for (name, field) in fields {
                if let Some(inner) = child(schema, name) {
                    set_defaults(field, inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| set_defaults(item, &schema["items"])),
        _ => {}
    }
}

/// The schema of the field `name` of an object.
pub(crate) fn child<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema["properties"].get(name).or_else(|| schema.get("additionalProperties"))
}

/// Every violation of the structural part of the schema.
pub(crate) fn validate(value: &Value, schema: &Value, path: &str, errors: &mut Vec<String>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if let Some(wanted) = wrong_type(value, schema) {
        errors.push(format!("{path}: Invalid value: {path} in body must be of type {wanted}: {value}"));
        return;
    }
    match value {
        Value::Object(fields) => object(fields, schema, path, errors),
        Value::Array(items) => list(items, schema, path, errors),
        Value::String(text) => string(text, schema, path, errors),
        Value::Number(number) => bounds(number.as_f64().unwrap(), schema, path, errors),
        Value::Bool(_) | Value::Null => {}
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let names: Vec<String> = allowed.iter().map(Value::to_string).collect();
        errors.push(format!("{path}: Unsupported value: {value}: supported values: {}", names.join(", ")));
    }
    if schema["not"]["enum"].as_array().is_some_and(|refused| refused.contains(value)) {
        errors.push(format!("{path} must not validate the schema (not)"));
    }
}

fn wrong_type(value: &Value, schema: &Value) -> Option<String> {
    if schema["x-kubernetes-int-or-string"] == true {
        return (!value.is_i64() && !value.is_string()).then(|| "integer,string".to_owned());
    }
    let wanted = schema["type"].as_str()?;
    let right = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        other => panic!("the schema has a type {other}"),
    };
    (!right).then(|| wanted.to_owned())
}

fn object(fields: &Map<String, Value>, schema: &Value, path: &str, errors: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            errors.push(format!("{}: Required value", join(path, name)));
        }
    }
    size(fields.len(), schema, ["minProperties", "maxProperties"], path, errors);
    for (name, field) in fields {
        match child(schema, name) {
            Some(inner) => validate(field, inner, &join(path, name), errors),
            None if schema["x-kubernetes-preserve-unknown-fields"] == true || path == "metadata" => {}
            None => errors.push(format!("unknown field \"{}\"", join(path, name))),
        }
    }
}

fn list(items: &[Value], schema: &Value, path: &str, errors: &mut Vec<String>) {
    size(items.len(), schema, ["minItems", "maxItems"], path, errors);
    let keys = schema["x-kubernetes-list-map-keys"].as_array().cloned().unwrap_or_default();
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        validate(item, &schema["items"], &path, errors);
        if schema["x-kubernetes-list-type"] == "set" && items[..index].contains(item) {
            errors.push(format!("{path}: Duplicate value: {item}"));
        }
        if keys.is_empty() {
            continue;
        }
        let key: BTreeMap<&str, &Value> =
            keys.iter().filter_map(Value::as_str).map(|key| (key, &item[key])).collect();
        if seen.contains(&key) {
            errors.push(format!("{path}: Duplicate value: {}", serde_json::to_string(&key).unwrap()));
        }
        seen.push(key);
    }
}

fn string(text: &str, schema: &Value, path: &str, errors: &mut Vec<String>) {
    size(text.chars().count(), schema, ["minLength", "maxLength"], path, errors);
    if let Some(pattern) = schema["pattern"].as_str()
        && !Regex::new(pattern).unwrap().is_match(text)
    {
        errors.push(format!("{path}: Invalid value: \"{text}\": {path} in body should match '{pattern}'"));
    }
}

fn bounds(number: f64, schema: &Value, path: &str, errors: &mut Vec<String>) {
    if schema["minimum"].as_f64().is_some_and(|minimum| number < minimum) {
        let mut message = format!("{path}: Invalid value: {number}: {path} in body should be ");
        write!(message, "greater than or equal to {}", schema["minimum"].as_f64().unwrap()).unwrap();
        errors.push(message);
    }
    if schema["maximum"].as_f64().is_some_and(|maximum| number > maximum) {
        errors.push(format!(
            "{path}: Invalid value: {number}: {path} in body should be less than or equal to {}",
            schema["maximum"]
        ));
    }
    if schema["format"] == "int32" && (number > f64::from(i32::MAX) || number < f64::from(i32::MIN)) {
        errors.push(format!("Checked value must be of type integer with format int32 in {path}"));
    }
}

fn size(size: usize, schema: &Value, limits: [&str; 2], path: &str, errors: &mut Vec<String>) {
    let [least, most] = limits.map(|limit| schema[limit].as_u64());
    if least.is_some_and(|least| (size as u64) < least) || most.is_some_and(|most| size as u64 > most) {
        errors.push(format!("{path}: Invalid value: {size} is outside of {least:?}..={most:?} ({limits:?})"));
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
