//! A ControllerRevision: the record of one template that a StatefulSet or DaemonSet had.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use trysail_core::{Meta, Template, slim_object};

/// What decisions read of a ControllerRevision.
#[derive(Clone, Debug, PartialEq)]
pub struct ControllerRevision {
    /// Metadata.
    pub meta: Meta,
    /// Its place in the history: the highest is the latest.
    pub revision: i64,
    /// The template it records; `None` when its data are none of a StatefulSet or DaemonSet.
    pub template: Option<Template>,
}

slim_object!(ControllerRevision);

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default)]
    revision: i64,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

/// `data`: a strategic merge patch that replaces the owner's template.
#[derive(Deserialize)]
struct Data {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    template: Box<RawValue>,
}

#[derive(Deserialize)]
struct Directive<'a> {
    #[serde(rename = "$patch", borrow)]
    patch: Cow<'a, str>,
}

impl<'de> Deserialize<'de> for ControllerRevision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, revision, data } = Wire::deserialize(deserializer)?;
        let template = data.and_then(|data| template(data.get()));
        Ok(Self { meta: metadata, revision, template })
    }
}

/// Anybody may keep anything in a ControllerRevision, so what is not understood is no error.
fn template(data: &str) -> Option<Template> {
    let Data { spec } = serde_json::from_str(data).ok()?;
    let directive: Directive<'_> = serde_json::from_str(spec.template.get()).ok()?;
    // Anything but a replacement would depend on what it is applied to.
    (directive.patch == "replace").then(|| serde_json::from_str(spec.template.get()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &str) -> ControllerRevision {
        let text = format!(r#"{{"metadata":{{"name":"web-1","uid":"u"}},"revision":3,"data":{data}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_recorded_template_is_read() {
        let template = r#"{"$patch":"replace","metadata":{"labels":{"app":"web"}},"spec":{"containers":[]}}"#;
        let revision = read(&format!(r#"{{"spec":{{"template":{template}}}}}"#));
        assert_eq!(revision.revision, 3);
        assert_eq!(revision.template.unwrap(), serde_json::from_str(template).unwrap());
    }

    #[test]
    fn foreign_data_are_no_template() {
        let merged = r#"{"spec":{"template":{"spec":{}}}}"#;
        for data in ["null", "[1]", r#"{"spec":{}}"#, r#"{"spec":{"template":7}}"#, merged] {
            assert_eq!(read(data).template, None, "{data}");
        }
    }
}
