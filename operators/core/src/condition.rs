//! Status conditions. Ours are set and removed; those of others are kept as they came.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::Symbol;

/// One entry of `status.conditions`, with every field a newer server may have added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about.
    #[serde(rename = "type")]
    pub kind: Symbol,
    /// `True`, `False` or `Unknown`.
    pub status: Symbol,
    /// One CamelCase word.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Symbol,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// When the condition was last found to hold (Deployments only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Timestamp>,
    /// Anything else, kept.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Condition {
    /// A condition that holds since `now`.
    pub fn new(kind: &str, status: &str, reason: &str, message: impl Into<String>, now: Timestamp) -> Self {
        Self {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            last_transition_time: Some(whole_seconds(now)),
            last_update_time: None,
            more: Map::new(),
        }
    }
}

/// `metav1.Time` has whole seconds: what is written must equal what will be read.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The list of conditions, in the order found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Conditions(Vec<Condition>);

impl Conditions {
    /// The condition of that type.
    pub fn get(&self, kind: &str) -> Option<&Condition> {
        self.0.iter().find(|condition| condition.kind == kind)
    }

    /// True when that condition is present with status `True`.
    pub fn is_true(&self, kind: &str) -> bool {
        self.get(kind).is_some_and(|condition| condition.status == "True")
    }

    /// Sets a condition; its transition time moves only when its status changes.
    pub fn set(&mut self, mut condition: Condition) {
        match self.0.iter_mut().find(|held| held.kind == condition.kind) {
            None => self.0.push(condition),
            Some(held) => {
                if held.status == condition.status && held.last_transition_time.is_some() {
                    condition.last_transition_time = held.last_transition_time;
                }
                *held = condition;
            }
        }
    }

    /// Removes the condition of that type.
    pub fn remove(&mut self, kind: &str) {
        self.0.retain(|condition| condition.kind != kind);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Conditions(Option::deserialize(deserializer)?.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: &str =
        r#"[{"type":"StatusUpdate","status":"True","reason":"E2E","message":"m","observedGeneration":4}]"#;

    #[test]
    fn foreign_conditions_survive_to_the_letter() {
        let mut conditions: Conditions = serde_json::from_str(FOREIGN).unwrap();
        let now = "2026-01-01T00:00:00.5Z".parse().unwrap();
        conditions.set(Condition::new("Available", "True", "R", "", now));
        conditions.remove("Available");
        assert_eq!(serde_json::to_string(&conditions).unwrap(), FOREIGN);
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut conditions = Conditions::default();
        let (early, late) =
            ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:01:00Z".parse().unwrap());
        conditions.set(Condition::new("Available", "True", "A", "", early));
        conditions.set(Condition::new("Available", "True", "B", "", late));
        assert_eq!(conditions.get("Available").unwrap().last_transition_time, Some(early));
        conditions.set(Condition::new("Available", "False", "B", "", late));
        assert_eq!(conditions.get("Available").unwrap().last_transition_time, Some(late));
    }
}
