//! A manager that hears of everything ten seconds late, its own writes included, still makes no pod too many.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::json;
use trysail_e2e::{
    PodMonitor, TestNamespace, audit, connect, manager, program,
    proxy::Proxy,
    wait,
    workload::{Deployment, Face, deployment},
};

const LIMIT: Duration = Duration::from_secs(240);
const LAG: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_lags_ten_seconds_makes_no_surplus_pod() -> Result<()> {
    let client = connect().await?;
    let (rolls, grows) = (
        TestNamespace::create(&client, "lag-roll").await?,
        TestNamespace::create(&client, "lag-grow").await?,
    );
    let roll = Deployment::create(&client, &rolls, Face::Crd, deployment(Face::Crd, "roll", 1)).await?;
    let grow = Deployment::create(&client, &grows, Face::Crd, deployment(Face::Crd, "grow", 1)).await?;
    roll.wait_complete(LIMIT).await?;
    grow.wait_complete(LIMIT).await?;
    scale_managers(&client, 0).await?;

    let lagging = Lagging::start().await?;
    let (of_roll, of_grow) =
        (PodMonitor::start(&client, &rolls).await, PodMonitor::start(&client, &grows).await);
    of_roll.expect_available();
    roll.set_annotation("late").await?;
    grow.scale(4).await?;
    grow.wait_complete(LIMIT).await?;
    // A pod is lost while its manager looks ten seconds into the past: one successor, no more.
    let pods: Api<Pod> = Api::namespaced(client.clone(), &grows);
    let victim = pods.list(&ListParams::default()).await?.items.pop().context("no pod")?.name_any();
    pods.delete(&victim, &DeleteParams::default()).await?;
    wait::until("the loss to be noticed", LIMIT, || async {
        Ok(grow.get().await?["status"]["availableReplicas"] == 3)
    })
    .await?;
    grow.wait_complete(LIMIT).await?;
    roll.wait_complete(LIMIT).await?;
    // Whatever it would still do with an old view, it does before its view is as new as the world.
    tokio::time::sleep(LAG).await;
    let (rolled, grown) = (of_roll.finish(2, 1).await?, of_grow.finish(4, 0).await?);
    ensure!(
        (rolled.created, grown.created) == (2, 5),
        "pods created: {} and {}",
        rolled.created,
        grown.created
    );

    lagging.stop().await?;
    scale_managers(&client, 2).await?;
    rolls.delete().await?;
    grows.delete().await
}

/// A manager on this machine, under the identity of the chart's, behind the proxy.
struct Lagging {
    child: Child,
    _kubeconfig: tempfile::NamedTempFile,
    _proxy: Proxy,
}

impl Lagging {
    async fn start() -> Result<Self> {
        let mut config = kube::Config::infer().await?;
        config.auth_info.impersonate = Some(audit::IDENTITIES[1].to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:authenticated".to_owned()]);
        // Watches must not end with the client's patience.
        config.read_timeout = None;
        let proxy = Proxy::start(Client::try_from(config)?, LAG).await?;
        let kubeconfig = tempfile::NamedTempFile::new()?;
        std::fs::write(kubeconfig.path(), proxy.kubeconfig())?;
        let mut program = program::manager()?;
        program.arg("--kubeconfig").arg(kubeconfig.path());
        program.args(["--leader-elect-namespace", manager::NAMESPACE, "--bind-address=127.0.0.1:0"]);
        let child = program.stdin(Stdio::null()).spawn().context("failed to start a manager")?;
        Ok(Self { child, _kubeconfig: kubeconfig, _proxy: proxy })
    }

    /// Ends it in order, so that its lease is free.
    async fn stop(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "the lagging manager had ended before");
        nix::sys::signal::kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let status = tokio::task::spawn_blocking(move || self.child.wait()).await??;
        ensure!(status.success(), "the lagging manager ended with {status}");
        Ok(())
    }
}

async fn scale_managers(client: &Client, count: usize) -> Result<()> {
    let api = Face::Native.api(client, manager::NAMESPACE, "Deployment");
    let patch = Patch::Merge(json!({"spec": {"replicas": count}}));
    api.patch_scale("trysail-workloads", &PatchParams::default(), &patch).await?;
    wait::until("the chart's managers to follow", LIMIT, || async {
        let pods = manager::pods(client).await?;
        Ok(pods.len() == count && pods.iter().all(manager::is_ready))
    })
    .await
}
