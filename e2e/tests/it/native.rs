//! With the native controllers off, everything of the cluster hangs on one static pod: it comes back by itself and
//! then brings back the rest, DNS and the chart's managers included.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use nix::sys::signal::Signal;
use trysail_e2e::{
    PodMonitor, TestNamespace, connect, manager, wait,
    workload::{Deployment, Face, deployment},
};

/// The kubelet waits up to 40 s before it starts a container for the third time within minutes.
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_recovers_from_the_loss_of_every_manager_and_of_dns() -> Result<()> {
    if !super::faces().contains(&Face::Native) {
        return Ok(());
    }
    let client = connect().await?;
    let namespace = TestNamespace::create(&client, "native").await?;
    let web =
        Deployment::create(&client, &namespace, Face::Native, deployment(Face::Native, "web", 2)).await?;
    web.wait_complete(LIMIT).await?;
    let monitor = PodMonitor::start(&client, &namespace).await;
    monitor.expect_available();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let dns = ListParams::default().labels("k8s-app=kube-dns");
    let lost = pods.list(&dns).await?.items;
    ensure!(!lost.is_empty(), "the cluster has no DNS");

    web.set_annotation("lost").await?;
    let native = manager::native(&client).await?.context("the cluster has no static pod of ours")?;
    manager::signal(&native, Signal::SIGKILL)?;
    pods.delete(manager::NATIVE.1, &DeleteParams::default().grace_period(0)).await?;
    let managers: Api<Pod> = Api::namespaced(client.clone(), manager::NAMESPACE);
    for pod in manager::pods(&client).await? {
        managers.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }
    for pod in &lost {
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }

    wait::until("new DNS pods to be ready", LIMIT, || async {
        let now = pods.list(&dns).await?.items;
        let new = |pod: &Pod| lost.iter().all(|old| old.uid() != pod.uid());
        Ok(now.iter().filter(|pod| new(pod) && manager::is_ready(pod)).count() == lost.len())
    })
    .await?;
    manager::wait_for_ready(&client, 2, LIMIT).await?;
    web.wait_complete(LIMIT).await?;
    let seen = monitor.finish(3, 2).await?;
    ensure!(seen.created == 4, "{} pods were created where 4 are needed", seen.created);
    namespace.delete().await
}
