//! `spec.template.spec.topologySpreadConstraints` that nobody wrote.
//!
//! Upstream's scheduler spreads pods by itself when their template does not say how, but only pods whose controller is
//! of a kind that it knows (`helper.DefaultSelector`: a native ReplicaSet, StatefulSet or ReplicationController). On
//! pods of our own kinds the same constraints (`systemDefaultConstraints` of its PodTopologySpread) are written out,
//! with the selector that it would have used. They are set on pods alone: templates, their hashes and their revisions
//! stay as the user wrote them.
//!
//! Written out, the constraint on zones has an effect that the default one has not: a node without a zone is the last
//! choice, for then every key is required (`requireAllTopologies`). So it is set where every node says its zone.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};
use trysail_core::{Json, Selector, Template, View};

use crate::views::Node;

/// The field of a pod spec.
const FIELD: &str = "topologySpreadConstraints";
/// Upstream's `v1.LabelHostname` with its default skew.
const HOSTNAME: (&str, i32) = ("kubernetes.io/hostname", 3);
/// Upstream's `v1.LabelTopologyZone` with its default skew.
const ZONE: (&str, i32) = ("topology.kubernetes.io/zone", 5);

/// How pods are spread that come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopologySpread {
    has_zones: bool,
}

impl TopologySpread {
    /// Over these nodes.
    pub fn over<N: View<Node> + ?Sized>(nodes: &N) -> Self {
        let nodes = nodes.in_namespace("");
        let has_zones = !nodes.is_empty() && nodes.iter().all(|node| node.meta.labels.contains_key(ZONE.0));
        Self { has_zones }
    }

    /// Sets the constraints where the spec has none.
    pub(crate) fn set(self, spec: &mut Map<String, Value>, selector: &Selector) {
        let is_said = spec.get(FIELD).and_then(Value::as_array).is_some_and(|said| !said.is_empty());
        if is_said || selector.is_empty() {
            return;
        }
        let constraints = [Some(HOSTNAME), self.has_zones.then_some(ZONE)].into_iter().flatten();
        let constraints = constraints.map(|(key, skew)| {
            json!({"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector})
        });
        spec.insert(FIELD.to_owned(), constraints.collect());
    }

    /// The spec of the template's pods, to be shared by them; `None` when it is the template's own.
    pub(crate) fn spec(self, template: &Template, selector: &Selector) -> Option<Json> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Said {
            #[serde(default)]
            topology_spread_constraints: Option<Vec<IgnoredAny>>,
        }
        let said: Said = serde_json::from_str(template.spec_json()).ok()?;
        if said.topology_spread_constraints.is_some_and(|said| !said.is_empty()) {
            return None;
        }
        let Value::Object(mut spec) = template.spec().to_value() else { return None };
        self.set(&mut spec, selector);
        Json::verbatim(Value::Object(spec).to_string())
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use trysail_core::Labels;

    use super::*;
    use crate::fixture::List;

    fn spread(zones: &[Option<&str>]) -> TopologySpread {
        let nodes = zones.iter().enumerate().map(|(at, zone)| {
            let labels = zone.map(|zone| json!({ZONE.0: zone}));
            json!({"metadata": {"name": format!("node-{at}"), "labels": labels}})
        });
        TopologySpread::over(&List::<Node>::of(&nodes.collect::<Vec<_>>()))
    }

    fn selector() -> Selector {
        Selector::from_labels(Labels::default().with("app", "web"))
    }

    fn spec(spread: TopologySpread, spec: &str) -> Option<Value> {
        let template: Template = serde_json::from_str(&format!(r#"{{"spec":{spec}}}"#)).unwrap();
        let before = template.hash(0);
        let spec = spread.spec(&template, &selector());
        assert_eq!(template.hash(0), before, "the template stays as it is");
        Some(spec?.to_value())
    }

    #[test]
    fn upstreams_defaults_are_written_out_with_the_owners_selector() {
        let zoned = spread(&[Some("a"), Some("b")]);
        assert_snapshot!(spec(zoned, r#"{"hostNetwork":true}"#).unwrap()[FIELD], @r#"[{"labelSelector":{"matchLabels":{"app":"web"}},"maxSkew":3,"topologyKey":"kubernetes.io/hostname","whenUnsatisfiable":"ScheduleAnyway"},{"labelSelector":{"matchLabels":{"app":"web"}},"maxSkew":5,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"ScheduleAnyway"}]"#);
    }

    /// Else the nodes without a zone would never be chosen, or, where no node has one, spreading would end.
    #[test]
    fn zones_count_where_every_node_says_its_own() {
        for zones in [[].as_slice(), &[None, None], &[Some("a"), None]] {
            let constraints = spec(spread(zones), "{}").unwrap()[FIELD].clone();
            assert_eq!(constraints.as_array().map(Vec::len), Some(1), "{zones:?}: {constraints}");
            assert_eq!(constraints[0]["topologyKey"], HOSTNAME.0);
        }
    }

    /// Every other field survives, those that are newer than this program too.
    #[test]
    fn what_the_template_says_holds() {
        let said = r#"{"topologySpreadConstraints":[{"topologyKey":"rack"}]}"#;
        assert_eq!(spec(spread(&[None]), said), None);
        for none in ["null", "[]"] {
            let text = format!(r#"{{"topologySpreadConstraints":{none},"fromTheFuture":{{"a":[1.50]}}}}"#);
            let spec = spec(spread(&[None]), &text).unwrap();
            assert_eq!(spec[FIELD].as_array().map(Vec::len), Some(1));
            assert_eq!(spec["fromTheFuture"], json!({"a": [1.5]}));
        }
    }
}
