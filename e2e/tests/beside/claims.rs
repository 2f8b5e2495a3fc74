//! A StatefulSet's claims stay when it is scaled down, unless its policy says that they go with their pod.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use trysail_e2e::{TestNamespace, connect, kinds::stateful_set, object::Object, wait};

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn claims_follow_the_policy() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "claims").await?;
        let volumes = Volumes::create(&client, &namespace, 2).await?;
        let mut manifest = stateful_set(face, "set", 2);
        manifest["spec"]["volumeClaimTemplates"] = json!([{
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": &*namespace,
                "resources": {"requests": {"storage": "1Mi"}},
            },
        }]);
        manifest["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "data", "mountPath": "/data"}]);
        let set = Object::create(&client, &namespace, &manifest).await?;
        set.wait_complete(LIMIT).await?;

        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
        set.patch(json!({"spec": {"replicas": 1}})).await?;
        set.wait_complete(LIMIT).await?;
        ensure!(claims.get_opt("data-set-1").await?.is_some(), "the claim did not stay");
        let policy = json!({"whenScaled": "Delete", "whenDeleted": "Retain"});
        set.patch(json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy, "replicas": 0}})).await?;
        wait::until("the claim to go with its pod", LIMIT, || async {
            Ok(claims.get_opt("data-set-0").await?.is_none())
        })
        .await?;
        let left = claims.list(&ListParams::default()).await?.items;
        // Nobody asked for the one whose pod had gone before.
        ensure!(left.len() == 1 && left[0].metadata.deletion_timestamp.is_none(), "{left:?}");
        namespace.delete().await?;
        volumes.delete().await
    })
    .await
}

/// Directories of the nodes as volumes of a class that is called like the namespace.
struct Volumes {
    api: Api<PersistentVolume>,
    names: Vec<String>,
}

impl Volumes {
    async fn create(client: &Client, class: &str, count: usize) -> Result<Self> {
        let api: Api<PersistentVolume> = Api::all(client.clone());
        let names: Vec<String> = (0..count).map(|at| format!("{class}-{at}")).collect();
        for name in &names {
            let volume = serde_json::from_value(json!({
                "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                    "hostPath": {"path": format!("/tmp/{name}"), "type": "DirectoryOrCreate"},
                },
            }))?;
            api.create(&PostParams::default(), &volume).await?;
        }
        Ok(Self { api, names })
    }

    async fn delete(self) -> Result<()> {
        for name in &self.names {
            self.api.delete(name, &DeleteParams::default()).await?;
        }
        Ok(())
    }
}
