//! What a pod template asks of nodes: the part of its spec that scheduling reads.

use serde::{Deserialize, Deserializer};
use trysail_core::{Labels, Symbol};

/// Read once per DaemonSet, when it is decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// `nodeName`; empty when none is named.
    pub node_name: Symbol,
    /// `nodeSelector`.
    pub node_selector: Labels,
    /// `hostNetwork`.
    pub host_network: bool,
    /// `tolerations`.
    pub tolerations: Vec<Toleration>,
    /// `affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution`: one of these must hold.
    pub terms: Option<Vec<Term>>,
}

/// One of `tolerations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toleration {
    /// Empty for every key.
    pub key: Symbol,
    /// `Equal` when empty.
    pub operator: Symbol,
    /// For `Equal`.
    pub value: Symbol,
    /// Empty for every effect.
    pub effect: Symbol,
}

/// One of `nodeSelectorTerms`: all of its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// About labels.
    pub expressions: Vec<Requirement>,
    /// About fields, of which there is one: `metadata.name`.
    pub fields: Vec<Requirement>,
}

/// One of `matchExpressions` or `matchFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label or field.
    pub key: Symbol,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`; anything else never holds.
    pub operator: Symbol,
    /// What it is compared with.
    pub values: Vec<Symbol>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SpecWire {
    node_name: Option<Symbol>,
    node_selector: Labels,
    host_network: Option<bool>,
    tolerations: Option<Vec<TolerationWire>>,
    affinity: Option<AffinityWire>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TolerationWire {
    key: Option<Symbol>,
    operator: Option<Symbol>,
    value: Option<Symbol>,
    effect: Option<Symbol>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AffinityWire {
    node_affinity: Option<NodeAffinityWire>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinityWire {
    required_during_scheduling_ignored_during_execution: Option<NodeSelectorWire>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelectorWire {
    node_selector_terms: Option<Vec<TermWire>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TermWire {
    match_expressions: Option<Vec<RequirementWire>>,
    match_fields: Option<Vec<RequirementWire>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RequirementWire {
    key: Option<Symbol>,
    operator: Option<Symbol>,
    values: Option<Vec<Symbol>>,
}

impl<'de> Deserialize<'de> for Placement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = SpecWire::deserialize(deserializer)?;
        let affinity = wire.affinity.and_then(|affinity| affinity.node_affinity);
        let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution);
        let terms = required.map(|selector| {
            selector.node_selector_terms.into_iter().flatten().map(TermWire::read).collect::<Vec<_>>()
        });
        Ok(Self {
            node_name: wire.node_name.unwrap_or_default(),
            node_selector: wire.node_selector,
            host_network: wire.host_network.unwrap_or(false),
            tolerations: wire.tolerations.into_iter().flatten().map(TolerationWire::read).collect(),
            terms,
        })
    }
}

impl TolerationWire {
    fn read(self) -> Toleration {
        Toleration {
            key: self.key.unwrap_or_default(),
            operator: self.operator.unwrap_or_default(),
            value: self.value.unwrap_or_default(),
            effect: self.effect.unwrap_or_default(),
        }
    }
}

impl TermWire {
    fn read(self) -> Term {
        let read = |list: Option<Vec<RequirementWire>>| {
            list.into_iter().flatten().map(RequirementWire::read).collect::<Vec<_>>()
        };
        Term { expressions: read(self.match_expressions), fields: read(self.match_fields) }
    }
}

impl RequirementWire {
    fn read(self) -> Requirement {
        Requirement {
            key: self.key.unwrap_or_default(),
            operator: self.operator.unwrap_or_default(),
            values: self.values.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_absent_fields_are_one() {
        for spec in [
            "{}",
            r#"{"nodeName":null,"nodeSelector":null,"tolerations":null,"affinity":null,"hostNetwork":null}"#,
            r#"{"affinity":{"nodeAffinity":null},"containers":[{"name":"c"}]}"#,
            r#"{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":null}}}"#,
        ] {
            assert_eq!(serde_json::from_str::<Placement>(spec).unwrap(), Placement::default(), "{spec}");
        }
    }
}
