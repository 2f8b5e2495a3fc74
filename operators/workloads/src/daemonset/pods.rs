//! The pods to send and the pods to delete.

use serde_json::{Map, Value, json};
use trysail_core::{Action, Face, names::child_name, plan::OwnerReference};

use super::{
    DAEMON_SET_LABEL, DaemonSetPlanner,
    fleet::{Measure, TEMPLATE_GENERATION},
    history::HASH,
    per_node::Steps,
    placement::automatic,
};
use crate::{
    pod_body::PodBody,
    pod_control::{self, CREATE_POD, DELETE_POD},
    views::DaemonSet,
};

/// Creates and deletes per look, upstream's number: one DaemonSet leaves room for the others.
pub const BURST: usize = 250;

/// The reasons of the actions that create and delete a pod.
pub(super) const CREATE: &str = CREATE_POD;
pub(super) const DELETE: &str = DELETE_POD;

/// Label values are that long at most.
const MAX_LABEL: usize = 63;

/// The deletions, as many as a burst allows.
pub(super) fn deletes(steps: &Steps<'_>) -> Vec<Action> {
    let delete = |(pod, because): &(&std::sync::Arc<trysail_core::pod::Pod>, &str)| {
        pod_control::delete(pod, (*because).to_owned())
    };
    steps.delete.iter().take(BURST).map(delete).collect()
}

/// The creates, as many as a burst allows.
pub(super) fn creates(planner: DaemonSetPlanner, steps: &Steps<'_>, measure: Measure<'_>) -> Vec<Action> {
    if steps.create.is_empty() {
        return Vec::new();
    }
    let set = measure.set;
    let owner = owner(planner, set);
    let any = any_pod(planner, &owner, measure);
    let create = |(node, slot): &(&str, u32)| {
        let mut pod = any.clone();
        pod.name = child_name(&set.meta.key.name, &set.meta.uid, *slot);
        pod_control::create(&pod.edit_spec(|spec| bind(node, spec)), format!("for node {node}"))
    };
    steps.create.iter().take(BURST).map(create).collect()
}

/// The owner as its children name it.
pub(super) fn owner(planner: DaemonSetPlanner, set: &DaemonSet) -> OwnerReference {
    OwnerReference { resource: planner.resource, key: set.meta.key.clone(), uid: set.meta.uid.clone() }
}

/// What the pods of all nodes have in common.
fn any_pod<'a>(planner: DaemonSetPlanner, owner: &'a OwnerReference, measure: Measure<'_>) -> PodBody<'a> {
    let set = measure.set;
    let host_network = set.placement.host_network;
    let mut pod = PodBody::new(owner, &set.template, "")
        .label(HASH, &measure.history.update().label)
        .edit_spec(|spec| tolerate(host_network, spec));
    if let Some(generation) = set.template_generation {
        pod = pod.label(TEMPLATE_GENERATION, &generation.to_string());
    }
    match planner.face {
        Face::Native => pod,
        Face::Crd => pod.label(DAEMON_SET_LABEL, label_value(&set.meta.key.name)),
    }
}

/// As much of a name as a label may hold.
fn label_value(name: &str) -> &str {
    let cut = if name.len() > MAX_LABEL { &name[..MAX_LABEL] } else { name };
    cut.trim_end_matches(['-', '.'])
}

/// Adds the automatic tolerations. One that is there already is kept, without its time limit.
fn tolerate(host_network: bool, spec: &mut Map<String, Value>) {
    let mut tolerations = match spec.remove("tolerations") {
        Some(Value::Array(held)) => held,
        _ => Vec::new(),
    };
    for (key, effect) in automatic(host_network) {
        let automatic = json!({"key": key, "operator": "Exists", "effect": effect});
        let is_same = |held: &&mut Value| {
            let text = |name: &str| held[name].as_str().unwrap_or_default();
            text("key") == key
                && text("effect") == effect
                && text("operator") == "Exists"
                && text("value").is_empty()
        };
        match tolerations.iter_mut().find(is_same) {
            Some(held) => *held = automatic,
            None => tolerations.push(automatic),
        }
    }
    spec.insert("tolerations".to_owned(), tolerations.into());
}

/// Means the pod for one node. The scheduler binds it: it alone knows what is free there. What the template
/// requires of nodes is replaced, because this node was found to meet it.
fn bind(node: &str, spec: &mut Map<String, Value>) {
    let named = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let required = json!({"nodeSelectorTerms": [{"matchFields": [named]}]});
    within(spec, "affinity", |affinity| {
        within(affinity, "nodeAffinity", |node| {
            node.insert("requiredDuringSchedulingIgnoredDuringExecution".to_owned(), required);
        });
    });
}

/// Edits the object of that name, which is made if it is absent or null.
fn within(parent: &mut Map<String, Value>, name: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
    let mut fields = match parent.remove(name) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    edit(&mut fields);
    parent.insert(name.to_owned(), fields.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(mut spec: Value, edit: impl FnOnce(&mut Map<String, Value>)) -> Value {
        edit(spec.as_object_mut().unwrap());
        spec
    }

    #[test]
    fn automatic_tolerations_are_added_once_and_have_no_time_limit() {
        let held = json!([
            {"key": "gpu", "operator": "Exists"},
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
            {"key": "node.kubernetes.io/unreachable", "operator": "Equal", "effect": "NoExecute"},
        ]);
        let spec = edited(json!({"tolerations": held, "newer": {"field": 1}}), |spec| tolerate(false, spec));
        let list = spec["tolerations"].as_array().unwrap();
        assert_eq!(list.len(), 3 + 5);
        assert_eq!(
            list[1],
            json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"})
        );
        assert_eq!(spec["newer"], json!({"field": 1}), "what we do not know stays");
        let count = |host| {
            let spec = edited(json!({"tolerations": null}), |spec| tolerate(host, spec));
            spec["tolerations"].as_array().unwrap().len()
        };
        assert_eq!((count(false), count(true)), (6, 7));
    }

    #[test]
    fn a_pod_is_meant_for_one_node_and_keeps_its_other_wishes() {
        const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
        let bound = |affinity: Value| edited(json!({"affinity": affinity}), |spec| bind("n1", spec));
        let expected = json!({"nodeSelectorTerms":
            [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]});
        for affinity in [
            Value::Null,
            json!({"nodeAffinity": null}),
            json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{}, {}]}}}),
        ] {
            assert_eq!(bound(affinity)["affinity"]["nodeAffinity"][REQUIRED], expected);
        }
        let preferred = json!([{"weight": 1}]);
        let kept = json!({"podAntiAffinity": {"x": 1}, "nodeAffinity": {"preferred": preferred}});
        let spec = bound(kept);
        assert_eq!(spec["affinity"]["podAntiAffinity"], json!({"x": 1}));
        assert_eq!(spec["affinity"]["nodeAffinity"]["preferred"], preferred);
    }

    #[test]
    fn a_long_name_is_cut_to_a_label() {
        let name = format!("{}.{}", "a".repeat(62), "b".repeat(30));
        assert_eq!(label_value(&name), "a".repeat(62));
        assert_eq!(label_value("agent"), "agent");
    }
}
