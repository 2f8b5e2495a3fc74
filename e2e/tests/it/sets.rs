//! ReplicaSets and ReplicationControllers by themselves: exactly so many pods, adopted and released by label, and
//! a Deployment that takes back the ReplicaSets that it lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use trysail_e2e::{
    PodMonitor, TestNamespace, connect, wait,
    workload::{Deployment, Face, IMAGE, deployment},
};

const LIMIT: Duration = Duration::from_secs(90);

fn set(face: Face, kind: &str, name: &str, replicas: i32) -> Value {
    let labels = json!({"app": name});
    let selector =
        if kind == "ReplicationController" { labels.clone() } else { json!({"matchLabels": labels}) };
    json!({
        "apiVersion": face.api_version(kind),
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": selector,
            "template": {"metadata": {"labels": labels}, "spec": pod_spec()},
        },
    })
}

fn pod_spec() -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": IMAGE, "args": ["pause"]}],
    })
}

/// The controlling owner's uid.
fn owner(pod: &Pod) -> Option<String> {
    pod.owner_references().iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone())
}

struct Set {
    api: Api<DynamicObject>,
    pods: Api<Pod>,
    uid: String,
}

impl Set {
    async fn create(client: &Client, namespace: &str, face: Face, kind: &str, name: &str) -> Result<Self> {
        let api = face.api(client, namespace, kind);
        let object = serde_json::from_value(set(face, kind, name, 2))?;
        let created =
            api.create(&PostParams::default(), &object).await.context("failed to create the set")?;
        let pods = Api::namespaced(client.clone(), namespace);
        Ok(Self { api, pods, uid: created.uid().context("no uid")? })
    }

    async fn owned(&self) -> Result<Vec<Pod>> {
        let pods = self.pods.list(&ListParams::default()).await?.items;
        let running = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(running.filter(|pod| owner(pod).as_ref() == Some(&self.uid)).collect())
    }

    async fn wait_ready(&self, name: &str, count: usize) -> Result<()> {
        wait::until(&format!("{count} ready pods of {name}"), LIMIT, || async {
            let status = serde_json::to_value(self.api.get(name).await?)?["status"].clone();
            let ready = status["readyReplicas"].as_u64().unwrap_or(0);
            Ok(ready == count as u64 && self.owned().await?.len() == count)
        })
        .await
    }
}

/// An orphan with the right labels is adopted instead of a new pod; a pod that loses the label is released and
/// replaced; a pod that is deleted is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn pods_are_adopted_released_and_replaced() -> Result<()> {
    super::in_every_face(async |face| {
        for kind in ["ReplicaSet", "ReplicationController"] {
            let client = connect().await?;
            let namespace = TestNamespace::create(&client, "claim").await?;
            let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            let orphan: Pod = serde_json::from_value(json!({
                "metadata": {"name": "orphan", "labels": {"app": "web"}}, "spec": pod_spec(),
            }))?;
            pods.create(&PostParams::default(), &orphan).await?;
            let monitor = PodMonitor::start(&client, &namespace).await;
            let web = Set::create(&client, &namespace, face, kind, "web").await?;
            web.wait_ready("web", 2).await?;
            ensure!(web.owned().await?.iter().any(|pod| pod.name_any() == "orphan"), "not adopted");

            let relabel = Patch::Merge(json!({"metadata": {"labels": {"app": "released"}}}));
            pods.patch("orphan", &PatchParams::default(), &relabel).await?;
            wait::until("the orphan to be released", LIMIT, || async {
                Ok(owner(&pods.get("orphan").await?).is_none())
            })
            .await?;
            web.wait_ready("web", 2).await?;

            let victim = web.owned().await?.pop().context("no pod")?;
            pods.delete(&victim.name_any(), &DeleteParams::default()).await?;
            web.wait_ready("web", 2).await?;
            let seen = monitor.finish(3, 0).await?;
            ensure!(seen.created == 4, "{kind}: {} pods were created where 4 are needed", seen.created);
            namespace.delete().await?;
        }
        Ok(())
    })
    .await
}

/// `kubectl delete --cascade=orphan` and a new Deployment of the same name: not one pod is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_deployment_takes_over_orphaned_replica_sets() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "orphan").await?;
        let web = Deployment::create(&client, &namespace, face, deployment(face, "web", 2)).await?;
        web.wait_complete(LIMIT).await?;
        let monitor = PodMonitor::start(&client, &namespace).await;
        monitor.expect_available();
        let api = face.api(&client, &namespace, "Deployment");
        api.delete("web", &DeleteParams::orphan()).await?;
        wait::until("the Deployment to go", LIMIT, || async { Ok(api.get_opt("web").await?.is_none()) })
            .await?;
        let web = Deployment::create(&client, &namespace, face, deployment(face, "web", 2)).await?;
        web.wait_complete(LIMIT).await?;
        let sets = face.api(&client, &namespace, "ReplicaSet").list(&ListParams::default()).await?.items;
        ensure!(sets.len() == 1 && sets[0].owner_references().len() == 1, "{sets:?}");
        let seen = monitor.finish(2, 2).await?;
        ensure!(seen.created == 2, "pods were restarted");
        namespace.delete().await
    })
    .await
}

/// Old revisions go when there are more than the user wants to keep.
#[tokio::test(flavor = "multi_thread")]
async fn history_is_pruned() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "history").await?;
        let mut manifest = deployment(face, "web", 1);
        manifest["spec"]["revisionHistoryLimit"] = json!(1);
        let web = Deployment::create(&client, &namespace, face, manifest).await?;
        web.wait_complete(LIMIT).await?;
        for round in 0..2 {
            web.set_annotation(&round.to_string()).await?;
            web.wait_complete(LIMIT).await?;
        }
        let sets = face.api(&client, &namespace, "ReplicaSet");
        wait::until("two ReplicaSets", LIMIT, || async {
            Ok(sets.list(&ListParams::default()).await?.items.len() == 2)
        })
        .await?;
        namespace.delete().await
    })
    .await
}
