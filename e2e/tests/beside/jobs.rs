//! How Jobs go: by themselves when their time is up, and when somebody deletes them in the middle of their work. What
//! holds finished pods until they are counted holds nothing then.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use trysail_e2e::{TestNamespace, connect, kinds::job, object::Object, wait};

const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_goes_when_its_time_is_up() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "ttl").await?;
        let mut manifest = job(face, "brief", 2, "true");
        manifest["spec"]["ttlSecondsAfterFinished"] = json!(1);
        let brief = Object::create(&client, &namespace, &manifest).await?;
        wait::until("the Job to go", LIMIT, || async { brief.is_gone().await }).await?;
        no_pods(&client, &namespace).await?;
        namespace.delete().await
    })
    .await
}

/// By each of the two ways in which kubectl and helm do it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_deleted_holds_no_pod() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        for params in [DeleteParams::background(), DeleteParams::foreground()] {
            let namespace = TestNamespace::create(&client, "deleted").await?;
            let mut manifest = job(face, "long", 4, "sleep 3600");
            manifest["spec"]["parallelism"] = json!(2);
            let long = Object::create(&client, &namespace, &manifest).await?;
            long.wait("to run", LIMIT, |job| job["status"]["ready"] == 2).await?;
            long.delete_and_wait(&params, LIMIT).await?;
            no_pods(&client, &namespace).await?;
            namespace.delete().await?;
        }
        Ok(())
    })
    .await
}

async fn no_pods(client: &Client, namespace: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    wait::until("the pods to go", LIMIT, || async {
        Ok(pods.list(&ListParams::default()).await?.items.is_empty())
    })
    .await
}
