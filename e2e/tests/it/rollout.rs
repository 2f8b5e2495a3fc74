//! What users do to a Deployment, watched at every moment: never more pods than replicas + surge, never fewer
//! ready ones than replicas − unavailable.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::{Client, api::ListParams};
use serde_json::json;
use trysail_e2e::{
    PodMonitor, TestNamespace, connect, wait,
    workload::{Deployment, Face, OTHER_IMAGE, deployment},
};

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_keeps_its_promises_at_every_moment() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "rollout").await?;
        let monitor = PodMonitor::start(&client, &namespace).await;
        let mut manifest = deployment(face, "web", 4);
        manifest["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
        let web = Deployment::create(&client, &namespace, face, manifest).await?;
        web.wait_complete(LIMIT).await?;
        monitor.expect_available();
        web.set_image(OTHER_IMAGE).await?;
        web.wait_complete(LIMIT).await?;
        let seen = monitor.finish(5, 3).await?;
        ensure!(seen.created == 8, "{} pods were created where 8 are needed", seen.created);
        namespace.delete().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_never_overlaps() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "recreate").await?;
        let monitor = PodMonitor::start(&client, &namespace).await;
        let mut manifest = deployment(face, "web", 2);
        manifest["spec"]["strategy"] = json!({"type": "Recreate"});
        let web = Deployment::create(&client, &namespace, face, manifest).await?;
        web.wait_complete(LIMIT).await?;
        web.set_annotation("two").await?;
        web.wait_complete(LIMIT).await?;
        let seen = monitor.finish(2, 0).await?;
        ensure!(seen.created == 4, "{} pods were created where 4 are needed", seen.created);
        namespace.delete().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_deployment_scales_but_does_not_roll_out() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "paused").await?;
        let web = Deployment::create(&client, &namespace, face, deployment(face, "web", 2)).await?;
        web.wait_complete(LIMIT).await?;
        web.patch(json!({"spec": {"paused": true}})).await?;
        web.set_annotation("while-paused").await?;
        web.scale(3).await?;
        wait::until("three old replicas", LIMIT, || async {
            Ok(web.get().await?["status"]["availableReplicas"] == 3)
        })
        .await?;
        ensure!(replica_sets(&client, &namespace, face).await? == 1, "a paused Deployment rolled out");
        web.patch(json!({"spec": {"paused": null}})).await?;
        web.wait_complete(LIMIT).await?;
        ensure!(replica_sets(&client, &namespace, face).await? == 2, "resuming did not roll out");
        namespace.delete().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_goes_through_the_scale_subresource() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "scale").await?;
        let web = Deployment::create(&client, &namespace, face, deployment(face, "web", 1)).await?;
        web.wait_complete(LIMIT).await?;
        let api = face.api(&client, &namespace, "Deployment");
        let scale = api.get_scale("web").await?;
        ensure!(scale.status.as_ref().and_then(|s| s.selector.as_deref()) == Some("app=web"), "{scale:?}");
        let patch = kube::api::Patch::Merge(json!({"spec": {"replicas": 3}}));
        api.patch_scale("web", &kube::api::PatchParams::default(), &patch).await?;
        web.wait_complete(LIMIT).await?;
        web.scale(0).await?;
        web.wait_complete(LIMIT).await?;
        namespace.delete().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_deployment_collects_everything() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "delete").await?;
        let web = Deployment::create(&client, &namespace, face, deployment(face, "web", 2)).await?;
        web.wait_complete(LIMIT).await?;
        face.api(&client, &namespace, "Deployment")
            .delete("web", &kube::api::DeleteParams::foreground())
            .await?;
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
            kube::Api::namespaced(client.clone(), &namespace);
        wait::until("no pod and no ReplicaSet", LIMIT, || async {
            let pods = pods.list(&ListParams::default()).await?.items.len();
            Ok(pods == 0 && replica_sets(&client, &namespace, face).await? == 0)
        })
        .await?;
        namespace.delete().await
    })
    .await
}

async fn replica_sets(client: &Client, namespace: &str, face: Face) -> Result<usize> {
    Ok(face.api(client, namespace, "ReplicaSet").list(&ListParams::default()).await?.items.len())
}
