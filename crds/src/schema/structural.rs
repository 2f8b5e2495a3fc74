//! Turns k8s-openapi's JSON schemas into structural ones: references inlined, descriptions dropped, vendor extensions
//! added from [`super::upstream`].
//!
//! Descriptions are dropped because a template described in full makes a CRD of 350 KB, more than client-side
//! `kubectl apply` can annotate; the kinds' own files put one sentence on the fields of the spec.

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{checks, upstream};
use crate::crd::CrdError;

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const REF_PREFIX: &str = "#/$defs/";

/// Keywords that are copied as they stand.
const COPIED: [&str; 4] = ["type", "format", "enum", "x-kubernetes-preserve-unknown-fields"];

/// The structural schema of `T`.
pub(crate) fn structural<T: JsonSchema>() -> Result<Value, CrdError> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let root = generator.subschema_for::<T>().to_value();
    let definitions = generator.take_definitions(true);
    Inliner { definitions: &definitions }.schema(&root)
}

struct Inliner<'a> {
    definitions: &'a Map<String, Value>,
}

impl Inliner<'_> {
    fn schema(&self, schema: &Value) -> Result<Value, CrdError> {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.named(reference.strip_prefix(REF_PREFIX).unwrap_or(reference)),
            None => self.plain("", schema),
        }
    }

    fn named(&self, name: &str) -> Result<Value, CrdError> {
        match name {
            QUANTITY => return Ok(quantity()),
            INT_OR_STRING => return Ok(int_or_string()),
            FIELDS_V1 => return Ok(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
            _ => {}
        }
        let definition =
            self.definitions.get(name).ok_or_else(|| CrdError::UnknownReference { name: name.to_owned() })?;
        let mut schema = self.plain(name, definition)?;
        if upstream::is_atomic_type(name) {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        Ok(schema)
    }

    fn plain(&self, type_name: &str, schema: &Value) -> Result<Value, CrdError> {
        let mut out: Map<String, Value> =
            COPIED.iter().filter_map(|key| Some(((*key).to_owned(), schema.get(*key)?.clone()))).collect();
        if let Some(items) = schema.get("items") {
            out.insert("items".into(), self.schema(items)?);
        }
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            out.insert("additionalProperties".into(), self.schema(values)?);
        }
        if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
            let fields: Result<BTreeMap<&String, Value>, CrdError> =
                fields.iter().map(|(name, field)| Ok((name, self.field(type_name, name, field)?))).collect();
            out.insert("properties".into(), json!(fields?));
        }
        let required = checks::required(type_name, schema.get("required"));
        if !required.is_empty() {
            out.insert("required".into(), json!(required));
        }
        Ok(Value::Object(out))
    }

    fn field(&self, type_name: &str, name: &str, schema: &Value) -> Result<Value, CrdError> {
        let mut out = self.schema(schema)?;
        for (keyword, value) in checks::keywords(type_name, name).as_object().into_iter().flatten() {
            out[keyword] = value.clone();
        }
        if let Some(keys) = upstream::list_keys(type_name, name) {
            out["x-kubernetes-list-type"] = json!("map");
            out["x-kubernetes-list-map-keys"] = json!(keys);
        }
        if upstream::is_set(type_name, name) {
            out["x-kubernetes-list-type"] = json!("set");
        }
        if upstream::is_atomic_map(type_name, name) {
            out["x-kubernetes-map-type"] = json!("atomic");
        }
        Ok(out)
    }
}

fn int_or_string() -> Value {
    json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})
}

/// A quantity is a string, an integer or a fraction (`cpu: 0.5`), as in Go. No structural type says so
/// (`x-kubernetes-int-or-string` refuses fractions), hence a schema without a type that refuses the rest: objects and
/// arrays by contradictory sizes, booleans by enumeration. The pattern binds strings only.
fn quantity() -> Value {
    json!({
        "x-kubernetes-preserve-unknown-fields": true,
        "pattern": r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$",
        "minProperties": 1,
        "maxProperties": 0,
        "minItems": 1,
        "maxItems": 0,
        "not": {"enum": [true, false]},
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        apps::v1::DeploymentSpec, batch::v1::CronJobSpec, core::v1::ReplicationControllerSpec,
    };
    use schemars::SchemaGenerator;

    use super::*;

    /// A renamed or removed field upstream must not silently turn a keyed list into an atomic one.
    #[test]
    fn every_fact_names_an_existing_field() {
        let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
        generator.subschema_for::<CronJobSpec>();
        generator.subschema_for::<DeploymentSpec>();
        generator.subschema_for::<ReplicationControllerSpec>();
        let definitions = generator.take_definitions(true);
        for (owner, field) in upstream::named_fields().chain(checks::named_fields()) {
            let known = definitions.get(owner).and_then(|schema| schema["properties"].get(field));
            assert!(known.is_some(), "{owner}.{field} is not part of upstream's types");
        }
    }

    #[test]
    fn references_and_descriptions_are_gone() {
        let text = structural::<DeploymentSpec>().unwrap().to_string();
        assert!(!text.contains("$ref"));
        assert!(!text.contains("\"description\":\""));
    }
}
