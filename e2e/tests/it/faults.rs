//! Managers are killed, frozen and cut off in the middle of rollouts: no duplicate pod, no lost rollout, no
//! overshoot at any moment.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::{Client, ResourceExt};
use nix::sys::signal::Signal;
use serde_json::json;
use trysail_cluster::Cluster;
use trysail_e2e::{
    PodMonitor, TestNamespace, cluster, connect, faults, manager,
    monitor::Seen,
    stand_in::StandIns,
    wait,
    workload::{Deployment, Face, deployment},
};

const LIMIT: Duration = Duration::from_secs(180);

/// A Deployment that may have one pod too many and none too few, under watch.
pub(super) struct Watched {
    pub(super) namespace: TestNamespace,
    pub(super) web: Deployment,
    monitor: PodMonitor,
    replicas: usize,
}

impl Watched {
    pub(super) async fn start(client: &Client, purpose: &str, face: Face, replicas: usize) -> Result<Self> {
        let namespace = TestNamespace::create(client, purpose).await?;
        let mut manifest = deployment(face, "web", i32::try_from(replicas)?);
        manifest["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        let web = Deployment::create(client, &namespace, face, manifest).await?;
        web.wait_complete(LIMIT).await?;
        let monitor = PodMonitor::start(client, &namespace).await;
        monitor.expect_available();
        Ok(Self { namespace, web, monitor, replicas })
    }

    /// Waits until the watch has shown that many pods.
    async fn wait_for_created(&self, count: usize) -> Result<()> {
        wait::until(&format!("{count} pods to be seen"), LIMIT, || async {
            Ok(self.monitor.seen().created >= count)
        })
        .await
    }

    /// Waits for the end of the rollout and judges every moment since the start.
    pub(super) async fn finish(self) -> Result<Seen> {
        self.web.wait_complete(LIMIT).await?;
        let seen = self.monitor.finish(self.replicas + 1, self.replicas).await?;
        self.namespace.delete().await?;
        Ok(seen)
    }
}

/// One for each face that the cluster serves.
async fn in_every_face(client: &Client, purpose: &str, replicas: usize) -> Result<Vec<Watched>> {
    let starts = super::faces().into_iter().map(|face| Watched::start(client, purpose, face, replicas));
    futures::future::try_join_all(starts).await
}

const KILLS: u64 = 30;

/// Thirty times: a new template, then `kill -9` of the leader at a different moment of the rollout. In both faces
/// at once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_thirty_times_in_mid_rollout() -> Result<()> {
    let client = connect().await?;
    let native =
        async { if super::faces().contains(&Face::Native) { kill_native(&client).await } else { Ok(()) } };
    tokio::try_join!(kill_pods(&client), native).map(drop)
}

/// Not a wait for anything: it moves the kill through the first steps of the rollout.
async fn moment(round: u64) {
    const MOMENTS: u64 = 10;
    tokio::time::sleep(Duration::from_millis(round % MOMENTS * 150)).await;
}

async fn kill_pods(client: &Client) -> Result<()> {
    let watched = Watched::start(client, "kill", Face::Crd, 3).await?;
    for round in 0..KILLS {
        watched.web.set_annotation(&round.to_string()).await?;
        moment(round).await;
        manager::kill_leader(client, LIMIT).await?;
    }
    watched.finish().await?;
    manager::wait_for_ready(client, 2, LIMIT).await
}

async fn kill_native(client: &Client) -> Result<()> {
    let watched = Watched::start(client, "kill-native", Face::Native, 3).await?;
    let mut stand_ins = StandIns::start(client).await?;
    for round in 0..KILLS {
        watched.web.set_annotation(&round.to_string()).await?;
        moment(round).await;
        stand_ins.kill_leader(client).await?;
    }
    watched.finish().await?;
    stand_ins.end(client).await
}

