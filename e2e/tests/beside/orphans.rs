//! `kubectl delete --cascade=orphan`, then the same manifest again: the new owner takes over pods and the record of
//! their template, and restarts nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::DeleteParams;
use serde_json::Value;
use trysail_e2e::{
    TestNamespace, connect,
    history::{History, alive, created},
    kinds::{daemon_set, stateful_set},
    object::Object,
};

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_new_owner_takes_over_what_was_orphaned() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "orphans").await?;
        let kinds = [("v1", "Pod"), ("apps/v1", "ControllerRevision")];
        let history = History::start(&client, &namespace, &kinds).await;
        let manifests = [stateful_set(face, "set", 2), daemon_set(face, "daemons")];
        let mut owners = Vec::new();
        for manifest in &manifests {
            owners.push(Object::create(&client, &namespace, manifest).await?);
        }
        for owner in &owners {
            owner.wait_complete(LIMIT).await?;
            owner.delete_and_wait(&DeleteParams::orphan(), LIMIT).await?;
        }
        let made = |entries: &[_]| created(entries, |_| true).len();
        let before = made(&history.entries());
        let mut uids = Vec::new();
        for manifest in &manifests {
            uids.push(Object::create(&client, &namespace, manifest).await?);
        }
        for owner in &uids {
            owner.wait_complete(LIMIT).await?;
        }
        let entries = history.finish().await?;
        ensure!(made(&entries) == before, "{} pods and records became {}", before, made(&entries));
        let is_owned = |object: &&Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.into_iter().flatten().any(|owner| uids.iter().any(|new| owner["uid"] == *new.uid))
        };
        let left = alive(&entries, |_| true);
        ensure!(left.len() == before && left.values().all(|object| is_owned(object)), "not all were adopted");
        namespace.delete().await
    })
    .await
}
