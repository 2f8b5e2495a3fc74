//! The managers under test: which pods they are, which of them leads, and how to kill or freeze one.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use nix::sys::signal::Signal;

use crate::{faults, wait, workload::Face};

/// Namespace of the chart's release in the tests.
pub const NAMESPACE: &str = crate::program::RELEASE_NAMESPACE;
/// The static pod that serves the native kinds, by namespace and name.
pub const NATIVE: (&str, &str) = ("kube-system", "trysail-manager-cp");
/// The program's name.
pub const PROGRAM: &str = "trysail-manager";
/// Name of their Leases.
pub const LEASE: &str = "trysail-manager";

/// Pods of the chart's managers, ready or not.
pub async fn pods(client: &Client) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=trysail-workloads");
    Ok(pods.list(&selector).await?.items)
}

/// The static pod that serves the native kinds, when the cluster has one.
pub async fn native(client: &Client) -> Result<Option<Pod>> {
    let (namespace, name) = NATIVE;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(pods.get_opt(name).await?)
}

/// The uid under which the kubelet runs a pod: a static one has another in the API.
pub fn kubelet_uid(pod: &Pod) -> Option<String> {
    pod.annotations().get("kubernetes.io/config.mirror").cloned().or_else(|| pod.uid())
}

/// The pod that holds the Lease. The holder's identity begins with its pod's name.
pub async fn leader(client: &Client) -> Result<Option<Pod>> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let holder =
        leases.get_opt(LEASE).await?.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
    Ok(pods(client).await?.into_iter().find(|pod| !holder.is_empty() && holder.starts_with(&pod.name_any())))
}

/// Waits until one of the managers leads.
pub async fn wait_for_leader(client: &Client, limit: Duration) -> Result<Pod> {
    wait::until("a manager to lead", limit, || leader(client)).await
}

/// Sends a signal to the manager process of that pod.
pub fn signal(pod: &Pod, signal: Signal) -> Result<()> {
    let uid = kubelet_uid(pod).context("the pod has no uid")?;
    faults::signal_pod(&uid, PROGRAM, signal)?;
    Ok(())
}

/// Kills the leader as a power cut would, and makes room for its successor at once: its pod is replaced (the
/// kubelet would wait ever longer before it restarts a container that keeps dying), and its lease is given up
/// in its stead, for it can do no more harm. That a lease of the living runs out is the frozen leader's test.
pub async fn kill_leader(client: &Client, limit: Duration) -> Result<()> {
    let leader = wait_for_leader(client, limit).await?;
    // It may just have been replaced by the other manager: then that one dies.
    if signal(&leader, Signal::SIGKILL).is_err() {
        return Ok(());
    }
    free_lease(client, NAMESPACE).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    pods.delete(&leader.name_any(), &DeleteParams::default()).await?;
    Ok(())
}

/// Gives up the Lease of that namespace in the stead of a holder that is dead.
pub async fn free_lease(client: &Client, namespace: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let nobody = Patch::Merge(serde_json::json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}));
    leases.patch(LEASE, &PatchParams::default(), &nobody).await?;
    Ok(())
}

/// Sets how many managers the chart runs, and waits until they are ready and the others gone.
pub async fn scale(client: &Client, count: usize, limit: Duration) -> Result<()> {
    let api = Face::Native.api(client, NAMESPACE, "Deployment");
    let patch = Patch::Merge(serde_json::json!({"spec": {"replicas": count}}));
    api.patch_scale("trysail-workloads", &PatchParams::default(), &patch).await?;
    wait::until("the chart's managers to follow", limit, || async {
        let pods = pods(client).await?;
        Ok(pods.len() == count && pods.iter().all(is_ready))
    })
    .await
}

/// Waits until `count` managers of the chart are ready.
pub async fn wait_for_ready(client: &Client, count: usize, limit: Duration) -> Result<()> {
    wait::until(&format!("{count} ready managers"), limit, || async {
        Ok(pods(client).await?.iter().filter(|pod| is_ready(pod)).count() == count)
    })
    .await
}

/// A pod that is ready and not being deleted.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
