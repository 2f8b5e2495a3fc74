//! From kube-controller-manager to ours and back, twice, with live workloads of all kinds: nobody restarts a pod,
//! records a template anew, counts a finished pod again or starts a run twice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use trysail_e2e::{
    TestNamespace, connect,
    history::{Entry, History, created},
    kinds::{cron_job, daemon_set, indexed_job, job, stateful_set},
    local::LocalManager,
    object::{Object, is_true},
    program, promises,
    stand_in::{Absent, StockControllers},
    workload::{Face, deployment},
};

const LIMIT: Duration = Duration::from_secs(120);
const REPLICAS: i32 = 2;
const PIECES: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn workloads_do_not_notice_who_runs_them() -> Result<()> {
    if !super::faces().contains(&Face::Native) {
        return Ok(());
    }
    let client = connect().await?;
    let absent = Absent::take_away(&client).await?;
    let live = change_hands(&client).await?;
    absent.bring_back(&client).await?;
    live.after("the static pod").await?;
    live.judge().await
}

/// Theirs, ours, theirs, ours, theirs. What each makes, the others go on with.
async fn change_hands(client: &Client) -> Result<Live> {
    let theirs = StockControllers::start()?;
    let mut live = Live::start(client).await?;
    live.add("theirs").await?;
    live.after("kube-controller-manager").await?;
    turn_of_a_minute(2).await;
    theirs.stop().await?;

    // The run of this minute is there: it must not be started again.
    let ours = LocalManager::start(program::manager()?, Face::Native)?;
    live.add("ours").await?;
    live.after("trysail-manager").await?;
    ours.stop().await?;

    let theirs = StockControllers::start()?;
    live.after("kube-controller-manager").await?;
    turn_of_a_minute(-2).await;
    theirs.stop().await?;
    turn_of_a_minute(1).await;

    // The run of this minute is due, and nobody has started it.
    let ours = LocalManager::start(program::manager()?, Face::Native)?;
    live.after("trysail-manager").await?;
    ours.stop().await?;

    let theirs = StockControllers::start()?;
    live.after("kube-controller-manager").await?;
    theirs.stop().await?;
    Ok(live)
}

/// Workloads that are to be left in peace.
struct Live {
    client: Client,
    namespace: TestNamespace,
    history: History,
    /// Those with pods that go on running.
    long: Vec<Object>,
    /// A Job that is finished.
    done: Object,
    /// What its status said then.
    counted: Value,
    /// A Job that goes on through all hands.
    pieces: Object,
}

impl Live {
    async fn start(client: &Client) -> Result<Self> {
        let face = Face::Native;
        let namespace = TestNamespace::create(client, "handover").await?;
        let kinds = [
            ("v1", "Pod"),
            ("batch/v1", "Job"),
            ("apps/v1", "ControllerRevision"),
            ("apps/v1", "ReplicaSet"),
        ];
        let history = History::start(client, &namespace, &kinds).await;
        let mut cron = cron_job(face, "cron", "true");
        cron["spec"]["successfulJobsHistoryLimit"] = json!(10);
        Object::create(client, &namespace, &cron).await?;
        let done = Object::create(client, &namespace, &job(face, "done", 3, "true")).await?;
        // Slow enough for every controller to see some of it.
        let pieces = indexed_job(face, "pieces", PIECES as i32, 1, "sleep 6");
        let pieces = Object::create(client, &namespace, &pieces).await?;
        let finished = done.wait("to complete", LIMIT, |job| is_true(job, "Complete")).await?;
        let counted = finished["status"].clone();
        let client = client.clone();
        Ok(Self { client, namespace, history, long: Vec::new(), done, counted, pieces })
    }

