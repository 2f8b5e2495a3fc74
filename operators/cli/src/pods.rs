//! Which pod of a workload to talk to.
//!
//! Ownership decides, not labels alone: a Deployment of either face, or a stray pod, may carry the same labels.

use std::cmp::Reverse;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use trysail_core::{Selector, resource::PODS};

use crate::{cluster::Cluster, kind::Kind, rollout::history::is_controlled_by, target::Target, text::note};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Every pod of the workload, the best one to talk to first.
pub(crate) async fn of(cluster: &Cluster, target: &Target) -> Result<Vec<Value>> {
    let selector = selector(target)?.to_string();
    let pods = cluster.list(PODS, &selector);
    let mut pods = if target.kind == Kind::Deployment {
        let sets = Kind::ReplicaSet.resource(target.face);
        let (pods, sets) = futures::try_join!(pods, cluster.list(sets, &selector))?;
        let sets: Vec<Value> = sets.into_iter().filter(|set| is_controlled_by(set, &target.object)).collect();
        pods.into_iter().filter(|pod| sets.iter().any(|set| is_controlled_by(pod, set))).collect()
    } else {
        let mut pods = pods.await?;
        pods.retain(|pod| is_controlled_by(pod, &target.object));
        pods
    };
    pods.sort_by_cached_key(rank);
    if pods.is_empty() {
        bail!(
            "{} has no pods; `trysail why {} {}` tells what it waits for",
            target.printed(),
            target.kind.precise(target.face),
            target.name
        );
    }
    Ok(pods)
}

/// The selector as labels: a plain map for ReplicationControllers.
pub(crate) fn selector(target: &Target) -> Result<Selector> {
    let selector = target.object["spec"]["selector"].clone();
    let selector = match target.kind {
        Kind::ReplicationController => serde_json::from_value(selector).map(Selector::from_labels),
        _ => serde_json::from_value(selector),
    };
    selector.with_context(|| format!("the selector of {} is unreadable", target.printed()))
}

/// Smaller is better: alive, ready, running, scheduled, few restarts; then the older one, and the name for ties.
fn rank(pod: &Value) -> impl Ord + use<> {
    let slim = serde_json::from_value::<trysail_core::pod::Pod>(pod.clone()).ok();
    slim.map_or((true, None), |pod| {
        let running = pod.phase == trysail_core::pod::Phase::Running;
        let key = (
            Reverse(pod.is_ready()),
            Reverse(running),
            Reverse(!pod.node.is_empty()),
            pod.restarts,
            pod.meta.created,
            pod.meta.key.name.to_string(),
        );
        (!pod.is_active(), Some(key))
    })
}

/// The first of `pods` with its name, when something can be run in it.
pub(crate) fn running(target: &Target, pods: &[Value]) -> Result<(String, Pod)> {
    let pod = typed(&pods[0])?;
    let name = pod.metadata.name.clone().unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    if phase != "Running" {
        bail!(
            "no pod of {} is running; the best one, {name}, is {phase}: kubectl describe pod {name}",
            target.printed()
        );
    }
    Ok((name, pod))
}

/// For fields beyond the slim view.
pub(crate) fn typed(pod: &Value) -> Result<Pod> {
    serde_json::from_value(pod.clone()).context("the server sent an unreadable Pod")
}

/// Every container's name: those of init containers first.
pub(crate) fn containers(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|container| container.name.clone());
    init.chain(spec.containers.iter().map(|container| container.name.clone())).collect()
}

/// The container that is meant: the one asked for, else the annotated one, else the first.
pub(crate) fn container(pod: &Pod, asked: Option<&str>) -> Result<String> {
    let names = containers(pod);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Some(asked) = asked {
        if !names.iter().any(|name| name == asked) {
            bail!("container {asked} is not valid for pod {name}; it has: {}", names.join(", "));
        }
        return Ok(asked.to_owned());
    }
    let annotated = pod.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CONTAINER));
    if let Some(annotated) = annotated.filter(|annotated| names.contains(annotated)) {
        return Ok(annotated.clone());
    }
    let first = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let first = first.with_context(|| format!("pod {name} has no containers"))?.name.clone();
    if names.len() > 1 {
        note(&format!("Defaulted container \"{first}\" out of: {}", names.join(", ")));
    }
    Ok(first)
}

/// A port of the pod by number, or by the name that a container gives it.
pub(crate) fn port(pod: &Pod, asked: &str) -> Result<u16> {
    if let Ok(port) = asked.parse::<u16>() {
        if port == 0 {
            bail!("port 0 is no remote port");
        }
        return Ok(port);
    }
    let ports = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .flat_map(|container| container.ports.iter().flatten());
    let named: Vec<_> = ports.filter_map(|port| Some((port.name.clone()?, port.container_port))).collect();
    let found = named.iter().find(|(name, _)| name == asked).and_then(|(_, port)| u16::try_from(*port).ok());
    found.with_context(|| {
        let names: Vec<_> = named.iter().map(|(name, _)| name.as_str()).collect();
        format!("\"{asked}\" is neither a port number nor a port of the pod (it names: {})", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str, ready: bool, more: &Value) -> Value {
        let mut pod = json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1", "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 80}]}]},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
        for (path, value) in more.as_object().into_iter().flatten() {
            *crate::edit::at(&mut pod, &path.split('.').collect::<Vec<_>>()) = value.clone();
        }
        pod
    }

    #[test]
    fn the_pod_most_likely_to_answer_comes_first() {
        let mut pods = [
            pod("f-pending", "Pending", false, &json!({"spec.nodeName": ""})),
            pod("g-failed", "Failed", false, &json!({})),
            pod("h-leaving", "Running", true, &json!({"metadata.deletionTimestamp": "2026-01-01T01:00:00Z"})),
            pod("e-unready", "Running", false, &json!({})),
            pod(
                "c-restarted",
                "Running",
                true,
                &json!({"status.containerStatuses": [{"name": "web", "restartCount": 2}]}),
            ),
            pod("b-younger", "Running", true, &json!({"metadata.creationTimestamp": "2026-01-02T00:00:00Z"})),
            pod("a-best", "Running", true, &json!({})),
        ];
        pods.sort_by_cached_key(rank);
        let names: Vec<_> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names[..3], ["a-best", "b-younger", "c-restarted"]);
        assert_eq!(names[3..5], ["e-unready", "f-pending"]);
        assert_eq!(names.len(), 7, "gone and going ones come last, but come");
    }

    #[test]
    fn containers_and_ports_are_found_by_name() {
        let mut two = pod("p", "Running", true, &json!({}));
        two["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "side"}));
        let two = typed(&two).unwrap();
        assert_eq!(container(&two, Some("side")).unwrap(), "side");
        assert_eq!(container(&two, None).unwrap(), "web");
        let error = container(&two, Some("x")).unwrap_err().to_string();
        assert_eq!(error, "container x is not valid for pod p; it has: web, side");
        let annotated =
            pod("p", "Running", true, &json!({"metadata.annotations": {DEFAULT_CONTAINER: "web"}}));
        assert_eq!(container(&typed(&annotated).unwrap(), None).unwrap(), "web");
        assert_eq!((port(&two, "http").unwrap(), port(&two, "8080").unwrap()), (80, 8080));
        assert!(port(&two, "https").unwrap_err().to_string().contains("it names: http"));
        assert!(port(&two, "0").is_err() && port(&two, "70000").is_err());
    }
}
