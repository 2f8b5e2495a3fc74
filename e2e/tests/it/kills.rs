//! `kill -9` of the leader while every other kind is in the middle of something: an ordered update, an update with a
//! surge, a Job of fifty indexes, the turn of a minute. The API's own history tells what became of it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trysail_e2e::{
    TestNamespace, connect,
    history::{History, alive, created},
    kinds::{cron_job, daemon_set, indexed_job, stateful_set},
    manager,
    object::{Object, is_rolled_out, is_true},
    promises,
    stand_in::StandIns,
    workload::Face,
};

const LIMIT: Duration = Duration::from_secs(240);
const REPLICAS: usize = 3;
const COMPLETIONS: usize = 50;

/// In both faces at once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_what_every_kind_does() -> Result<()> {
    let client = connect().await?;
    let native =
        async { if super::faces().contains(&Face::Native) { kill_native(&client).await } else { Ok(()) } };
    tokio::try_join!(kill_pods(&client), native).map(drop)
}

async fn kill_pods(client: &Client) -> Result<()> {
    let busy = Busy::start(client, Face::Crd).await?;
    busy.killed_again_and_again(async || manager::kill_leader(client, LIMIT).await).await?;
    manager::wait_for_ready(client, 2, LIMIT).await
}

async fn kill_native(client: &Client) -> Result<()> {
    let busy = Busy::start(client, Face::Native).await?;
    let mut stand_ins = StandIns::start(client).await?;
    busy.killed_again_and_again(async || stand_ins.kill_leader(client).await).await?;
    stand_ins.end(client).await
}

/// One workload of each kind.
struct Busy {
    namespace: TestNamespace,
    face: Face,
    client: Client,
    history: History,
    set: Object,
    daemons: Object,
    cron: Object,
}

impl Busy {
    /// Everything is there and ready; nothing is to be done.
    async fn start(client: &Client, face: Face) -> Result<Self> {
        let namespace = TestNamespace::create(client, "kills").await?;
        let kinds = [("v1", "Pod"), (face.api_version("Job"), "Job")];
        let history = History::start(client, &namespace, &kinds).await;
        let mut surging = daemon_set(face, "daemons");
        surging["spec"]["updateStrategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        let set = Object::create(client, &namespace, &stateful_set(face, "set", REPLICAS as i32)).await?;
        let daemons = Object::create(client, &namespace, &surging).await?;
        set.wait_complete(LIMIT).await?;
        daemons.wait_complete(LIMIT).await?;
        let mut every_minute = cron_job(face, "cron", "true");
        every_minute["spec"]["successfulJobsHistoryLimit"] = json!(1);
        let cron = Object::create(client, &namespace, &every_minute).await?;
        Ok(Self { namespace, face, client: client.clone(), history, set, daemons, cron })
    }

    /// Sets everything off, has managers killed until all of it is done, and judges every moment.
    async fn killed_again_and_again(self, mut kill: impl AsyncFnMut() -> Result<()>) -> Result<()> {
        const LEAST: u64 = 12;
        let since = self.history.now();
        let manifest = indexed_job(self.face, "job", COMPLETIONS as i32, 10, "true");
        let job = Object::create(&self.client, &self.namespace, &manifest).await?;
        self.set.set_annotation("killed").await?;
        self.daemons.set_annotation("killed").await?;
        let (deadline, mut kills, mut edges) = (Instant::now() + LIMIT, 0, 0);
        loop {
            let is_edge = next_moment(kills).await;
            kill().await.with_context(|| format!("kill {kills}"))?;
            (kills, edges) = (kills + 1, edges + u64::from(is_edge));
            let is_done = edges > 0 && kills >= LEAST && self.is_done(&job).await?;
            if is_done {
                break;
            }
            ensure!(Instant::now() < deadline, "not done after {kills} kills: {}", self.told(&job).await?);
        }
        eprintln!("{:?}: {kills} kills, {edges} of them at the turn of a minute", self.face);
        self.judge(since).await
    }

    async fn is_done(&self, job: &Object) -> Result<bool> {
        let last = self.cron.status().await?["lastSuccessfulTime"].is_string();
        Ok(last
            && is_true(&job.get().await?, "Complete")
            && is_rolled_out(&self.set.get().await?)
            && is_rolled_out(&self.daemons.get().await?))
    }

    async fn told(&self, job: &Object) -> Result<String> {
        let all = [job, &self.set, &self.daemons, &self.cron];
        let told = all.map(async |object| {
            Ok::<_, anyhow::Error>(format!("{}: {}", object.kind, object.status().await?))
        });
        Ok(futures::future::try_join_all(told).await?.join("\n"))
    }

    async fn judge(self, since: u64) -> Result<()> {
        let entries = self.history.finish().await?;
        let replaced = |name: &str| created(&entries, |entry| entry.kind == "Pod" && entry.is_of(name)).len();

        promises::one_pod_per_ordinal(&entries, "set", REPLICAS)?;
        promises::never_fewer(&entries, since, "set", REPLICAS - 1)?;
        ensure!(
            replaced("set") == 2 * REPLICAS,
            "{} pods were made for {REPLICAS} ordinals",
            replaced("set")
        );

        let daemons = alive(&entries, |entry| entry.kind == "Pod" && entry.is_of("daemons"));
        let node = |pod: &&Value| pod["spec"]["nodeName"].as_str().map(str::to_owned);
        let nodes: BTreeSet<String> = daemons.values().filter_map(node).collect();
        promises::never_without_a_pod(&entries, since, "daemons", &nodes)?;
        ensure!(
            replaced("daemons") == 2 * nodes.len(),
            "{} pods were made for {nodes:?}",
            replaced("daemons")
        );

        promises::counted_once(&entries, "job", COMPLETIONS)?;
        ensure!(promises::one_job_a_minute(&entries, "cron")? > 0, "no minute had its Job");
        self.namespace.delete().await
    }
}

/// Spreads the kills over what a new leader does first, and puts one at each turn of a minute, before or after it by
/// turns: then this says true.
async fn next_moment(kills: u64) -> bool {
    const MOMENTS: u64 = 10;
    let pause = Duration::from_millis(800 + kills % MOMENTS * 150);
    let second = jiff::Timestamp::now().as_millisecond().rem_euclid(60_000) as u64;
    let offset = Duration::from_millis(60_000 - second) + Duration::from_millis(kills % 3 * 150);
    let aim = offset.saturating_sub(Duration::from_millis(150));
    let is_edge = aim < pause + Duration::from_secs(3);
    sleep(if is_edge { aim } else { pause }).await;
    is_edge
}
