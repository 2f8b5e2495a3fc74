//! `trysail uninstall --purge` with a Deployment that is alive: its pods go on running or go with it, as was said;
//! nothing else of ours is left. The chart is installed again afterwards.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::{
    api::core::v1::Pod, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use trysail_e2e::{
    PodMonitor, TestNamespace, connect, manager, program, wait,
    workload::{Deployment, Face, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_does_with_the_pods_what_was_said() -> Result<()> {
    let client = connect().await?;
    let home = tempfile::tempdir()?;
    for (fate, stay) in [("--orphan-pods", true), ("--delete-pods", false)] {
        let namespace = TestNamespace::create(&client, "purge").await?;
        let web = Deployment::create(&client, &namespace, Face::Crd, deployment(Face::Crd, "web", 3)).await?;
        web.wait_complete(LIMIT).await?;
        let monitor = PodMonitor::start(&client, &namespace).await;
        monitor.expect_available();
        let mut uninstall = program::helm(home.path())?;
        uninstall.args(["uninstall", program::RELEASE, "-n", program::RELEASE_NAMESPACE, "--wait"]);
        program::run(&mut uninstall)?;

        let unsaid = program::end(program::trysail()?.args(["uninstall", "--purge", "--yes"]))?;
        ensure!(unsaid.code == Some(1) && unsaid.stderr.contains("--orphan-pods"), "{unsaid:?}");
        program::run(program::trysail()?.args(["uninstall", "--purge", "--yes", fate]))?;
        ensure!(definitions(&client).await?.is_empty(), "definitions are left");

        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        if stay {
            // Whoever wanted to collect them would have by now: the owner has been gone for longer than that takes.
            tokio::time::sleep(Duration::from_secs(5)).await;
            let left = pods.list(&ListParams::default()).await?.items;
            ensure!(left.len() == 3 && left.iter().all(|pod| pod.owner_references().is_empty()), "{left:?}");
            monitor.finish(3, 3).await?;
        } else {
            wait::until("the pods to go", LIMIT, || async {
                Ok(pods.list(&ListParams::default()).await?.items.is_empty())
            })
            .await?;
            ensure!(monitor.finish(3, 0).await?.created == 3, "a deleted pod was replaced");
        }
        program::install_chart(home.path(), &[])?;
        manager::wait_for_ready(&client, 2, LIMIT).await?;
        namespace.delete().await?;
    }
    Ok(())
}

async fn definitions(client: &Client) -> Result<Vec<String>> {
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    let names = all.list(&ListParams::default()).await?.items.into_iter().map(|crd| crd.name_any());
    Ok(names.filter(|name| name.ends_with(".trysail.dev")).collect())
}
