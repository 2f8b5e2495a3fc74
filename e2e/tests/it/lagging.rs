//! A manager that hears of everything ten seconds late, its own writes included, still makes no pod too many.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
};
use trysail_e2e::{
    PodMonitor, TestNamespace, audit, connect,
    local::LocalManager,
    manager, program,
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
    manager::scale(&client, 0, LIMIT).await?;

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

    lagging.manager.stop().await?;
    manager::scale(&client, 2, LIMIT).await?;
    rolls.delete().await?;
    grows.delete().await
}

/// A manager on this machine, under the identity of the chart's, behind the proxy.
struct Lagging {
    manager: LocalManager,
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
        let manager = LocalManager::with_kubeconfig(program::manager()?, Face::Crd, kubeconfig)?;
        Ok(Self { manager, _proxy: proxy })
    }
}
