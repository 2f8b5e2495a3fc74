//! The chart's life under Helm beside a Deployment that must not notice, and charts of users with our kinds in them.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use trysail_e2e::{
    PodMonitor, TestNamespace, connect,
    history::{History, alive},
    kinds::{daemon_set, indexed_job, job, stateful_set},
    manager,
    object::{Object, is_true},
    program, promises, wait,
    workload::{Deployment, Face, IMAGE, MISSING_IMAGE, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);

/// Upgrade, test, uninstall and install again: the objects stay, their pods go on running, and afterwards
/// they are managed again. What a Job's pod did meanwhile counts. All of it in a namespace that enforces the Pod
/// Security Standard `restricted`.
#[tokio::test(flavor = "multi_thread")]
async fn workloads_outlive_the_release() -> Result<()> {
    let client = connect().await?;
    let home = tempfile::tempdir()?;
    enforce_restricted(&client).await?;
    let namespace = TestNamespace::create(&client, "release").await?;
    let web = Deployment::create(&client, &namespace, Face::Crd, deployment(Face::Crd, "web", 2)).await?;
    web.wait_complete(LIMIT).await?;
    let mut running = 2;
    for manifest in [stateful_set(Face::Crd, "set", 2), daemon_set(Face::Crd, "daemons")] {
        let owner = Object::create(&client, &namespace, &manifest).await?.wait_complete(LIMIT).await?;
        let status = &owner["status"];
        running += status["replicas"].as_u64().or(status["numberReady"].as_u64()).context("no status")?;
    }
    let running = usize::try_from(running)?;
    let monitor = PodMonitor::start(&client, &namespace).await;
    monitor.expect_available();

    let before = names(&manager::pods(&client).await?);
    program::install_chart(home.path(), &["log.verbosity=3"])?;
    let after = names(&manager::pods(&client).await?);
    ensure!(after.iter().any(|name| !before.contains(name)), "the upgrade changed no manager: {after:?}");
    program::run(program::helm(home.path())?.args([
        "test",
        program::RELEASE,
        "-n",
        program::RELEASE_NAMESPACE,
    ]))?;

    let job = UnfinishedJob::start(&client).await?;
    let robbed = RobbedJob::start(&client).await?;
    let mut uninstall = program::helm(home.path())?;
    uninstall.args(["uninstall", program::RELEASE, "-n", program::RELEASE_NAMESPACE, "--wait"]);
    program::run(&mut uninstall)?;
    wait::until("the managers to go", LIMIT, || async { Ok(manager::pods(&client).await?.is_empty()) })
        .await?;
    // Served and stored still, and nobody acts on it.
    web.scale(3).await?;
    job.goes_on_alone().await?;
    robbed.loses_its_mark().await?;
    ensure!(monitor.seen().created == running, "a pod was created with no manager there");

    program::install_chart(home.path(), &[])?;
    web.wait_complete(LIMIT).await?;
    let seen = monitor.finish(running + 1, running).await?;
    let needed = running + 1;
    ensure!(
        seen.created == needed,
        "pods were restarted: {} were created, {needed} are needed",
        seen.created
    );
    job.finish().await?;
    robbed.finish().await?;
    namespace.delete().await
}

/// A Job of which one pod is running.
struct UnfinishedJob {
    namespace: TestNamespace,
    history: History,
    job: Object,
}

impl UnfinishedJob {
    const PIECES: usize = 3;

    async fn start(client: &Client) -> Result<Self> {
        let namespace = TestNamespace::create(client, "unfinished").await?;
        let kinds = [("v1", "Pod"), ("batch.trysail.dev/v1", "Job")];
        let history = History::start(client, &namespace, &kinds).await;
        let manifest = indexed_job(Face::Crd, "pieces", i32::try_from(Self::PIECES)?, 1, "sleep 8");
        let job = Object::create(client, &namespace, &manifest).await?;
        job.wait("to run", LIMIT, |job| job["status"]["ready"] == 1).await?;
        Ok(Self { namespace, history, job })
    }

    /// Waits until the pod has ended. Nothing would hold it if it were deleted now.
    async fn goes_on_alone(&self) -> Result<()> {
        wait::until("a pod to end with no manager there", LIMIT, || async {
            let entries = self.history.entries();
            let pods = alive(&entries, |entry| entry.kind == "Pod");
            Ok(pods.values().all(|pod| pod["status"]["phase"] == "Succeeded"))
        })
        .await?;
        let entries = self.history.entries();
        let held =
            |pod: &&Value| pod["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
        ensure!(!alive(&entries, |entry| entry.kind == "Pod").values().any(held), "finalizers were left");
        Ok(())
    }

    async fn finish(self) -> Result<()> {
        self.job.wait("to complete", LIMIT, |job| is_true(job, "Complete")).await?;
        promises::counted_once(&self.history.finish().await?, "pieces", Self::PIECES)?;
        self.namespace.delete().await
    }
}

/// A Job whose pod ends while no manager is there, and of which somebody removes what said that it was still to be
/// counted.
struct RobbedJob {
    namespace: TestNamespace,
    pods: Api<Pod>,
    job: Object,
}

impl RobbedJob {
    const UNCOUNTED: &str = "batch.trysail.dev/uncounted";

