//! `kubectl drain`, to which our DaemonSets are like any other owner, because it compares kind and group; and how to
//! tell it that they are not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use trysail_e2e::{
    TestNamespace, connect,
    kinds::{daemon_set, stateful_set},
    object::Object,
    shell::Shell,
    wait,
    workload::{Deployment, Face, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);
const NODE: &str = "w1";
/// Pods of this test alone: on the node are others that must not move, among them what a failed test left behind.
const OURS: &str = "app in (drained-web,drained-set,drained-daemons)";

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_drain_ends_and_loses_nothing() -> Result<()> {
    let client = connect().await?;
    let namespace = TestNamespace::create(&client, "drain").await?;
    let shell = Shell::new(&namespace)?;
    let result = drains(&client, &namespace, &shell).await;
    shell.succeed(&format!("kubectl uncordon {NODE}"))?;
    result?;
    namespace.delete().await
}

async fn drains(client: &Client, namespace: &str, shell: &Shell) -> Result<()> {
    let web =
        Deployment::create(client, namespace, Face::Crd, deployment(Face::Crd, "drained-web", 4)).await?;
    let set = Object::create(client, namespace, &stateful_set(Face::Crd, "drained-set", 2)).await?;
    let daemons = Object::create(client, namespace, &daemon_set(Face::Crd, "drained-daemons")).await?;
    let rolled_out = async || -> Result<()> {
        web.wait_complete(LIMIT).await?;
        set.wait_complete(LIMIT).await?;
        daemons.wait_complete(LIMIT).await.map(drop)
    };
    rolled_out().await?;
    let before = daemon(client, namespace).await?;

    // With the label that our DaemonSets' pods have, it leaves them alone.
    shell.succeed(&format!(
        "kubectl drain {NODE} --pod-selector '{OURS},!trysail.dev/daemonset' --timeout=90s"
    ))?;
    rolled_out().await?;
    let moved = on_node(client, namespace, "app in (drained-web,drained-set)").await?;
    ensure!(moved.is_empty(), "still on {NODE}: {moved:?}");
    ensure!(daemon(client, namespace).await?.uid() == before.uid(), "the daemon was evicted");

    // Without, it evicts them. Their successors come at once, and it does not wait for those to go.
    shell.succeed(&format!("kubectl drain {NODE} --pod-selector '{OURS}' --timeout=90s"))?;
    wait::until("the daemon's successor", LIMIT, || async {
        Ok(daemon(client, namespace).await.is_ok_and(|now| now.uid() != before.uid()))
    })
    .await?;
    rolled_out().await?;

    let told =
        shell.succeed(&format!("trysail drain {NODE} --dry-run --force --delete-emptydir-data 2>&1"))?;
    let name = daemon(client, namespace).await?.name_any();
    ensure!(told.contains(&format!("{namespace}/{name}")), "it does not tell that {name} stays:\n{told}");
    ensure!(!told.contains(&format!("evicting pod {namespace}/{name}")), "it would evict {name}:\n{told}");
    Ok(())
}

/// The pod of the DaemonSet on that node.
async fn daemon(client: &Client, namespace: &str) -> Result<Pod> {
    let pods = on_node(client, namespace, "app=drained-daemons").await?;
    let alive = pods.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
    alive.with_context(|| format!("no daemon on {NODE}"))
}

async fn on_node(client: &Client, namespace: &str, labels: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = ListParams::default().labels(labels).fields(&format!("spec.nodeName={NODE}"));
    Ok(pods.list(&list).await?.items)
}
