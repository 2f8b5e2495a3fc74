//! What a user, or somebody else, does wrong: a word where the user looks that says what and what to do, and the rest
//! goes on as if nothing were.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use trysail_e2e::{
    TestNamespace, connect,
    kinds::{cron_job, daemon_set, job, stateful_set},
    object::{Object, condition},
    wait,
    workload::{Face, IMAGE},
};

const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_and_hold_up_nobody_else() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "mistakes").await?;
        let place = Place { client: &client, namespace: &namespace, face };
        tokio::try_join!(
            place.a_host_port_that_is_taken(),
            place.a_pod_name_that_is_taken(),
            place.a_record_of_somebody_else(),
            place.a_pod_that_loses_its_finalizer(),
            place.a_schedule_that_never_comes(),
        )?;
        namespace.delete().await
    })
    .await
}

struct Place<'a> {
    client: &'a Client,
    namespace: &'a str,
    face: Face,
}

impl Place<'_> {
    async fn create(&self, manifest: &Value) -> Result<Object> {
        Object::create(self.client, self.namespace, manifest).await
    }

    async fn pod(&self, name: &str, spec: Value) -> Result<Object> {
        let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.create(&manifest).await
    }

    /// The pod of that node waits and is told of; the other nodes have theirs. When the port is free, so has this one.
    async fn a_host_port_that_is_taken(&self) -> Result<()> {
        let port = if self.face == Face::Crd { 18_431 } else { 18_432 };
        let ports = json!([{"containerPort": 80, "hostPort": port}]);
        let mut container = json!({"name": "main", "image": IMAGE, "args": ["pause"], "ports": ports});
        let grace = json!(1);
        let spec =
            json!({"nodeName": "w1", "terminationGracePeriodSeconds": grace, "containers": [container]});
        let holder = self.pod("holder", spec).await?;
        holder.wait("to run", LIMIT, |pod| pod["status"]["phase"] == "Running").await?;
        let mut manifest = daemon_set(self.face, "ports");
        container["name"] = json!("main");
        manifest["spec"]["template"]["spec"]["containers"] = json!([container]);
        let ports = self.create(&manifest).await?;
        let told = ports.wait_for_event("FailedPlacement", LIMIT).await?;
        ensure!(told.contains("on node w1") && told.contains("ports"), "it says {told:?}");
        ports.wait("to be on the other node", LIMIT, |set| set["status"]["numberReady"] == 1).await?;
        holder.delete(&DeleteParams::default()).await?;
        ports.wait_complete(LIMIT).await?;
        Ok(())
    }

    async fn a_pod_name_that_is_taken(&self) -> Result<()> {
        let spec = json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "args": ["pause"]}],
        });
        let stranger = self.pod("names-1", spec).await?;
        let names = self.create(&stateful_set(self.face, "names", 2)).await?;
        let is_told = |set: &Value| {
            condition(set, "ReplicaFailure").is_some_and(|told| {
                told["reason"] == "PodNameTaken" && told["message"].to_string().contains("names-1")
            })
        };
        let told = names.wait("to tell", LIMIT, is_told).await?;
        ensure!(told["status"]["readyReplicas"] == 1, "the other replica waits: {}", told["status"]);
        let event = names.wait_for_event("PodNameTaken", LIMIT).await?;
        ensure!(event.contains("delete it"), "it says no remedy: {event:?}");
        ensure!(!stranger.is_gone().await?, "a stranger's pod was deleted");
        stranger.delete(&DeleteParams::default()).await?;
        let done = names.wait_complete(LIMIT).await?;
        ensure!(condition(&done, "ReplicaFailure").is_none(), "it still tells: {}", done["status"]);
        Ok(())
    }

    /// The name that the record of a template would have is somebody else's: another one is found, and his stays as
    /// it is.
    async fn a_record_of_somebody_else(&self) -> Result<()> {
        let manifest = stateful_set(self.face, "records", 1);
        let first = self.create(&manifest).await?;
        let done = first.wait_complete(LIMIT).await?;
        let name = done["status"]["updateRevision"].as_str().context("no revision")?.to_owned();
        first.delete_and_wait(&DeleteParams::foreground(), LIMIT).await?;

        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        let map = serde_json::from_value(json!({"metadata": {"generateName": "owner-"}}))?;
        let owner = maps.create(&PostParams::default(), &map).await?;
        let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(),
            "uid": owner.uid().context("no uid")?, "controller": true}]);
        let record = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 7, "data": {"of": "somebody else"},
            "metadata": {"name": name, "labels": {"app": "records"}, "ownerReferences": owners},
        });
        let record = self.create(&record).await?;
        let before = record.get().await?;

        let second = self.create(&manifest).await?;
        let done = second.wait_complete(LIMIT).await?;
        ensure!(done["status"]["updateRevision"] != *name, "it took the record of somebody else");
        ensure!(record.get().await? == before, "it changed the record of somebody else");
        Ok(())
    }

    /// It would end without being counted: it gets the finalizer back, and the user hears of it.
    async fn a_pod_that_loses_its_finalizer(&self) -> Result<()> {
        let finish = "while [ ! -e /tmp/finish ]; do sleep 1; done";
        let tracked = self.create(&job(self.face, "tracked", 1, finish)).await?;
        tracked.wait("to run", LIMIT, |job| job["status"]["ready"] == 1).await?;
        let selector = kube::api::ListParams::default().labels("app=tracked");
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let name = pods.list(&selector).await?.items.first().context("no pod")?.name_any();
        let strip = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
        pods.patch(&name, &kube::api::PatchParams::default(), &strip).await?;
        let told = tracked.wait_for_event("FinalizerRestored", LIMIT).await?;
        ensure!(told.contains(&name) && told.contains("find out who"), "it says {told:?}");
        wait::until("the finalizer to be back", LIMIT, || async {
            Ok(!pods.get(&name).await?.finalizers().is_empty())
        })
        .await?;
        tracked.delete_and_wait(&DeleteParams::background(), LIMIT).await
    }

    async fn a_schedule_that_never_comes(&self) -> Result<()> {
        let mut manifest = cron_job(self.face, "never", "true");
        manifest["spec"]["schedule"] = json!("30 2 31 2 *");
        let never = self.create(&manifest).await?;
        let told = never.wait_for_event("InvalidSchedule", LIMIT).await?;
        ensure!(told.contains("30 2 31 2 *") && told.contains("no moment"), "it says {told:?}");
        Ok(())
    }
}