    async fn start(client: &Client) -> Result<Self> {
        let namespace = TestNamespace::create(client, "robbed").await?;
        let job = Object::create(client, &namespace, &job(Face::Crd, "robbed", 1, "sleep 20")).await?;
        job.wait("to run", LIMIT, |job| job["status"]["ready"] == 1).await?;
        Ok(Self { pods: Api::namespaced(client.clone(), &namespace), namespace, job })
    }

    async fn loses_its_mark(&self) -> Result<()> {
        let ended = |pod: &Pod| {
            pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Succeeded"))
        };
        wait::until("the pod to end with no manager there", LIMIT, || async {
            Ok(self.pods.list(&ListParams::default()).await?.items.iter().all(ended))
        })
        .await?;
        let strip = Patch::Merge(json!({"metadata": {"annotations": {Self::UNCOUNTED: null}}}));
        for pod in self.pods.list(&ListParams::default()).await?.items {
            ensure!(pod.annotations().contains_key(Self::UNCOUNTED), "{} was not marked", pod.name_any());
            self.pods.patch(&pod.name_any(), &PatchParams::default(), &strip).await?;
        }
        Ok(())
    }

    /// Whoever looks at the Job is told.
    async fn finish(self) -> Result<()> {
        let told = self.job.wait_for_event("PodsNotCounted", LIMIT).await?;
        ensure!(told.contains("1 finished pods") && told.contains("run the Job again"), "it says {told:?}");
        self.namespace.delete().await
    }
}

/// Has the API server refuse pods in the release's namespace that are not `restricted`, and proves that it does.
async fn enforce_restricted(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let patch = Patch::Merge(label);
    namespaces.patch(program::RELEASE_NAMESPACE, &PatchParams::default(), &patch).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), program::RELEASE_NAMESPACE);
    let loose =
        json!({"metadata": {"name": "loose"}, "spec": {"containers": [{"name": "main", "image": IMAGE}]}});
    let loose: Pod = serde_json::from_value(loose)?;
    let refused = pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &loose).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("restricted")), "PSS is not enforced");
    Ok(())
}

fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

/// `helm install --wait` tells a good image from a broken one: Helm reads our conditions.
#[tokio::test(flavor = "multi_thread")]
async fn helm_waits_for_a_users_chart() -> Result<()> {
    let client = connect().await?;
    let namespace = TestNamespace::create(&client, "chart").await?;
    let folder = tempfile::tempdir()?;
    write_chart(folder.path(), deployment(Face::Crd, "web", 2))?;
    let install = |name: &str, image: &str, limit: &str| -> Result<program::Ended> {
        let mut helm = program::helm(&folder.path().join("home"))?;
        helm.args(["install", name]).arg(folder.path()).args(["--namespace", &namespace, "--wait"]);
        helm.args(["--timeout", limit, "--set", &format!("image={image}")]);
        program::end(&mut helm)
    };
    let good = install("good", IMAGE, "60s")?;
    ensure!(good.code == Some(0), "{good:?}");
    let api = Face::Crd.api(&client, &namespace, "Deployment");
    let ready = serde_json::to_value(api.get("good").await?)?["status"]["readyReplicas"].clone();
    ensure!(ready == 2, "helm did not wait: {ready} pods are ready");

    let broken = install("broken", MISSING_IMAGE, "20s")?;
    ensure!(broken.code == Some(1), "{broken:?}");
    ensure!(
        api.list(&ListParams::default()).await?.items.len() == 2,
        "the broken Deployment was not even created: {broken:?}"
    );
    namespace.delete().await
}

/// A chart of one Deployment that is named after the release.
fn write_chart(folder: &Path, mut manifest: serde_json::Value) -> Result<()> {
    manifest["metadata"]["name"] = json!("{{ .Release.Name }}");
    let labels = json!({"app": "{{ .Release.Name }}"});
    manifest["spec"]["selector"]["matchLabels"] = labels.clone();
    manifest["spec"]["template"]["metadata"]["labels"] = labels;
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = json!("{{ .Values.image }}");
    manifest["spec"]["progressDeadlineSeconds"] = json!(10);
    fs::create_dir_all(folder.join("templates"))?;
    fs::write(folder.join("Chart.yaml"), "apiVersion: v2\nname: user\nversion: 0.1.0\n")?;
    fs::write(folder.join("values.yaml"), "image: \"\"\n")?;
    fs::write(folder.join("templates/web.yaml"), manifest.to_string())?;
    Ok(())
}
