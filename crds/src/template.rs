//! A pod template kept as the server sent it.
//!
//! The API server decodes a native template into Go types and so canonicalises it (`cpu: 1` becomes `"1"`). Nobody does
//! that inside a custom resource: quantities stay numbers, and revision hashes are taken from the bytes as they are.
//! Hence the template is a JSON value, and [`PodTemplate::typed`] is the only place where it is read as upstream's type.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A pod template, verbatim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub Value);

/// A template that cannot be read as, or written from, upstream's `PodTemplateSpec`.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The stored template does not decode.
    #[error("spec.template is not a pod template: {0}")]
    Decode(#[source] serde_json::Error),
    /// The stored claim template does not decode.
    #[error("spec.volumeClaimTemplates holds no claim: {0}")]
    DecodeClaim(#[source] serde_json::Error),
    /// The typed template does not encode.
    #[error("failed to encode the pod template: {0}")]
    Encode(#[source] serde_json::Error),
}

impl PodTemplate {
    /// The labels that pods made from this template carry; non-string values are left out, as the schema refuses them.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let Some(labels) = self.0.pointer("/metadata/labels").and_then(Value::as_object) else {
            return BTreeMap::new();
        };
        labels.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }

    /// The containers as JSON objects, in the order of the manifest.
    pub fn containers(&self) -> &[Value] {
        self.0.pointer("/spec/containers").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Reads the template as upstream's type. Quantities written as numbers become strings first, because
    /// k8s-openapi's `Quantity` only reads strings.
    pub fn typed(&self) -> Result<PodTemplateSpec, TemplateError> {
        let mut value = self.0.clone();
        quantities_to_strings(&mut value);
        serde_json::from_value(value).map_err(TemplateError::Decode)
    }
}

impl TryFrom<&PodTemplateSpec> for PodTemplate {
    type Error = TemplateError;

    fn try_from(template: &PodTemplateSpec) -> Result<Self, TemplateError> {
        serde_json::to_value(template).map(Self).map_err(TemplateError::Encode)
    }
}

/// Names of the fields that hold a map of quantities, wherever in a template they stand.
const QUANTITY_MAPS: [&str; 3] = ["limits", "requests", "overhead"];

/// Names of the fields that hold one quantity.
const QUANTITIES: [&str; 2] = ["sizeLimit", "divisor"];

/// Turns the numbers in quantity fields into strings. Going by field name is safe: in a pod template those names mean
/// nothing else, and free-form maps (labels, annotations, `volumeAttributes`) hold strings only, which are left alone.
pub(crate) fn quantities_to_strings(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if QUANTITIES.contains(&name.as_str()) {
                    number_to_string(field);
                } else if QUANTITY_MAPS.contains(&name.as_str())
                    && let Some(map) = field.as_object_mut()
                {
                    map.values_mut().for_each(number_to_string);
                } else {
                    quantities_to_strings(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities_to_strings),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn number_to_string(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `cpu: 0.5` is common in manifests and reaches us as a number, because no Go type canonicalised it.
    #[test]
    fn numeric_quantities_are_read() {
        let template = PodTemplate(json!({
            "metadata": {"labels": {"limits": "x"}},
            "spec": {
                "overhead": {"cpu": 1},
                "containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1Gi"}}}],
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": 1024}}],
            },
        }));
        let typed = template.typed().unwrap().spec.unwrap();
        let limits = typed.containers[0].resources.as_ref().unwrap().limits.as_ref().unwrap();
        assert_eq!(limits["cpu"].0, "0.5");
        assert_eq!(limits["memory"].0, "1Gi");
        assert_eq!(typed.overhead.unwrap()["cpu"].0, "1");
        let size = typed.volumes.unwrap()[0].empty_dir.as_ref().unwrap().size_limit.clone();
        assert_eq!(size.unwrap().0, "1024");
        assert_eq!(template.labels(), BTreeMap::from([("limits".to_owned(), "x".to_owned())]));
    }

    #[test]
    fn a_template_that_is_none_names_the_field() {
        let error = PodTemplate(json!({"spec": {"containers": 3}})).typed().unwrap_err();
        assert!(error.to_string().starts_with("spec.template is not a pod template"), "{error}");
    }
}
