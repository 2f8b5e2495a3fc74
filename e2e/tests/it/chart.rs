//! The chart's life under Helm beside a Deployment that must not notice, and charts of users with our kinds in them.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use trysail_e2e::{
    PodMonitor, TestNamespace, connect, manager, program, wait,
    workload::{Deployment, Face, IMAGE, MISSING_IMAGE, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);

/// Upgrade, test, uninstall and install again: the objects stay, their pods go on running, and afterwards
/// they are managed again. All of it in a namespace that enforces the Pod Security Standard `restricted`.
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_outlives_the_release() -> Result<()> {
    let client = connect().await?;
    let home = tempfile::tempdir()?;
    enforce_restricted(&client).await?;
    let namespace = TestNamespace::create(&client, "release").await?;
    let web = Deployment::create(&client, &namespace, Face::Crd, deployment(Face::Crd, "web", 2)).await?;
    web.wait_complete(LIMIT).await?;
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

    let mut uninstall = program::helm(home.path())?;
    uninstall.args(["uninstall", program::RELEASE, "-n", program::RELEASE_NAMESPACE, "--wait"]);
    program::run(&mut uninstall)?;
    wait::until("the managers to go", LIMIT, || async { Ok(manager::pods(&client).await?.is_empty()) })
        .await?;
    // Served and stored still, and nobody acts on it.
    web.scale(3).await?;
    ensure!(monitor.seen().created == 2, "a pod was created with no manager there");

    program::install_chart(home.path(), &[])?;
    web.wait_complete(LIMIT).await?;
    let seen = monitor.finish(3, 2).await?;
    ensure!(seen.created == 3, "pods were restarted: {} were created where 3 are needed", seen.created);
    namespace.delete().await
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
