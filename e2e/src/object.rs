//! An object under test, of any kind and untyped: the same test runs against our kinds and the native ones.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::wait;

/// The API of a kind in a namespace, for kinds whose plural is regular.
pub fn api(client: &Client, namespace: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// An object by its name.
#[derive(Clone, Debug)]
pub struct Object {
    api: Api<DynamicObject>,
    events: Api<Event>,
    /// Its kind, as in its manifest.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Object {
    /// Creates the object of that manifest.
    pub async fn create(client: &Client, namespace: &str, manifest: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a manifest says what it is of");
        let (api_version, kind) = (text(&manifest["apiVersion"])?, text(&manifest["kind"])?);
        let api = api(client, namespace, &api_version, &kind);
        let object: DynamicObject = serde_json::from_value(manifest.clone())?;
        let created = api
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("failed to create the {kind}"))?;
        let (name, uid) =
            (created.metadata.name.context("no name")?, created.metadata.uid.context("no uid")?);
        Ok(Self { api, events: Api::namespaced(client.clone(), namespace), kind, name, uid })
    }

    /// The object as it is now.
    pub async fn get(&self) -> Result<Value> {
        Ok(serde_json::to_value(self.api.get(&self.name).await?)?)
    }

    /// Its status as it is now.
    pub async fn status(&self) -> Result<Value> {
        Ok(self.get().await?["status"].clone())
    }

    /// True when there is no object of that name any more.
    pub async fn is_gone(&self) -> Result<bool> {
        Ok(self.api.get_opt(&self.name).await?.is_none())
    }

    /// Applies a JSON merge patch.
    pub async fn patch(&self, patch: Value) -> Result<()> {
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Changes the template of its pods in a way that no image is needed for.
    pub async fn set_annotation(&self, value: &str) -> Result<()> {
        self.patch(json!({"spec": {"template": {"metadata": {"annotations": {"e2e": value}}}}})).await
    }

    /// Deletes it.
    pub async fn delete(&self, params: &DeleteParams) -> Result<()> {
        self.api.delete(&self.name, params).await?;
        Ok(())
    }

    /// Deletes it and waits until it is gone.
    pub async fn delete_and_wait(&self, params: &DeleteParams, limit: Duration) -> Result<()> {
        self.delete(params).await?;
        let what = format!("{} {} to be gone", self.kind, self.name);
        wait::until(&what, limit, || async { self.is_gone().await }).await
    }

    /// Waits until it is as `check` wants it, whatever happens to the API server meanwhile.
    pub async fn wait(&self, what: &str, limit: Duration, check: impl Fn(&Value) -> bool) -> Result<Value> {
        let result = wait::until(&format!("{} {} {what}", self.kind, self.name), limit, || async {
            Ok(check(&self.get().await?))
        })
        .await;
        let now = self.get().await;
        match result {
            Ok(()) => now,
            Err(error) => {
                let now = now.map_or_else(|error| error.to_string(), |object| object["status"].to_string());
                bail!("{error:#}; its status is: {now}")
            }
        }
    }

    /// Waits until its controller reports that what is wanted is there: for kinds that have a rollout.
    pub async fn wait_complete(&self, limit: Duration) -> Result<Value> {
        self.wait("to be rolled out", limit, is_rolled_out).await
    }

    /// Waits until its controller has seen the present spec.
    pub async fn wait_observed(&self, limit: Duration) -> Result<Value> {
        self.wait("to be observed", limit, is_observed).await
    }

    /// Waits for an event about it with that reason; returns what it says.
    pub async fn wait_for_event(&self, reason: &str, limit: Duration) -> Result<String> {
        let about = format!("involvedObject.uid={},reason={reason}", self.uid);
        let list = ListParams::default().fields(&about);
        let what = format!("an event {reason} about {} {}", self.kind, self.name);
        wait::until(&what, limit, || async {
            Ok(self.events.list(&list).await?.items.pop().and_then(|event| event.message))
        })
        .await
    }
}

/// The status is about the present spec.
pub fn is_observed(object: &Value) -> bool {
    object["metadata"]["generation"] == object["status"]["observedGeneration"]
}

/// As `kubectl rollout status` judges it, and nothing old left.
pub fn is_rolled_out(object: &Value) -> bool {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    is_observed(object)
        && match object["kind"].as_str() {
            Some("StatefulSet") => {
                let counts = [count("replicas"), count("updatedReplicas"), count("availableReplicas")];
                counts == [wanted; 3] && status["currentRevision"] == status["updateRevision"]
            }
            Some("DaemonSet") => {
                let desired = count("desiredNumberScheduled");
                let fields = ["currentNumberScheduled", "updatedNumberScheduled", "numberAvailable"];
                desired > 0 && fields.map(count) == [desired; 3] && count("numberMisscheduled") == 0
            }
            _ => [count("replicas"), count("updatedReplicas"), count("availableReplicas")] == [wanted; 3],
        }
}

/// The condition of that type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// The condition of that type is there and true.
pub fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}
