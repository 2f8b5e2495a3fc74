//! A template of a PersistentVolumeClaim kept as the server sent it, for the reasons of [`crate::PodTemplate`].

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::template::{TemplateError, quantities_to_strings};

/// One of `spec.volumeClaimTemplates`, verbatim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimTemplate(pub Value);

impl ClaimTemplate {
    /// The name of the volume that the claim stands for; the schema demands one.
    pub fn name(&self) -> &str {
        self.0.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Reads the template as upstream's type.
    pub fn typed(&self) -> Result<PersistentVolumeClaim, TemplateError> {
        let mut value = self.0.clone();
        quantities_to_strings(&mut value);
        serde_json::from_value(value).map_err(TemplateError::DecodeClaim)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numeric_quantities_are_read() {
        let template = ClaimTemplate(json!({
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": 1_048_576}}},
        }));
        let typed = template.typed().unwrap().spec.unwrap();
        assert_eq!(typed.resources.unwrap().requests.unwrap()["storage"].0, "1048576");
        assert_eq!(template.name(), "data");
    }

    #[test]
    fn a_template_that_is_none_names_the_field() {
        let error = ClaimTemplate(json!({"spec": 3})).typed().unwrap_err();
        assert!(error.to_string().starts_with("spec.volumeClaimTemplates holds no claim"), "{error}");
    }
}
