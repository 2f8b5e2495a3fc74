//! How an object changes: a verb gives the object as it should be, the difference is sent as a JSON merge patch.
//!
//! Decided here: the difference, and that it holds for one resourceVersion only. A pod template comes back from the
//! difference to the letter, fields newer than this program included, because nothing is decoded into types.

use serde_json::{Map, Value, json};

/// The JSON merge patch (RFC 7386) that turns `from` into `to`; `None` when they are equal.
pub(crate) fn merge_patch(from: &Value, to: &Value) -> Option<Value> {
    if from == to {
        return None;
    }
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return Some(without_nulls(to));
    };
    let mut patch = Map::new();
    for key in from.keys().filter(|key| to.get(*key).is_none_or(Value::is_null)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, to) in to.iter().filter(|(_, to)| !to.is_null()) {
        match from.get(key) {
            None => _ = patch.insert(key.clone(), without_nulls(to)),
            Some(from) => {
                if let Some(change) = merge_patch(from, to) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// In a merge patch null means "remove", so a null that stands for an absent member must not be sent as a value.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, member)| !member.is_null())
            .map(|(key, member)| (key.clone(), without_nulls(member)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Adds the precondition that the object is still the one that was read.
pub(crate) fn with_precondition(mut patch: Value, object: &Value) -> Value {
    if let Some(patch) = patch.as_object_mut() {
        let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
        for field in ["resourceVersion", "uid"] {
            metadata[field] = object["metadata"][field].clone();
        }
    }
    patch
}

/// A mutable reference to the object at `path`, made where it is absent.
pub(crate) fn at<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(value, |value, key| {
        if !value.is_object() {
            *value = json!({});
        }
        &mut value[*key]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7386, the applying side, as the API server does it.
    fn apply(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        for (key, change) in patch {
            if change.is_null() {
                target.as_object_mut().unwrap().remove(key);
            } else {
                apply(&mut target[key.as_str()], change);
            }
        }
    }

    #[test]
    fn applying_the_patch_gives_what_was_wanted() {
        let from = json!({"spec": {"template": {"metadata": {"labels": {"app": "web", "old": "1"}},
            "spec": {"containers": [{"name": "c", "image": "a"}], "hostNetwork": true}}}, "kept": 1});
        for to in [
            json!({"spec": {"template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "b", "args": [null]}]}}}, "kept": 1}),
            json!({"kept": 2, "spec": {}}),
            json!({"kept": {"now": {"an": "object"}}, "spec": 5}),
        ] {
            let mut patched = from.clone();
            apply(&mut patched, &merge_patch(&from, &to).unwrap());
            assert_eq!(patched, to);
        }
    }

    #[test]
    fn an_equal_object_needs_no_patch_and_nulls_are_absent_members() {
        let object = json!({"a": {"b": [1, 2]}});
        assert_eq!(merge_patch(&object, &object.clone()), None);
        assert_eq!(merge_patch(&object, &json!({"a": {"b": [1, 2], "c": null}})), None);
        assert_eq!(merge_patch(&json!({}), &json!({"m": {"t": null, "x": 1}})), Some(json!({"m": {"x": 1}})));
    }

    #[test]
    fn a_patch_holds_for_what_was_read() {
        let object = json!({"metadata": {"resourceVersion": "7", "uid": "u"}});
        let patch = with_precondition(json!({"spec": {"paused": true}}), &object);
        assert_eq!(
            patch,
            json!({"spec": {"paused": true}, "metadata": {"resourceVersion": "7", "uid": "u"}})
        );
    }

    #[test]
    fn a_path_is_made_where_it_is_absent() {
        let mut object = json!({"spec": {"template": {"metadata": null}}});
        *at(&mut object, &["spec", "template", "metadata", "annotations", "k"]) = "v".into();
        assert_eq!(object["spec"]["template"]["metadata"]["annotations"], json!({"k": "v"}));
    }
}