/// The leader is frozen for 20 s, longer than its lease; the other takes over; then it wakes up and must not
/// write what it had decided before.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_does_no_harm_when_it_wakes() -> Result<()> {
    let client = connect().await?;
    manager::wait_for_ready(&client, 2, LIMIT).await?;
    let watched = Watched::start(&client, "freeze", Face::Crd, 4).await?;
    for round in 0..2 {
        let leader = manager::wait_for_leader(&client, LIMIT).await?;
        watched.web.set_annotation(&format!("freeze-{round}")).await?;
        tokio::time::sleep(Duration::from_millis(50 + 400 * round)).await;
        manager::signal(&leader, Signal::SIGSTOP)?;
        let frozen_at = tokio::time::Instant::now();
        watched.web.set_annotation(&format!("freeze-{round}-again")).await?;
        watched.web.wait_complete(LIMIT).await?;
        let successor = manager::wait_for_leader(&client, LIMIT).await?;
        ensure!(successor.uid() != leader.uid(), "a frozen manager cannot have finished that rollout");
        tokio::time::sleep_until(frozen_at + Duration::from_secs(20)).await;
        // So that it wakes into work that is not its own any more.
        watched.web.set_annotation(&format!("freeze-{round}-woken")).await?;
        manager::signal(&leader, Signal::SIGCONT)?;
        watched.web.wait_complete(LIMIT).await?;
    }
    watched.finish().await?;
    manager::wait_for_ready(&client, 2, LIMIT).await
}

/// Three times the API server dies in the middle of a rollout and comes back, every watch is cut, and what a watch
/// missed is not in the server's memory any more.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_restarts_three_times_in_mid_rollout() -> Result<()> {
    const RESTARTS: usize = 3;
    let client = connect().await?;
    let cluster = cluster()?;
    let control_plane = cluster.node("cp")?;
    let all = in_every_face(&client, "apiserver", 3).await?;
    for restart in 0..RESTARTS {
        for watched in &all {
            watched.web.set_annotation(&format!("restart-{restart}")).await?;
        }
        for watched in &all {
            // The first pod of the new template is there, and the others are not.
            watched.wait_for_created(watched.replicas * (restart + 1) + 1).await?;
        }
        control_plane.restart_component("kube-apiserver")?;
        wait::until("the API server to be back", LIMIT, || async {
            client.apiserver_version().await?;
            Ok(true)
        })
        .await?;
        listen_again(&cluster)?;
        for watched in &all {
            watched.web.wait_complete(LIMIT).await?;
            // Before the next rollout takes them away again.
            watched.wait_for_created(watched.replicas * (restart + 2)).await?;
        }
    }
    for watched in all {
        let needed = watched.replicas * (RESTARTS + 1);
        let seen = watched.finish().await?;
        ensure!(seen.created == needed, "{} pods were created where {needed} are needed", seen.created);
    }
    Ok(())
}

/// client-go's reflectors wait ever longer before they watch again, up to a minute, and forget that only after two
/// minutes without a failure: by the third restart the scheduler binds nothing, and no kubelet starts anything, for
/// as long. This test is not about them, so they start anew.
fn listen_again(cluster: &Cluster) -> Result<()> {
    cluster.node("cp")?.restart_component("kube-scheduler")?;
    for node in cluster.nodes() {
        node.restart_component("kubelet")?;
    }
    Ok(())
}

/// All connections of all managers are reset in the middle of rollouts, again and again, the watches among them.
#[tokio::test(flavor = "multi_thread")]
async fn every_connection_is_cut_in_mid_rollout() -> Result<()> {
    const ROUNDS: u64 = 6;
    let client = connect().await?;
    let all = in_every_face(&client, "cut", 3).await?;
    let mut managers = manager::pods(&client).await?;
    managers.extend(manager::native(&client).await?);
    ensure!(!managers.is_empty(), "no manager was found");
    for watched in &all {
        watched.web.set_annotation("cut").await?;
    }
    let mut cuts = 0;
    for _ in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(700)).await;
        for pod in &managers {
            let uid = manager::kubelet_uid(pod).context("the pod has no uid")?;
            // One that is just coming back has none.
            cuts += faults::reset_connections(&uid, manager::PROGRAM)?;
        }
    }
    // Each holds a watch for each of four kinds.
    ensure!(cuts > 4 * managers.len(), "only {cuts} connections of {} managers were cut", managers.len());
    for watched in all {
        let needed = watched.replicas * 2;
        let seen = watched.finish().await?;
        ensure!(seen.created == needed, "{} pods were created where {needed} are needed", seen.created);
    }
    Ok(())
}
