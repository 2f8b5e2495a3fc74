//! JSON merge patches that turn one document into another, removals included.

use serde_json::{Map, Value};

/// The patch that makes `to` of `from`; `None` when they are equal. Lists are replaced whole, as RFC 7386 has it.
pub(super) fn between(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return Some(to.clone()) };
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, to) in to {
        let from = from.get(key).unwrap_or(&Value::Null);
        if let Some(change) = between(from, to) {
            patch.insert(key.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn removals_are_spelled_out() {
        let from = json!({"a": 1, "b": {"c": 2, "d": [1]}, "e": 5});
        let to = json!({"a": 1, "b": {"d": [2]}, "f": {"g": 1}});
        let patch = json!({"b": {"c": null, "d": [2]}, "e": null, "f": {"g": 1}});
        assert_eq!(between(&from, &to), Some(patch));
        assert_eq!(between(&to, &to), None);
    }
}
