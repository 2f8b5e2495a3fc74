//! Status conditions as stored in our kinds: upstream's fields, and whatever a foreign writer added to its own.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

/// One condition of a status.
///
/// `extra` keeps the fields that other controllers put on conditions of their own (`observedGeneration` is common), so
/// that a read-modify-write by us loses nothing of theirs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about; unique in the list.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One CamelCase word: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// When the condition was last confirmed; Deployments measure progress from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// Fields that only a foreign writer knows.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Another controller's condition survives being read and written by us.
    #[test]
    fn foreign_fields_survive() {
        let foreign =
            json!({"type": "Audited", "status": "True", "observedGeneration": 3, "by": {"team": "x"}});
        let condition: Condition = serde_json::from_value(foreign.clone()).unwrap();
        assert_eq!(serde_json::to_value(condition).unwrap(), foreign);
    }
}
