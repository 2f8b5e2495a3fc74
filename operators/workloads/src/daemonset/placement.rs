//! `spec.template.spec.{nodeName, nodeSelector, affinity, tolerations}`: which nodes a pod belongs on.
//!
//! The verdict on a node depends on the template and on the node's name, labels and taints alone. So it is kept
//! with a digest of those facts ([`Node::facts`]), and a look judges anew only the nodes that changed.

use trysail_core::Symbol;

use crate::views::{Node, Placement, Requirement, Taint, Term, Toleration};

/// What a template and a node come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A pod belongs here.
    Run,
    /// None is created here, but one that is here may stay: an untolerated `NoSchedule` taint.
    Keep,
    /// None belongs here.
    Leave,
}

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Upstream's: what befalls a node must neither evict its daemons nor keep them away. Key and effect; the operator
/// is `Exists`.
const AUTOMATIC: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/unschedulable", NO_SCHEDULE),
];

/// The same, for pods that use the node's own network.
const AUTOMATIC_ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", NO_SCHEDULE);

/// The tolerations that every pod of a DaemonSet gets: key and effect.
pub(super) fn automatic(host_network: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    AUTOMATIC.into_iter().chain(host_network.then_some(AUTOMATIC_ON_HOST_NETWORK))
}

/// Judges one node.
pub(super) fn judge(placement: &Placement, node: &Node) -> Verdict {
    let name = &*node.meta.key.name;
    let is_wanted = (placement.node_name.is_empty() || placement.node_name == *name)
        && node.meta.labels.includes(&placement.node_selector)
        && placement.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| holds(term, node)));
    if !is_wanted || has_untolerated(placement, &node.taints, NO_EXECUTE) {
        Verdict::Leave
    } else if has_untolerated(placement, &node.taints, NO_SCHEDULE) {
        Verdict::Keep
    } else {
        Verdict::Run
    }
}

fn has_untolerated(placement: &Placement, taints: &[Taint], effect: &str) -> bool {
    taints.iter().filter(|taint| taint.effect == *effect).any(|taint| {
        let is_automatic = |(key, effect): (&str, &str)| taint.key == *key && taint.effect == *effect;
        !automatic(placement.host_network).any(is_automatic)
            && !placement.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    })
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let Toleration { key, operator, value, effect } = toleration;
    (effect.is_empty() || *effect == taint.effect)
        && (key.is_empty() || *key == taint.key)
        && match operator.as_str() {
            "" | "Equal" => *value == taint.value,
            "Exists" => true,
            // `Lt` and `Gt` are an alpha of Kubernetes 1.36, off unless asked for.
            _ => false,
        }
}

/// A term that asks for nothing, or for something malformed, holds nowhere.
fn holds(term: &Term, node: &Node) -> bool {
    let Term { expressions, fields } = term;
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| {
            satisfies(requirement, node.meta.labels.get(&requirement.key)).unwrap_or(false)
        })
        && fields.iter().all(|requirement| field_holds(requirement, &node.meta.key.name))
}

/// `None` for a requirement that is malformed.
fn satisfies(requirement: &Requirement, value: Option<&str>) -> Option<bool> {
    let Requirement { operator, values, .. } = requirement;
    let is_listed = || value.is_some_and(|value| values.iter().any(|listed| *listed == *value));
    match operator.as_str() {
        "In" if !values.is_empty() => Some(is_listed()),
        "NotIn" if !values.is_empty() => Some(!is_listed()),
        "Exists" if values.is_empty() => Some(value.is_some()),
        "DoesNotExist" if values.is_empty() => Some(value.is_none()),
        "Gt" | "Lt" => {
            let [bound] = values.as_slice() else { return None };
            let bound: i64 = bound.parse().ok()?;
            let Some(number) = value.and_then(|value| value.parse::<i64>().ok()) else { return Some(false) };
            Some(if *operator == *"Gt" { number > bound } else { number < bound })
        }
        _ => None,
    }
}

/// Fields are compared with exactly one value.
fn field_holds(requirement: &Requirement, name: &str) -> bool {
    let [value] = requirement.values.as_slice() else { return false };
    let field = if requirement.key == *"metadata.name" { name } else { "" };
    match requirement.operator.as_str() {
        "In" => *value == *field,
        "NotIn" => *value != *field,
        _ => false,
    }
}

