//! Puts a schema into the CRD that the derive macro describes, and writes CRDs as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation, JSONSchemaProps,
};
use serde_json::{Value, json};

/// Why a CRD could not be built or written. Every variant is a mistake in this crate, found by its tests.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// k8s-openapi's schema refers to a type that it did not define.
    #[error("the schema refers to {name}, which k8s-openapi did not define")]
    UnknownReference {
        /// Name of the missing definition.
        name: String,
    },
    /// A rule or default names a field that the schema does not have.
    #[error("the schema has no field at {path}; upstream's type has changed")]
    MissingField {
        /// JSON pointer into the schema.
        path: String,
    },
    /// The assembled schema is not a `JSONSchemaProps`.
    #[error("the schema of {kind} is not valid: {source}")]
    Schema {
        /// Kind whose schema was built.
        kind: String,
        /// What did not decode.
        source: serde_json::Error,
    },
    /// A CRD did not serialise.
    #[error("failed to write the CRD as YAML: {0}")]
    Yaml(#[source] serde_saphyr::ser::Error),
}

/// Completes `crd`, which comes without a schema, with the schemas of spec and status.
///
/// An object that nobody has looked at yet reads as generation 0 observed. Without a status kstatus would call it
/// current, and `helm install --wait` that is quicker than the controller would not wait at all.
pub(crate) fn with_schema(
    crd: CustomResourceDefinition,
    description: &str,
    spec: &Value,
    status: &Value,
) -> Result<CustomResourceDefinition, CrdError> {
    with_rules(crd, description, spec, status, &Whole::default())
}

/// What is said of an object as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whole {
    /// Keywords of the object's name; none when any name will do.
    pub(crate) name: Option<Value>,
    /// Rules that read more than the spec or more than the status.
    pub(crate) rules: Vec<Value>,
}

/// As [`with_schema`], with what is said of the object as a whole.
pub(crate) fn with_rules(
    mut crd: CustomResourceDefinition,
    description: &str,
    spec: &Value,
    status: &Value,
    whole: &Whole,
) -> Result<CustomResourceDefinition, CrdError> {
    let mut status = status.clone();
    status["default"] = json!({"observedGeneration": 0});
    let mut root = json!({
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    });
    if let Some(name) = &whole.name {
        root["properties"]["metadata"]["properties"]["name"] = name.clone();
    }
    if !whole.rules.is_empty() {
        root["x-kubernetes-validations"] = json!(whole.rules);
    }
    let props: JSONSchemaProps = serde_json::from_value(root)
        .map_err(|source| CrdError::Schema { kind: crd.spec.names.kind.clone(), source })?;
    for version in &mut crd.spec.versions {
        version.schema = Some(CustomResourceValidation { open_api_v3_schema: Some(props.clone()) });
    }
    Ok(crd)
}

/// The CRD as the YAML document that is committed in `crds/generated`: same input, same bytes.
///
/// One space per level: a pod template nests so deeply that indentation would be half of the file.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, CrdError> {
    let options = serde_saphyr::ser_options! { indent_step: 1 };
    serde_saphyr::to_string_with_options(crd, options).map_err(CrdError::Yaml)
}
