//! The manager is killed, frozen and cut off in the middle of rollouts: no duplicate pod, no lost rollout, no
//! overshoot at any moment.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use trysail_cluster::Cluster;
use trysail_e2e::{
    PodMonitor, TestNamespace, connect, manager, wait,
    workload::{Deployment, Face, deployment},
};

const LIMIT: Duration = Duration::from_secs(180);

fn careful(name: &str, replicas: i32) -> serde_json::Value {
    let mut manifest = deployment(Face::Crd, name, replicas);
    manifest["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    manifest
}

/// Thirty times: a new template, then `kill -9` of the leader at a different moment of the rollout.
#[tokio::test(flavor = "multi_thread")]
async fn killed_thirty_times_in_mid_rollout() -> Result<()> {
    const KILLS: u64 = 30;
    let client = connect().await?;
    let namespace = TestNamespace::create(&client, "kill").await?;
    let web = Deployment::create(&client, &namespace, Face::Crd, careful("web", 3)).await?;
    web.wait_complete(LIMIT).await?;
    let monitor = PodMonitor::start(&client, &namespace).await;
    monitor.expect_available();
    for round in 0..KILLS {
        web.set_annotation(&round.to_string()).await?;
        // Not a wait for anything: it moves the kill through the rollout's 3 to 4 seconds.
        tokio::time::sleep(Duration::from_millis(round * 100)).await;
        let leader = manager::wait_for_leader(&client, LIMIT).await?;
        // It may just have been replaced by the other manager: then that one is killed in the next round.
        let _ = manager::signal(&leader, Signal::SIGKILL);
    }
    web.wait_complete(LIMIT).await?;
    monitor.finish(4, 3)?;
    namespace.delete().await
}

/// The leader is frozen for 20 s, longer than its lease; the other takes over; then it wakes up and must not
/// write what it had decided before.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_does_no_harm_when_it_wakes() -> Result<()> {
    let client = connect().await?;
    let namespace = TestNamespace::create(&client, "freeze").await?;
    let web = Deployment::create(&client, &namespace, Face::Crd, careful("web", 4)).await?;
    web.wait_complete(LIMIT).await?;
    let monitor = PodMonitor::start(&client, &namespace).await;
    monitor.expect_available();
    for round in 0..3 {
        let leader = manager::wait_for_leader(&client, LIMIT).await?;
        web.set_annotation(&format!("freeze-{round}")).await?;
        tokio::time::sleep(Duration::from_millis(50 + 400 * round)).await;
        manager::signal(&leader, Signal::SIGSTOP)?;
        let frozen_at = tokio::time::Instant::now();
        web.set_annotation(&format!("freeze-{round}-again")).await?;
        web.wait_complete(LIMIT).await?;
        tokio::time::sleep_until(frozen_at + Duration::from_secs(20)).await;
        // The kubelet may have restarted it for failing its liveness probe: a dead process cannot be woken.
        let _ = manager::signal(&leader, Signal::SIGCONT);
    }
    web.set_annotation("after").await?;
    web.wait_complete(LIMIT).await?;
    monitor.finish(5, 4)?;
    namespace.delete().await
}

/// The API server dies in the middle of rollouts and comes back; every watch is cut.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_restarts_in_mid_rollout() -> Result<()> {
    let client = connect().await?;
    let cluster = Cluster::open(&cluster_name())?;
    let namespace = TestNamespace::create(&client, "apiserver").await?;
    let web = Deployment::create(&client, &namespace, Face::Crd, careful("web", 4)).await?;
    web.wait_complete(LIMIT).await?;
    let monitor = PodMonitor::start(&client, &namespace).await;
    for round in 0..3 {
        web.set_annotation(&format!("restart-{round}")).await?;
        tokio::time::sleep(Duration::from_millis(300 + 500 * round)).await;
        let pid = cluster.node("cp")?.component_pid("kube-apiserver")?;
        nix::sys::signal::kill(pid, Signal::SIGKILL)?;
        wait::until_despite_errors("the API server to be back", LIMIT, || async {
            client.apiserver_version().await?;
            Ok(true)
        })
        .await?;
        web.wait_complete(LIMIT).await?;
    }
    let seen = monitor.finish(5, 0)?;
    ensure!(seen.created == 4 * 4, "{} pods were created where 16 are needed", seen.created);
    namespace.delete().await
}

fn cluster_name() -> String {
    std::env::var("TRYSAIL_CLUSTER").unwrap_or_else(|_| "trysail".to_owned())
}
