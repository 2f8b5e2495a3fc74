//! What a record holds: a strategic merge patch that replaces the owner's template by the recorded one.

use serde_json::{Value, json};
use trysail_core::{Json, Template};

use super::{
    Dialect,
    go_json::{self, Numbers},
};

/// `data`, in the bytes that kube-controller-manager would write for a template that the server sent like this.
pub(super) fn of(dialect: Dialect, template: &Template) -> String {
    let mut template = template.to_value();
    template["$patch"] = "replace".into();
    let numbers = match dialect {
        Dialect::StatefulSet => Numbers::Floats,
        Dialect::DaemonSet => Numbers::Integers,
    };
    go_json::encode(&json!({"spec": {"template": template}}), numbers)
}

/// The same as a body to send, byte for byte.
pub(super) fn body(data: String) -> Json {
    // What was encoded is JSON.
    Json::verbatim(data).unwrap_or(Json::Value(Value::Null))
}