    /// Has whoever is in charge make workloads that the next ones are to go on with. Their template has in it what is
    /// written in more than one way.
    async fn add(&mut self, name: &str) -> Result<()> {
        let face = Face::Native;
        let (web, set, daemons) = (format!("{name}-web"), format!("{name}-set"), format!("{name}-daemons"));
        let manifests = [
            deployment(face, &web, REPLICAS),
            stateful_set(face, &set, REPLICAS),
            daemon_set(face, &daemons),
        ];
        for mut manifest in manifests {
            let template = &mut manifest["spec"]["template"];
            template["metadata"]["annotations"] = json!({"said": "a < b && c > d \u{2028} ü"});
            template["spec"]["containers"][0]["resources"] =
                json!({"requests": {"cpu": "0.01", "memory": "4096Ki"}});
            self.long.push(Object::create(&self.client, &self.namespace, &manifest).await?);
        }
        for object in &self.long {
            object.wait_complete(LIMIT).await?;
        }
        Ok(())
    }

    /// Waits until whoever is in charge now has looked at every workload, and has counted a piece more.
    async fn after(&self, who: &str) -> Result<()> {
        let before = self.pieces.status().await?["succeeded"].as_u64().unwrap_or(0);
        for object in &self.long {
            // A change of the spec that no pod needs to know of.
            let limit = object.get().await?["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10);
            object.patch(json!({"spec": {"revisionHistoryLimit": limit % 10 + 1}})).await?;
        }
        for object in &self.long {
            object.wait_complete(LIMIT).await.with_context(|| format!("under {who}"))?;
        }
        ensure!(before < PIECES as u64, "nothing is left to count under {who}");
        let counts = |job: &Value| job["status"]["succeeded"].as_u64() > Some(before);
        self.pieces.wait("to go on", LIMIT, counts).await.with_context(|| format!("under {who}"))?;
        Ok(())
    }

    async fn judge(self) -> Result<()> {
        self.pieces.patch(json!({"spec": {"parallelism": PIECES}})).await?;
        self.pieces.wait("to complete", LIMIT, |job| is_true(job, "Complete")).await?;
        ensure!(self.done.status().await? == self.counted, "the finished Job was counted anew");
        let entries = self.history.finish().await?;
        for object in &self.long {
            let made = created(&entries, |entry| entry.kind == "Pod" && entry.is_of(&object.name));
            // As many as it has now, for a DaemonSet one on each node.
            let status = object.status().await?;
            let wanted = status["replicas"].as_u64().or_else(|| status["desiredNumberScheduled"].as_u64());
            ensure!(
                Some(made.len() as u64) == wanted,
                "{} restarted pods: {} were made",
                object.name,
                made.len()
            );
        }
        revisions_stand(&entries, self.long.len())?;
        promises::counted_once(&entries, "pieces", PIECES)?;
        let done = created(&entries, |entry| entry.kind == "Pod" && entry.is_of("done")).len();
        ensure!(done == 3, "{done} pods were made for three completions");
        let minutes = promises::one_job_a_minute(&entries, "cron")?;
        ensure!(minutes >= 2, "only {minutes} minutes turned");
        self.namespace.delete().await
    }
}

/// Each workload has one record of its template, and nobody has numbered or labelled it anew.
fn revisions_stand(entries: &[Entry], workloads: usize) -> Result<()> {
    let is_record = |entry: &Entry| matches!(entry.kind.as_str(), "ControllerRevision" | "ReplicaSet");
    let records = created(entries, is_record);
    let names: Vec<&str> = records.iter().map(|record| record.name()).collect();
    ensure!(records.len() == workloads, "{} workloads have the records {names:?}", workloads);
    for record in records {
        let same = |entry: &&Entry| {
            ["data", "revision"].iter().all(|field| entry.object[field] == record.object[field])
                && entry.object["metadata"]["labels"] == record.object["metadata"]["labels"]
                && !entry.is_end
        };
        let mut versions = entries.iter().filter(|entry| entry.uid() == record.uid());
        ensure!(versions.all(|entry| same(&entry)), "{} was changed", record.name());
    }
    Ok(())
}

/// Waits until so many seconds after (or before, when negative) the next turn of a minute.
async fn turn_of_a_minute(seconds: i64) {
    const MINUTE: i64 = 60_000;
    let now = jiff::Timestamp::now().as_millisecond();
    let left = (seconds * 1000 - now).rem_euclid(MINUTE);
    tokio::time::sleep(Duration::from_millis(left.unsigned_abs())).await;
}
