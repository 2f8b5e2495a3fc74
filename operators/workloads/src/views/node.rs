//! Nodes, as far as placing pods on them goes.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use trysail_core::{Meta, Symbol, intern::fnv64, slim_object};

/// What decisions read of a Node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Metadata.
    pub meta: Meta,
    /// `spec.taints`. Cordoning shows here too, as a taint.
    pub taints: Vec<Taint>,
    /// Since when the node is not Ready; `None` while it is.
    pub not_ready_since: Option<Timestamp>,
    /// A digest of all that the placement of pods depends on: name, labels and taints. A heartbeat leaves it as it
    /// was.
    pub facts: u64,
}

slim_object!(Node);

/// One of `spec.taints`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Taint {
    /// Its key.
    pub key: Symbol,
    /// Its value.
    #[serde(default)]
    pub value: Symbol,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: Symbol,
}

impl Node {
    /// The Ready condition is True.
    pub fn is_ready(&self) -> bool {
        self.not_ready_since.is_none()
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default)]
    spec: Option<SpecWire>,
    #[serde(default)]
    status: Option<StatusWire>,
}

#[derive(Deserialize, Default)]
struct SpecWire {
    #[serde(default)]
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize, Default)]
struct StatusWire {
    #[serde(default)]
    conditions: Option<Vec<ConditionWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConditionWire {
    #[serde(rename = "type")]
    kind: Symbol,
    status: Symbol,
    #[serde(default)]
    last_transition_time: Option<Timestamp>,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata: meta, spec, status } = Wire::deserialize(deserializer)?;
        let taints = spec.unwrap_or_default().taints.unwrap_or_default();
        let conditions = status.unwrap_or_default().conditions.unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.kind == "Ready");
        let not_ready_since = match ready {
            Some(condition) if condition.status == "True" => None,
            Some(condition) => Some(condition.last_transition_time.unwrap_or(meta.created)),
            None => Some(meta.created),
        };
        let facts = facts(&meta, &taints);
        Ok(Self { meta, taints, not_ready_since, facts })
    }
}

fn facts(meta: &Meta, taints: &[Taint]) -> u64 {
    let mut parts: Vec<&[u8]> = vec![meta.key.name.as_bytes()];
    for (key, value) in meta.labels.iter() {
        parts.extend([key.as_bytes(), value.as_bytes()]);
    }
    // Labels and taints are lists of different arity: what stands between them cannot be a label's key.
    parts.push(b"/");
    for Taint { key, value, effect } in taints {
        parts.extend([key.as_bytes(), value.as_bytes(), effect.as_bytes()]);
    }
    fnv64(&parts)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(value: Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn facts_change_with_what_placement_depends_on_and_with_nothing_else() {
        let base = json!({"metadata": {"name": "a", "resourceVersion": "1", "labels": {"os": "linux"}},
            "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        let facts = |pointer: &str, new: Value| {
            let mut value = base.clone();
            *value.pointer_mut(pointer).unwrap() = new;
            node(value).facts
        };
        let before = node(base.clone()).facts;
        assert_eq!(facts("/metadata/resourceVersion", json!("2")), before);
        assert_ne!(facts("/metadata/name", json!("b")), before);
        assert_ne!(facts("/metadata/labels", json!({"os": "plan9"})), before);
        assert_ne!(facts("/spec/taints/0/effect", json!("NoExecute")), before);
        assert_ne!(facts("/spec/taints", Value::Null), before);
    }

    #[test]
    fn a_node_is_ready_when_it_says_so() {
        let with = |conditions: Value| {
            node(json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"conditions": conditions}}))
        };
        assert!(with(json!([{"type": "Ready", "status": "True"}])).is_ready());
        let since = "2026-01-01T00:00:09Z";
        let lost = with(json!([{"type": "Ready", "status": "Unknown", "lastTransitionTime": since}]));
        assert_eq!(lost.not_ready_since, Some(since.parse().unwrap()));
        assert_eq!(with(Value::Null).not_ready_since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
    }
}
