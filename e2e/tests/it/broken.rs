//! Bad input: a clear word where the user looks, and nothing lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Event, Pod, ResourceQuota};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use trysail_e2e::{
    PodMonitor, TestNamespace, connect, wait,
    workload::{Deployment, MISSING_IMAGE, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);

fn condition(object: &Value, kind: &str) -> Option<Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_reported_and_takes_no_old_pod() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "image").await?;
        let mut manifest = deployment(face, "web", 3);
        manifest["spec"]["progressDeadlineSeconds"] = json!(5);
        let web = Deployment::create(&client, &namespace, face, manifest).await?;
        web.wait_complete(LIMIT).await?;
        let monitor = PodMonitor::start(&client, &namespace).await;
        monitor.expect_available();
        web.set_image(MISSING_IMAGE).await?;
        wait::until("the deadline to be reported", LIMIT, || async {
            let progressing = condition(&web.get().await?, "Progressing");
            Ok(progressing
                .is_some_and(|c| c["status"] == "False" && c["reason"] == "ProgressDeadlineExceeded"))
        })
        .await?;
        monitor.finish(4, 3).await?;
        namespace.delete().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_template_is_reported_in_the_servers_words() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "refused").await?;
        let mut manifest = deployment(face, "web", 1);
        // Our schema knows the field's type, only the pod's own validation knows that there is no such account.
        manifest["spec"]["template"]["spec"]["serviceAccountName"] = json!("nobody");
        let web = Deployment::create(&client, &namespace, face, manifest).await?;
        wait::until("the refusal to be reported", LIMIT, || async {
            let failure = condition(&web.get().await?, "ReplicaFailure");
            Ok(failure.is_some_and(|c| c["status"] == "True" && c["message"].to_string().contains("nobody")))
        })
        .await?;
        let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
        wait::until("an event FailedCreate", LIMIT, || async {
            let events = events.list(&ListParams::default()).await?;
            Ok(events.items.iter().any(|event| event.reason.as_deref() == Some("FailedCreate")))
        })
        .await?;
        namespace.delete().await
    })
    .await
}

/// Two thousand million replicas against a quota of two: two pods, a condition, no storm; room is used soon.
#[tokio::test(flavor = "multi_thread")]
async fn an_absurd_count_meets_a_quota() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "quota").await?;
        let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), &namespace);
        let quota =
            serde_json::from_value(json!({"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "2"}}}))?;
        quotas.create(&PostParams::default(), &quota).await?;
        wait::until("the quota to be in force", LIMIT, || async {
            Ok(quotas.get("pods").await?.status.and_then(|status| status.hard).is_some())
        })
        .await?;
        let monitor = PodMonitor::start(&client, &namespace).await;
        let web = Deployment::create(&client, &namespace, face, deployment(face, "web", i32::MAX)).await?;
        wait::until("the quota to be named", LIMIT, || async {
            let failure = condition(&web.get().await?, "ReplicaFailure");
            Ok(failure.is_some_and(|c| c["message"].to_string().contains("exceeded quota")))
        })
        .await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        ensure!(pods.list(&ListParams::default()).await?.items.len() <= 2, "the quota was overrun");
        web.scale(2).await?;
        web.wait_complete(LIMIT).await?;
        monitor.finish(2, 0).await?;
        namespace.delete().await
    })
    .await
}
