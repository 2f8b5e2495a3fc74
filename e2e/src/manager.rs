//! The managers under test: which pods they are, which of them leads, and how to kill or freeze one.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use nix::sys::signal::Signal;

use crate::{faults, wait};

/// Namespace of the chart's release in the tests.
pub const NAMESPACE: &str = "trysail-system";
/// The program's name.
pub const PROGRAM: &str = "trysail-manager";
const LEASE: &str = "trysail-manager";

/// Pods of the chart's managers, ready or not.
pub async fn pods(client: &Client) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=trysail-workloads");
    Ok(pods.list(&selector).await?.items)
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
    wait::until_despite_errors("a manager to lead", limit, || async { Ok(leader(client).await?.is_some()) })
        .await?;
    leader(client).await?.context("the leader went away again")
}

/// Sends a signal to the manager process of that pod.
pub fn signal(pod: &Pod, signal: Signal) -> Result<()> {
    let uid = pod.uid().context("the pod has no uid")?;
    faults::signal_pod(&uid, PROGRAM, signal)?;
    Ok(())
}
