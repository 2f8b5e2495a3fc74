//! A cluster in which nothing changes costs nothing: no LIST, no write but the leases.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::ListParams};
use trysail_e2e::{
    TestNamespace,
    audit::{AuditLog, Request},
    connect, manager, wait,
    workload::{Deployment, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);
const QUIET: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_when_nothing_happens() -> Result<()> {
    let client = connect().await?;
    manager::wait_for_ready(&client, 2, LIMIT).await?;
    let mut namespaces = Vec::new();
    for face in super::faces() {
        let namespace = TestNamespace::create(&client, "steady").await?;
        let web = Deployment::create(&client, &namespace, face, deployment(face, "web", 3)).await?;
        web.wait_complete(LIMIT).await?;
        namespaces.push(namespace);
    }
    // What earlier tests deleted is still going away.
    let all: Api<Namespace> = Api::all(client.clone());
    wait::until("deleted namespaces to be gone", LIMIT, || async {
        let going = all.list(&ListParams::default()).await?.items;
        Ok(going.iter().all(|namespace| namespace.metadata.deletion_timestamp.is_none()))
    })
    .await?;
    // The statuses of that last minute are written, events included.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let log = AuditLog::from_now()?;
    tokio::time::sleep(QUIET).await;
    let requests = log.ours()?;
    let leases = |request: &&Request| request.access.resource == "leases";
    ensure!(
        requests.iter().any(|request| leases(&request)),
        "no lease was renewed: the log is not read right"
    );
    let wasted: Vec<String> = requests
        .iter()
        .filter(|request| !leases(request) && request.access.verb != "watch")
        .map(|request| {
            format!("{} {}/{} by {}", request.access, request.namespace, request.name, request.user)
        })
        .collect();
    ensure!(wasted.is_empty(), "requests without a cause:\n{}", wasted.join("\n"));
    for namespace in namespaces {
        namespace.delete().await?;
    }
    Ok(())
}
