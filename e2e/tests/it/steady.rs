//! A cluster in which nothing changes costs nothing: no LIST, no write but the leases.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde_json::json;
use trysail_e2e::{
    TestNamespace,
    audit::{AuditLog, Request},
    connect,
    kinds::{cron_job, daemon_set, job, stateful_set},
    manager,
    object::{Object, is_true},
    wait,
    workload::{Deployment, Face, deployment},
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
        other_kinds(&client, &namespace, face).await?;
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

    let unquiet = left_by_failed_tests(&client, &namespaces).await?;
    let log = AuditLog::from_now()?;
    tokio::time::sleep(QUIET).await;
    let mut requests = log.ours()?;
    requests.retain(|request| !unquiet.contains(&request.namespace));
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

/// Namespaces of tests that failed are kept to be looked at, with whatever lives in them: a CronJob runs on, a pod fails
/// again and again. What is asked for there has a cause.
async fn left_by_failed_tests(client: &Client, own: &[TestNamespace]) -> Result<Vec<String>> {
    let all: Api<Namespace> = Api::all(client.clone());
    let left = all.list(&ListParams::default().labels(TestNamespace::LABEL)).await?.items;
    let left = left.iter().map(ResourceExt::name_any);
    Ok(left.filter(|name| !own.iter().any(|own| **own == **name)).collect())
}

/// One of each that is done with what it has to do, one of them for a year.
async fn other_kinds(client: &Client, namespace: &str, face: Face) -> Result<()> {
    let mut yearly = cron_job(face, "yearly", "true");
    yearly["spec"]["schedule"] = json!("@yearly");
    Object::create(client, namespace, &yearly).await?;
    let done = Object::create(client, namespace, &job(face, "done", 2, "true")).await?;
    for manifest in [stateful_set(face, "set", 2), daemon_set(face, "daemons")] {
        Object::create(client, namespace, &manifest).await?.wait_complete(LIMIT).await?;
    }
    done.wait("to complete", LIMIT, |job| is_true(job, "Complete")).await.map(drop)
}
