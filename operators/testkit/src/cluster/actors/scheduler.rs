//! Which node a pod goes to: the first of those it fits on with the fewest pods.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use trysail_core::resource::{NODES, PERSISTENT_VOLUME_CLAIMS, PODS};

use super::super::Cluster;

impl Cluster {
    /// `None` while there is no place, or a claim is missing.
    pub(super) fn schedule(&self, pod: &Value) -> Option<String> {
        let claims = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let mut claims = claims.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str());
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        if claims.any(|name| !self.is_usable(namespace, name)) {
            return None;
        }
        if !self.has_nodes() {
            return Some(format!("node-{}", self.revision() as usize % self.kubelet.nodes.max(1)));
        }
        let mut loads: BTreeMap<String, Vec<Arc<Value>>> = BTreeMap::new();
        for other in self.list(PODS) {
            if let Some(node) = other["spec"]["nodeName"].as_str() {
                loads.entry(node.to_owned()).or_default().push(other);
            }
        }
        let nodes = self.list(NODES);
        let load = |node: &Value| loads.get(name_of(node)).map(Vec::as_slice).unwrap_or_default();
        let fitting = nodes.iter().filter(|node| fits(pod, node) && ports_are_free(pod, load(node)));
        let best = fitting.min_by_key(|node| (load(node).len(), name_of(node).to_owned()));
        best.map(|node| name_of(node).to_owned())
    }

    fn is_usable(&self, namespace: &str, claim: &str) -> bool {
        let key = trysail_core::Key::new(namespace, claim);
        let claim = self.get(PERSISTENT_VOLUME_CLAIMS, &key);
        claim.is_some_and(|claim| claim["metadata"]["deletionTimestamp"].is_null())
    }

    /// There is, or was, a Node object: until then nodes are just names.
    pub(super) fn has_nodes(&self) -> bool {
        !self.events(NODES).is_empty()
    }

    /// Claims are bound, and those nobody uses may go.
    pub(super) fn claims_step(&mut self) {
        for claim in self.list(PERSISTENT_VOLUME_CLAIMS) {
            let is_used = || {
                self.list(PODS).iter().any(|pod| {
                    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
                    let mut names = volumes.map(|volume| &volume["persistentVolumeClaim"]["claimName"]);
                    // As the protection controller sees it: a pod that is not on a node yet keeps no claim, one that
                    // has finished does.
                    pod["spec"]["nodeName"].is_string()
                        && pod["metadata"]["namespace"] == claim["metadata"]["namespace"]
                        && names.any(|name| *name == claim["metadata"]["name"])
                })
            };
            let mut next = (*claim).clone();
            if claim["metadata"]["deletionTimestamp"].is_string() {
                if !is_used() {
                    super::collector::remove_finalizer(&mut next, super::PVC_PROTECTION);
                }
            } else {
                next["status"]["phase"] = "Bound".into();
            }
            if next != *claim {
                self.overwrite(PERSISTENT_VOLUME_CLAIMS, next);
            }
        }
    }
}

fn name_of(node: &Value) -> &str {
    node["metadata"]["name"].as_str().unwrap_or_default()
}

fn fits(pod: &Value, node: &Value) -> bool {
    let taints = taints(node);
    let is_kept_out = |taint: &Value| taint["effect"] != "PreferNoSchedule" && !tolerates(pod, taint);
    let wanted = pod["spec"]["nodeSelector"].as_object().into_iter().flatten();
    let mut wanted = wanted.map(|(key, value)| node["metadata"]["labels"][key] == *value);
    !taints.iter().any(is_kept_out) && wanted.all(|holds| holds) && matches_affinity(pod, node)
}

/// The taints of a node, with the one that a cordon means.
pub(super) fn taints(node: &Value) -> Vec<Value> {
    let mut taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    if node["spec"]["unschedulable"] == true {
        taints.push(serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}));
    }
    taints
}

/// A toleration of the pod that matches, whatever its seconds.
pub(super) fn tolerates(pod: &Value, taint: &Value) -> bool {
    let tolerations = pod["spec"]["tolerations"].as_array().into_iter().flatten();
    tolerations.into_iter().any(|toleration| {
        let text = |name: &str| toleration[name].as_str().unwrap_or_default();
        let value = taint["value"].as_str().unwrap_or_default();
        let is_effect = text("effect").is_empty() || toleration["effect"] == taint["effect"];
        let is_key = match text("operator") {
            "Exists" => text("key").is_empty() || toleration["key"] == taint["key"],
            _ => toleration["key"] == taint["key"] && text("value") == value,
        };
        is_effect && is_key
    })
}

fn matches_affinity(pod: &Value, node: &Value) -> bool {
    let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let Some(terms) = required["nodeSelectorTerms"].as_array() else { return true };
    terms.iter().any(|term| {
        let expressions = term["matchExpressions"].as_array().into_iter().flatten();
        let fields = term["matchFields"].as_array().into_iter().flatten();
        let label = |key: &str| node["metadata"]["labels"][key].as_str();
        let by_label =
            expressions.map(|wanted| matches(wanted, label(wanted["key"].as_str().unwrap_or_default())));
        let by_field = fields.map(|wanted| matches(wanted, Some(name_of(node))));
        let mut all = by_label.chain(by_field).peekable();
        // A term that asks for nothing matches nothing.
        all.peek().is_some() && all.all(|holds| holds)
    })
}

fn matches(wanted: &Value, value: Option<&str>) -> bool {
    let mut values = wanted["values"].as_array().into_iter().flatten();
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<i64>().ok());
    match wanted["operator"].as_str() {
        Some("In") => value.is_some_and(|value| values.any(|listed| *listed == value)),
        Some("NotIn") => !value.is_some_and(|value| values.any(|listed| *listed == value)),
        Some("Exists") => value.is_some(),
        Some("DoesNotExist") => value.is_none(),
        Some(operator @ ("Gt" | "Lt")) => {
            let pair = value.and_then(|value| value.parse::<i64>().ok()).zip(values.next().and_then(number));
            pair.is_some_and(|(held, bound)| if operator == "Gt" { held > bound } else { held < bound })
        }
        _ => false,
    }
}

fn ports_are_free(pod: &Value, others: &[Arc<Value>]) -> bool {
    let wanted = host_ports(pod);
    let is_finished = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    wanted.is_empty()
        || !others
            .iter()
            .filter(|other| !is_finished(other))
            .any(|other| host_ports(other).iter().any(|port| wanted.contains(port)))
}

fn host_ports(pod: &Value) -> Vec<i64> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports.filter_map(|port| port["hostPort"].as_i64()).collect()
}
