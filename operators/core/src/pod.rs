//! The slim pod that workload controllers read, and the predicates upstream's controllers share.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer};

use crate::{Meta, Symbol, meta::MetaWith, slim_object};

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Default)]
pub enum Phase {
    /// Accepted, not all containers started.
    #[default]
    Pending,
    /// At least one container runs, starts or restarts.
    Running,
    /// Every container ended well.
    Succeeded,
    /// Every container ended, at least one badly.
    Failed,
    /// The node could not be asked, or a phase newer than this program.
    #[serde(other)]
    Unknown,
}

/// What decisions read of a pod; everything else is skipped while decoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Metadata.
    pub meta: Meta,
    /// Empty while unscheduled.
    pub node: Symbol,
    /// `status.phase`.
    pub phase: Phase,
    /// Since when the Ready condition is True.
    pub ready_since: Option<Timestamp>,
    /// `controller.kubernetes.io/pod-deletion-cost`; 0 when absent or malformed.
    pub deletion_cost: i32,
    /// Largest restart count of any ordinary container.
    pub restarts: i32,
    /// Largest restart count of any restartable init container ("sidecar").
    pub sidecar_restarts: i32,
}

slim_object!(Pod);

impl Pod {
    /// Neither finished nor being deleted: the pods that count as replicas.
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.meta.is_terminating()
    }

    /// Finished, well or badly.
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Being deleted and not finished yet: it still holds its resources.
    pub fn is_terminating(&self) -> bool {
        self.meta.is_terminating() && !self.is_terminal()
    }

    /// The Ready condition is True.
    pub fn is_ready(&self) -> bool {
        self.ready_since.is_some()
    }

    /// Ready for at least `min_ready_seconds`.
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.available_at(min_ready_seconds).is_some_and(|at| at <= now)
    }

    /// When the pod becomes available if it stays ready; `None` while it is not ready.
    pub fn available_at(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        let since = self.ready_since?;
        if min_ready_seconds <= 0 {
            // With no waiting time a ready pod is available even if its node's clock runs ahead of ours.
            return Some(Timestamp::MIN);
        }
        since.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: MetaWith<AnnotationsWire>,
    #[serde(default)]
    spec: SpecWire,
    #[serde(default)]
    status: StatusWire,
}

#[derive(Deserialize, Default)]
struct AnnotationsWire {
    #[serde(rename = "controller.kubernetes.io/pod-deletion-cost", default)]
    deletion_cost: Option<Symbol>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct SpecWire {
    #[serde(default)]
    node_name: Symbol,
    #[serde(default)]
    init_containers: Option<Vec<InitContainerWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitContainerWire {
    name: Symbol,
    #[serde(default)]
    restart_policy: Option<Symbol>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct StatusWire {
    #[serde(default)]
    phase: Phase,
    #[serde(default)]
    conditions: Option<Vec<ConditionWire>>,
    #[serde(default)]
    container_statuses: Option<Vec<ContainerWire>>,
    #[serde(default)]
    init_container_statuses: Option<Vec<ContainerWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConditionWire {
    #[serde(rename = "type")]
    kind: Symbol,
    status: Symbol,
    #[serde(default)]
    last_transition_time: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerWire {
    name: Symbol,
    #[serde(default)]
    restart_count: i32,
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let sidecars: Vec<&Symbol> = wire
            .spec
            .init_containers
            .iter()
            .flatten()
            .filter(|container| container.restart_policy.as_deref() == Some("Always"))
            .map(|container| &container.name)
            .collect();
        let status = wire.status;
        let restarts = status.container_statuses.iter().flatten().map(|c| c.restart_count).max().unwrap_or(0);
        let sidecar_restarts = status
            .init_container_statuses
            .iter()
            .flatten()
            .filter(|container| sidecars.contains(&&container.name))
            .map(|container| container.restart_count)
            .max()
            .unwrap_or(0);
        let ready_since = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.kind == "Ready" && condition.status == "True")
            .map(|condition| condition.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH));
        let deletion_cost = wire.metadata.annotations.deletion_cost;
        Ok(Self {
            meta: wire.metadata.meta,
            node: wire.spec.node_name,
            phase: status.phase,
            ready_since,
            deletion_cost: deletion_cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
            restarts,
            sidecar_restarts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: &str) -> Pod {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_pod_is_read_with_everything_else_skipped() {
        let pod = pod(r#"{"apiVersion":"v1","kind":"Pod",
            "metadata":{"name":"p","namespace":"n","uid":"u","resourceVersion":"7",
              "annotations":{"controller.kubernetes.io/pod-deletion-cost":"-5","big":"x"}},
            "spec":{"nodeName":"w1","initContainers":[{"name":"i"},{"name":"s","restartPolicy":"Always"}],
              "containers":[{"name":"c","image":"nginx"}]},
            "status":{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}],
              "containerStatuses":[{"name":"c","restartCount":2}],
              "initContainerStatuses":[{"name":"i","restartCount":9},{"name":"s","restartCount":1}]}}"#);
        assert_eq!((pod.deletion_cost, pod.restarts, pod.sidecar_restarts), (-5, 2, 1));
        assert_eq!((pod.node.as_str(), pod.phase), ("w1", Phase::Running));
        let ready = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        assert_eq!(pod.ready_since, Some(ready));
        assert!(!pod.is_available(10, ready + SignedDuration::from_secs(9)));
        assert!(pod.is_available(10, ready + SignedDuration::from_secs(10)));
    }

    /// A node's clock may run ahead of ours: with nothing to wait for, ready is available.
    #[test]
    fn without_min_ready_seconds_ready_is_available_at_once() {
        let pod = pod(r#"{"metadata":{"name":"p"},"status":{"conditions":[
            {"type":"Ready","status":"True","lastTransitionTime":"2030-01-01T00:00:00Z"}]}}"#);
        assert!(pod.is_available(0, "2026-01-01T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn a_bare_pod_and_a_phase_of_the_future_are_read() {
        assert_eq!(pod(r#"{"metadata":{"name":"p"}}"#).phase, Phase::Pending);
        assert_eq!(pod(r#"{"metadata":{"name":"p"},"status":{"phase":"Dreaming"}}"#).phase, Phase::Unknown);
        let malformed =
            r#"{"metadata":{"name":"p","annotations":{"controller.kubernetes.io/pod-deletion-cost":"1e9"}}}"#;
        assert_eq!(pod(malformed).deletion_cost, 0);
    }
}
