//! What Kubernetes' own controllers do with our kinds through `/scale`: the autoscaler and the disruption budget.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::{
    autoscaling::v2::HorizontalPodAutoscaler, core::v1::Pod, policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, ResourceExt,
    api::{EvictParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use trysail_e2e::{
    PodMonitor, TestNamespace, connect, wait,
    workload::{Deployment, Face, MISSING_IMAGE, deployment},
};

/// The autoscaler looks every 15 s.
const LIMIT: Duration = Duration::from_secs(90);

/// A native HorizontalPodAutoscaler reads our scale and, though there are no metrics, raises it to its minimum.
#[tokio::test(flavor = "multi_thread")]
async fn a_native_autoscaler_scales_a_deployment() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "hpa").await?;
        let web = Deployment::create(&client, &namespace, face, deployment(face, "web", 1)).await?;
        let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), &namespace);
        let target =
            json!({"apiVersion": face.api_version("Deployment"), "kind": "Deployment", "name": "web"});
        let cpu = json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        let autoscaler = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4, "metrics": [cpu]},
        }))?;
        autoscalers.create(&PostParams::default(), &autoscaler).await?;
        wait::until("the autoscaler to set its minimum", LIMIT, || async {
            Ok(web.get().await?["spec"]["replicas"] == 2)
        })
        .await?;
        web.wait_complete(LIMIT).await?;
        wait::until("the autoscaler to see two replicas", LIMIT, || async {
            let seen = serde_json::to_value(autoscalers.get("web").await?)?;
            let able = condition(&seen, "AbleToScale");
            Ok(able["status"] == "True" && seen["status"]["currentReplicas"] == 2)
        })
        .await?;
        namespace.delete().await
    })
    .await
}

fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

/// A budget in terms of `maxUnavailable` works only where the pods' owner has a `/scale`: it tells how many pods
/// there should be. However fast pods are evicted, one at a time is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_disruption_budget_counts_on_our_scale() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "pdb").await?;
        let web = Deployment::create(&client, &namespace, face, deployment(face, "web", 3)).await?;
        web.wait_complete(LIMIT).await?;
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), &namespace);
        let budget = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        }))?;
        budgets.create(&PostParams::default(), &budget).await?;
        wait::until("one disruption of three pods to be allowed", LIMIT, || async {
            let status = budgets.get("web").await?.status.unwrap_or_default();
            Ok((status.disruptions_allowed, status.expected_pods) == (Some(1), Some(3)))
        })
        .await?;
        let monitor = PodMonitor::start(&client, &namespace).await;
        monitor.expect_available();
        let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        for pod in pods(&client, &namespace).await? {
            // The client repeats it as long as the budget says "too many requests".
            api.evict(&pod, &EvictParams::default()).await?;
        }
        wait::until("three successors", LIMIT, || async { Ok(monitor.seen().created == 6) }).await?;
        web.wait_complete(LIMIT).await?;
        monitor.finish(3, 2).await?;
        namespace.delete().await
    })
    .await
}

/// In the middle of a rollout a budget in per cent is of all pods that our ReplicaSets want together, for it asks the pods'
/// owners; of a native ReplicaSet it knows the Deployment. What is surged counts here, so the budget allows no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_percentage_counts_what_is_surged() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "percent").await?;
        let mut manifest = deployment(face, "web", 4);
        manifest["spec"]["strategy"] =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        let web = Deployment::create(&client, &namespace, face, manifest).await?;
        web.wait_complete(LIMIT).await?;
        web.set_image(MISSING_IMAGE).await?;
        wait::until("the rollout to be stuck", LIMIT, || async {
            Ok(web.get().await?["status"]["replicas"] == 5)
        })
        .await?;
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), &namespace);
        let (expected, desired) = if face == Face::Crd { (5, 3) } else { (4, 2) };
        for (field, healthy) in [("minAvailable", desired), ("maxUnavailable", 2)] {
            let mut budget = json!({
                "metadata": {"name": field.to_lowercase()},
                "spec": {"selector": {"matchLabels": {"app": "web"}}},
            });
            budget["spec"][field] = json!("50%");
            budgets.create(&PostParams::default(), &serde_json::from_value(budget)?).await?;
            wait::until(&format!("{field} to be counted"), LIMIT, || async {
                let status = budgets.get(&field.to_lowercase()).await?.status.unwrap_or_default();
                let seen = (status.expected_pods, status.desired_healthy, status.disruptions_allowed);
                Ok(seen == (Some(expected), Some(healthy), Some(4 - healthy)))
            })
            .await?;
        }
        namespace.delete().await
    })
    .await
}

async fn pods(client: &Client, namespace: &str) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(pods.list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect())
}
