//! Workloads of either face, as untyped objects: the same test runs against our kinds and the native ones.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{object, wait};

/// An image that every test cluster has, twice under different names, so that rollouts have somewhere to go.
pub const IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// The other one.
pub const OTHER_IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.55";
/// One that no node has.
pub const MISSING_IMAGE: &str = "registry.k8s.io/e2e-test-images/no-such-image:1";

/// Which kinds a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// apps.trysail.dev and batch.trysail.dev
    Crd,
    /// apps and batch
    Native,
}

impl Face {
    /// The API of a kind in this face.
    pub fn api(self, client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
        object::api(client, namespace, self.api_version(kind), kind)
    }

    /// `apiVersion` of a kind in this face.
    pub fn api_version(self, kind: &str) -> &'static str {
        match (self, kind) {
            (Face::Crd, "Job" | "CronJob") => "batch.trysail.dev/v1",
            (Face::Crd, _) => "apps.trysail.dev/v1",
            (Face::Native, "ReplicationController") => "v1",
            (Face::Native, "Job" | "CronJob") => "batch/v1",
            (Face::Native, _) => "apps/v1",
        }
    }
}

/// The faces that the cluster under test is known to serve: `TRYSAIL_E2E_FACES` is `crd`, `native`, or both separated
/// by a comma.
pub fn faces() -> Vec<Face> {
    let faces = std::env::var("TRYSAIL_E2E_FACES").unwrap_or_else(|_| "crd".to_owned());
    faces.split(',').map(|face| if face == "native" { Face::Native } else { Face::Crd }).collect()
}

/// Runs the same test for every face, side by side.
pub async fn in_every_face(test: impl AsyncFn(Face) -> Result<()>) -> Result<()> {
    let test = &test;
    let runs =
        faces().into_iter().map(|face| async move { test(face).await.with_context(|| format!("{face:?}")) });
    futures::future::try_join_all(runs).await.map(drop)
}

/// A Deployment under test.
#[derive(Clone, Debug)]
pub struct Deployment {
    api: Api<DynamicObject>,
    /// Its name; also the value of its pods' label `app`.
    pub name: String,
}

/// A manifest of a Deployment of pods that become ready at once and stop quickly.
pub fn deployment(face: Face, name: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": face.api_version("Deployment"),
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "main", "image": IMAGE, "args": ["pause"]}],
                },
            },
        },
    })
}

impl Deployment {
    /// Creates the object of that manifest.
    pub async fn create(client: &Client, namespace: &str, face: Face, manifest: Value) -> Result<Self> {
        let api = face.api(client, namespace, "Deployment");
        let object: DynamicObject = serde_json::from_value(manifest)?;
        let created =
            api.create(&PostParams::default(), &object).await.context("failed to create the Deployment")?;
        Ok(Self { api, name: created.metadata.name.context("no name")? })
    }

    /// The object as it is now.
    pub async fn get(&self) -> Result<Value> {
        Ok(serde_json::to_value(self.api.get(&self.name).await?)?)
    }

    /// Applies a JSON merge patch.
    pub async fn patch(&self, patch: Value) -> Result<()> {
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Sets `spec.replicas`.
    pub async fn scale(&self, replicas: i32) -> Result<()> {
        self.patch(json!({"spec": {"replicas": replicas}})).await
    }

    /// Sets the container's image.
    pub async fn set_image(&self, image: &str) -> Result<()> {
        let containers = json!([{"name": "main", "image": image, "args": ["pause"]}]);
        self.patch(json!({"spec": {"template": {"spec": {"containers": containers}}}})).await
    }

    /// Changes the template in a way that no image is needed for.
    pub async fn set_annotation(&self, value: &str) -> Result<()> {
        self.patch(json!({"spec": {"template": {"metadata": {"annotations": {"e2e": value}}}}})).await
    }

    /// Waits until the rollout of the present spec is complete, whatever happens to the API server meanwhile.
    pub async fn wait_complete(&self, limit: Duration) -> Result<()> {
        let result = wait::until(&format!("Deployment {} to complete", self.name), limit, || async {
            Ok(is_complete(&self.get().await?))
        })
        .await;
        if let Err(error) = result {
            bail!(
                "{error:#}; it is: {}",
                self.get().await.map_or_else(|e| e.to_string(), |o| o["status"].to_string())
            );
        }
        Ok(())
    }
}

/// As `kubectl rollout status` judges it, and no old replica left.
pub fn is_complete(object: &Value) -> bool {
    let status = &object["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    object["metadata"]["generation"].as_i64() == status["observedGeneration"].as_i64()
        && [count("replicas"), count("updatedReplicas"), count("availableReplicas")] == [wanted; 3]
}
