//! `metav1.LabelSelector`, evaluated; and the plain map that ReplicationControllers use.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Labels, Symbol};

/// Which labels match. An empty selector matches everything; see [`Selector::is_empty`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Every pair must be present.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub match_labels: Labels,
    /// Every expression must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub match_expressions: Vec<Expression>,
}

/// One `matchExpressions` entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expression {
    /// The label's key.
    pub key: Symbol,
    /// How its value is judged.
    pub operator: Operator,
    /// For `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub values: Vec<Symbol>,
}

/// How an [`Expression`] judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// The value is one of those listed.
    In,
    /// The key is absent, or its value none of those listed.
    NotIn,
    /// The key is present.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Selector {
    /// A selector of plain pairs.
    pub fn from_labels(match_labels: Labels) -> Self {
        Self { match_labels, match_expressions: Vec::new() }
    }

    /// True when nothing is asked, so that everything matches.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// True when `labels` satisfy every part.
    pub fn matches(&self, labels: &Labels) -> bool {
        labels.includes(&self.match_labels)
            && self.match_expressions.iter().all(|expression| expression.matches(labels))
    }

    /// A copy that also asks for `key=value`.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        Self { match_labels: self.match_labels.with(key, value), ..self.clone() }
    }
}

impl Expression {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = || value.is_some_and(|value| self.values.iter().any(|listed| listed == value));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// The form that `labelSelector` query parameters and `status.selector` use.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (key, value) in self.match_labels.iter() {
            write!(f, "{separator}{key}={value}")?;
            separator = ",";
        }
        for Expression { key, operator, values } in &self.match_expressions {
            let values = values.iter().map(Symbol::as_str).collect::<Vec<_>>().join(",");
            match operator {
                Operator::In => write!(f, "{separator}{key} in ({values})")?,
                Operator::NotIn => write!(f, "{separator}{key} notin ({values})")?,
                Operator::Exists => write!(f, "{separator}{key}")?,
                Operator::DoesNotExist => write!(f, "{separator}!{key}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged() {
        let selector: Selector = serde_json::from_str(
            r#"{"matchLabels":{"app":"a"},"matchExpressions":[
            {"key":"tier","operator":"In","values":["x","y"]},{"key":"env","operator":"NotIn","values":["dev"]},
            {"key":"track","operator":"Exists"},{"key":"old","operator":"DoesNotExist"}]}"#,
        )
        .unwrap();
        let good: Labels = [("app", "a"), ("tier", "y"), ("track", "")].into_iter().collect();
        assert!(selector.matches(&good));
        for (key, value) in [("app", "b"), ("tier", "z"), ("env", "dev"), ("old", "1")] {
            assert!(!selector.matches(&good.with(key, value)), "{key}={value}");
        }
        assert!(!selector.matches(&good.without("track")));
        assert_eq!(selector.to_string(), "app=a,tier in (x,y),env notin (dev),track,!old");
    }

    #[test]
    fn nulls_are_empty() {
        let selector: Selector =
            serde_json::from_str(r#"{"matchLabels":null,"matchExpressions":null}"#).unwrap();
        assert!(selector.is_empty());
    }
}
