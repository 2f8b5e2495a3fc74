//! `trysail uninstall --purge` with workloads that are alive: their pods go on running or go with them, as was said;
//! nothing else of ours is left. The chart is installed again afterwards.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::{
    api::{core::v1::Pod, rbac::v1::ClusterRole},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use trysail_e2e::{
    PodMonitor, TestNamespace, connect,
    kinds::{daemon_set, job, stateful_set},
    manager,
    object::Object,
    program, wait,
    workload::{Face, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);
/// On the pods of Jobs.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// On those that are still to be counted by whoever comes next.
const UNCOUNTED: &str = "batch.trysail.dev/uncounted";

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_does_with_the_pods_what_was_said() -> Result<()> {
    let client = connect().await?;
    let home = tempfile::tempdir()?;
    for (fate, stay) in [("--orphan-pods", true), ("--delete-pods", false)] {
        let namespace = TestNamespace::create(&client, "purge").await?;
        let count = live(&client, &namespace).await?;
        let monitor = PodMonitor::start(&client, &namespace).await;
        monitor.expect_available();
        let mut uninstall = program::helm(home.path())?;
        uninstall.args(["uninstall", program::RELEASE, "-n", program::RELEASE_NAMESPACE, "--wait"]);
        if stay {
            program::run(&mut uninstall)?;
            nothing_holds_pods(&client, &namespace).await?;
        } else {
            // The purge lets the pods of Jobs go by itself where the chart's hook did not.
            program::run(uninstall.arg("--no-hooks"))?;
        }

        let unsaid = program::end(program::trysail()?.args(["uninstall", "--purge", "--yes"]))?;
        ensure!(unsaid.code == Some(1) && unsaid.stderr.contains("--orphan-pods"), "{unsaid:?}");
        program::run(program::trysail()?.args(["uninstall", "--purge", "--yes", fate]))?;
        ensure!(definitions(&client).await?.is_empty(), "definitions are left");

        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        if stay {
            // Whoever wanted to collect them would have by now: the owner has been gone for longer than that takes.
            tokio::time::sleep(Duration::from_secs(5)).await;
            let left = pods.list(&ListParams::default()).await?.items;
            let is_free = |pod: &Pod| pod.owner_references().is_empty() && pod.finalizers().is_empty();
            ensure!(left.len() == count && left.iter().all(is_free), "{left:?}");
            monitor.finish(count, count).await?;
        } else {
            wait::until("the pods to go", LIMIT, || async {
                Ok(pods.list(&ListParams::default()).await?.items.is_empty())
            })
            .await?;
            ensure!(monitor.finish(count, 0).await?.created == count, "a deleted pod was replaced");
        }
        again(&client, home.path()).await?;
        namespace.delete().await?;
    }
    Ok(())
}

async fn again(client: &Client, home: &Path) -> Result<()> {
    program::install_chart(home, &[])?;
    manager::wait_for_ready(client, 2, LIMIT).await
}

/// A workload of each kind that has pods of its own; says how many pods they have.
async fn live(client: &Client, namespace: &str) -> Result<usize> {
    let face = Face::Crd;
    let manifests = [deployment(face, "web", 2), stateful_set(face, "set", 1), daemon_set(face, "daemons")];
    let mut owners = Vec::new();
    for manifest in &manifests {
        owners.push(Object::create(client, namespace, manifest).await?);
    }
    let long = Object::create(client, namespace, &job(face, "long", 2, "sleep 3600")).await?;
    for owner in &owners {
        owner.wait_complete(LIMIT).await?;
    }
    long.wait("to run", LIMIT, |job| job["status"]["ready"] == 1).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(pods.list(&ListParams::default()).await?.items.len())
}

/// The Job is in the middle of its work, and nobody is left who would ever remove a finalizer. Nor is anything left of
/// the hook that did.
async fn nothing_holds_pods(client: &Client, namespace: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_job = pods.list(&ListParams::default().labels(JOB_NAME)).await?.items;
    ensure!(!of_job.is_empty(), "the Job has no pod");
    for pod in &of_job {
        ensure!(pod.finalizers().is_empty(), "{} is held: {:?}", pod.name_any(), pod.finalizers());
        ensure!(pod.annotations().contains_key(UNCOUNTED), "{} is to be counted", pod.name_any());
    }
    let name = "trysail-workloads-leave-pods";
    let roles: Api<ClusterRole> = Api::all(client.clone());
    ensure!(roles.get_opt(name).await?.is_none(), "the hook's permissions are left");
    let hooks: Api<Pod> = Api::namespaced(client.clone(), program::RELEASE_NAMESPACE);
    ensure!(hooks.get_opt(name).await?.is_none(), "the hook's pod is left");
    Ok(())
}

async fn definitions(client: &Client) -> Result<Vec<String>> {
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    let names = all.list(&ListParams::default()).await?.items.into_iter().map(|crd| crd.name_any());
    Ok(names.filter(|name| name.ends_with(".trysail.dev")).collect())
}
