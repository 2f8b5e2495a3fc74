//! A leader that is stopped exactly between the check of its fence and the departure of a write, for longer than its
//! lease. Another leads and finishes the rollout; then the write leaves, and must change nothing.
//!
//! The leader is a process of this machine, compiled with a place to stop in; what is shipped has none.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use nix::sys::signal::Signal;
use trysail_e2e::{audit::AuditLog, connect, local::LocalManager, manager, program, wait, workload::Face};

use super::faults::Watched;

const LIMIT: Duration = Duration::from_secs(180);
const REPLICAS: usize = 2;
/// Names the file that says which write is to be caught: see the SDK's `client/failpoint.rs`.
const VARIABLE: &str = "TRYSAIL_STOP_BETWEEN_FENCE_AND_SEND";

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_leaves_twenty_seconds_late_makes_no_pod() -> Result<()> {
    // The name is taken: the standby carried out the same plan.
    stand_still("POST", "create", "", &[409]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_leaves_twenty_seconds_late_takes_no_pod() -> Result<()> {
    // That pod is gone.
    stand_still("DELETE", "delete", "/", &[404, 409]).await
}

async fn stand_still(method: &str, verb: &str, under_pods: &str, harmless: &[u16]) -> Result<()> {
    let client = connect().await?;
    let dir = tempfile::tempdir()?;
    let wish = dir.path().join("stop-here");
    manager::scale(&client, 0, LIMIT).await?;
    let mut program = program::stopping_manager()?;
    program.env(VARIABLE, &wish);
    let mut leader = LocalManager::start(program, Face::Crd)?;
    let watched = Watched::start(&client, verb, Face::Crd, REPLICAS).await?;
    manager::scale(&client, 2, LIMIT).await?;
    ensure!(leader.leads().await, "the process that is to be stopped does not lead");

    let part = format!("/namespaces/{}/pods{under_pods}", watched.namespace.name);
    say(&wish, &format!("{method} {part}"))?;
    watched.web.set_annotation("stop").await?;
    wait::until("the leader to stop itself", LIMIT, || async { leader.is_stopped() }).await?;
    ensure!(!wish.exists(), "somebody else stopped it");
    watched.web.wait_complete(LIMIT).await?;
    manager::wait_for_leader(&client, LIMIT).await.context("a pod of the chart must lead by now")?;
    wait::until("the old pods to be gone", LIMIT, || async {
        Ok(pods(&client, &watched.namespace).await?.len() == REPLICAS)
    })
    .await?;
    let before = pods(&client, &watched.namespace).await?;

    let log = AuditLog::from_now()?;
    leader.signal(Signal::SIGCONT)?;
    let mut answer = 0;
    wait::until("the late write to arrive", LIMIT, || {
        let late = late(&log, verb, &watched.namespace);
        answer = late.as_ref().ok().copied().flatten().unwrap_or_default();
        async { Ok(late?.is_some()) }
    })
    .await?;
    ensure!(harmless.contains(&answer), "the API server answered {answer} to the late {verb}");
    ensure!(pods(&client, &watched.namespace).await? == before, "the late {verb} changed what there is");
    let ended = leader.ended(LIMIT).await?;
    ensure!(!ended.success(), "it goes on though it lost its lease");
    let seen = watched.finish().await?;
    ensure!(seen.created == 2 * REPLICAS, "{} pods were created", seen.created);
    manager::wait_for_ready(&client, 2, LIMIT).await
}

/// Whole at once, for whoever reads it.
fn say(file: &Path, text: &str) -> Result<()> {
    let draft = file.with_extension("draft");
    std::fs::write(&draft, text)?;
    Ok(std::fs::rename(draft, file)?)
}

/// The answer to the first write of that kind to the namespace's pods, if it has come.
fn late(log: &AuditLog, verb: &str, namespace: &str) -> Result<Option<u16>> {
    let requests = log.local()?;
    let late = requests.iter().find(|request| {
        request.namespace == namespace && request.access.resource == "pods" && request.access.verb == verb
    });
    Ok(late.map(|request| request.code))
}

async fn pods(client: &Client, namespace: &str) -> Result<BTreeSet<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = pods.list(&ListParams::default()).await?.items;
    Ok(pods.iter().filter_map(ResourceExt::uid).collect())
}