/// What is known of a node between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The facts that were judged.
    pub(super) facts: u64,
    /// The judgement.
    pub(super) verdict: Verdict,
    /// The attempt that the next pod's name on this node is made from; see [`super::slots`].
    pub(super) next_attempt: u32,
}

/// Nodes of DaemonSets that one change of a node concerns: those whose verdict changed, and, for a node that came
/// or went, those that a pod belongs on.
pub fn is_affected(placement: &Placement, old: Option<&Node>, new: Option<&Node>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) if old.facts == new.facts => {
            // A node that goes begins a wait of an update, and one that comes back ends it. Its pods may have nothing to
            // say about that: those that were not ready before are not touched.
            old.is_ready() != new.is_ready() && judge(placement, new) != Verdict::Leave
        }
        (Some(old), Some(new)) => judge(placement, old) != judge(placement, new),
        (None, Some(node)) | (Some(node), None) => judge(placement, node) != Verdict::Leave,
        (None, None) => false,
    }
}

/// The node that a pod is on or meant for.
pub(super) fn target(pod: &trysail_core::pod::Pod) -> Option<&Symbol> {
    if !pod.node.is_empty() {
        return Some(&pod.node);
    }
    pod.details.as_ref().map(|details| &details.target_node).filter(|node| !node.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(value: &Value) -> Node {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn verdict(spec: Value, node_value: &Value) -> Verdict {
        judge(&serde_json::from_value(spec).unwrap(), &node(node_value))
    }

    fn labelled() -> Value {
        json!({"metadata": {"name": "n1", "labels": {"os": "linux", "cpus": "8", "odd": "x8"}}})
    }

    fn with_terms(terms: &Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn node_name_and_selector() {
        for (spec, expected) in [
            (json!({}), Verdict::Run),
            (json!({"nodeName": "n1"}), Verdict::Run),
            (json!({"nodeName": "n2"}), Verdict::Leave),
            (json!({"nodeSelector": {"os": "linux"}}), Verdict::Run),
            (json!({"nodeSelector": {"os": "linux", "cpus": "9"}}), Verdict::Leave),
        ] {
            assert_eq!(verdict(spec.clone(), &labelled()), expected, "{spec}");
        }
    }

    #[test]
    fn every_operator_of_affinity() {
        let cases = [
            ("In", json!(["linux", "plan9"]), true),
            ("In", json!(["plan9"]), false),
            ("In", json!([]), false),
            ("NotIn", json!(["plan9"]), true),
            ("NotIn", json!(["linux"]), false),
            ("NotIn", json!([]), false),
            ("Exists", Value::Null, true),
            ("Exists", json!(["x"]), false),
            ("DoesNotExist", Value::Null, false),
            ("Like", json!(["linux"]), false),
        ];
        for (operator, values, expected) in cases {
            let terms =
                json!([{"matchExpressions": [{"key": "os", "operator": operator, "values": values}]}]);
            let expected = if expected { Verdict::Run } else { Verdict::Leave };
            assert_eq!(verdict(with_terms(&terms), &labelled()), expected, "{operator} {values}");
        }
        for (key, operator, values, expected) in [
            ("cpus", "Gt", json!(["7"]), true),
            ("cpus", "Gt", json!(["8"]), false),
            ("cpus", "Lt", json!(["9"]), true),
            ("cpus", "Lt", json!(["8"]), false),
            ("cpus", "Gt", json!(["7", "6"]), false),
            ("cpus", "Lt", json!(["many"]), false),
            ("odd", "Lt", json!(["9"]), false),
            ("none", "Lt", json!(["9"]), false),
        ] {
            let terms = json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
            let expected = if expected { Verdict::Run } else { Verdict::Leave };
            assert_eq!(verdict(with_terms(&terms), &labelled()), expected, "{key} {operator} {values}");
        }
    }

    /// Terms are alternatives, the requirements of one are not; an empty term and an empty list match nothing.
    #[test]
    fn terms_and_fields() {
        let named = |operator: &str, name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": operator, "values": [name]}]});
        let labelled_linux = json!({"matchExpressions": [{"key": "os", "operator": "Exists"}]});
        let both = |name: &str| {
            let mut term = labelled_linux.clone();
            term["matchFields"] = named("In", name)["matchFields"].clone();
            term
        };
        for (terms, expected) in [
            (json!([]), false),
            (json!([{}]), false),
            (json!([{}, labelled_linux]), true),
            (json!([named("In", "n1")]), true),
            (json!([named("In", "n2")]), false),
            (json!([named("NotIn", "n2")]), true),
            (json!([named("Exists", "n1")]), false),
            (json!([both("n1")]), true),
            (json!([both("n2")]), false),
            (
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1", "n2"]}]}]),
                false,
            ),
        ] {
            let expected = if expected { Verdict::Run } else { Verdict::Leave };
            assert_eq!(verdict(with_terms(&terms), &labelled()), expected, "{terms}");
        }
    }

    #[test]
    fn taints_keep_away_or_drive_out_unless_tolerated() {
        let tainted = |key: &str, effect: &str| json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": key, "value": "v", "effect": effect}]}});
        let tolerating = |toleration: Value| json!({"tolerations": [toleration]});
        for (spec, taint, expected) in [
            (json!({}), tainted("gpu", "NoSchedule"), Verdict::Keep),
            (json!({}), tainted("gpu", "NoExecute"), Verdict::Leave),
            (json!({}), tainted("gpu", "PreferNoSchedule"), Verdict::Run),
            (tolerating(json!({"operator": "Exists"})), tainted("gpu", "NoExecute"), Verdict::Run),
            (tolerating(json!({"key": "gpu", "value": "v"})), tainted("gpu", "NoExecute"), Verdict::Run),
            (tolerating(json!({"key": "gpu", "value": "w"})), tainted("gpu", "NoExecute"), Verdict::Leave),
            (
                tolerating(json!({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"})),
                tainted("gpu", "NoExecute"),
                Verdict::Leave,
            ),
            (
                tolerating(json!({"key": "gpu", "operator": "Gt", "value": "1"})),
                tainted("gpu", "NoSchedule"),
                Verdict::Keep,
            ),
            (json!({}), tainted("node.kubernetes.io/unreachable", "NoExecute"), Verdict::Run),
            (json!({}), tainted("node.kubernetes.io/not-ready", "NoSchedule"), Verdict::Keep),
            (json!({}), tainted("node.kubernetes.io/unschedulable", "NoSchedule"), Verdict::Run),
            (json!({}), tainted("node.kubernetes.io/network-unavailable", "NoSchedule"), Verdict::Keep),
            (
                json!({"hostNetwork": true}),
                tainted("node.kubernetes.io/network-unavailable", "NoSchedule"),
                Verdict::Run,
            ),
        ] {
            assert_eq!(verdict(spec.clone(), &taint), expected, "{spec} on {taint}");
        }
    }

    #[test]
    fn a_change_that_changes_no_verdict_wakes_nobody() {
        let placement: Placement = serde_json::from_value(json!({"nodeSelector": {"os": "linux"}})).unwrap();
        let of = |labels: Value| {
            node(&json!({"metadata": {"name": "n1", "labels": labels},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
        };
        let (linux, renamed) = (of(json!({"os": "linux"})), of(json!({"os": "linux", "rack": "2"})));
        let other = of(json!({"os": "plan9"}));
        let affected = |old, new| is_affected(&placement, old, new);
        let silent = |labels: Value| {
            node(&json!({"metadata": {"name": "n1", "labels": labels},
                "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}))
        };
        let (gone, other_gone) = (silent(json!({"os": "linux"})), silent(json!({"os": "plan9"})));
        assert!(affected(Some(&linux), Some(&gone)) && affected(Some(&gone), Some(&linux)));
        assert!(!affected(Some(&gone), Some(&gone)) && !affected(Some(&other), Some(&other_gone)));
        assert!(!affected(Some(&linux), Some(&renamed)));
        assert!(affected(Some(&linux), Some(&other)));
        assert!(affected(None, Some(&linux)) && affected(Some(&linux), None));
        assert!(!affected(None, Some(&other)) && !affected(Some(&other), None));
    }
}
