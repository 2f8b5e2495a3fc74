//! The two spellings of `spec.selector`: a label selector, or a ReplicationController's plain map.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error};
use trysail_core::{Labels, Selector, Symbol, selector::Expression};

/// One member of either spelling. The value tells them apart, because a label may be called `matchLabels`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Member {
    Label(Symbol),
    Labels(Labels),
    Expressions(Vec<Expression>),
}

/// Reads either spelling; absent and null are the empty selector.
pub(super) fn either<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Selector, D::Error> {
    let members: BTreeMap<Symbol, Member> = Option::deserialize(deserializer)?.unwrap_or_default();
    let mut selector = Selector::default();
    for (key, member) in members {
        match member {
            Member::Label(value) => selector.match_labels = selector.match_labels.with(&key, &value),
            Member::Labels(labels) if key == "matchLabels" => selector.match_labels = labels,
            Member::Expressions(expressions) if key == "matchExpressions" => {
                selector.match_expressions = expressions;
            }
            // Null, which reads as no labels, is no requirement.
            Member::Labels(labels) if labels.is_empty() => {}
            Member::Labels(_) | Member::Expressions(_) => {
                return Err(D::Error::custom(format!("unknown selector field {key}")));
            }
        }
    }
    Ok(selector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<String, serde_json::Error> {
        either(&mut serde_json::Deserializer::from_str(json)).map(|selector| selector.to_string())
    }

    #[test]
    fn both_spellings_are_read() {
        for (json, text) in [
            (r#"{"app":"web"}"#, "app=web"),
            (r#"{"matchLabels":"odd"}"#, "matchLabels=odd"),
            (
                r#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"k","operator":"Exists"}]}"#,
                "app=web,k",
            ),
            (r#"{"matchLabels":{"app":"web"},"matchExpressions":null}"#, "app=web"),
            (r#"{"matchLabels":null,"matchExpressions":[]}"#, ""),
            ("null", ""),
        ] {
            assert_eq!(read(json).unwrap(), text, "{json}");
        }
    }

    /// Judging by half of a selector would adopt strangers.
    #[test]
    fn what_is_not_understood_is_an_error() {
        for json in [
            r#"{"matchFields":[{"key":"k","operator":"Exists"}]}"#,
            r#"{"matchExpressions":[{"key":"k","operator":"Like"}]}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
