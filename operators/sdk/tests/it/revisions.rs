//! ControllerRevisions as kube-controller-manager writes them: the golden file that `trysail-workloads` compares its
//! own bytes with is compared here with what the real one does. `UPDATE=1` writes it anew; a template is added by
//! adding an entry of `name` and `template` and doing so.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use tokio::time::{sleep, timeout};
use trysail_sdk::{
    client::Client,
    core::{Face, Key, Resource, resource::CONTROLLER_REVISIONS},
};

use crate::apiserver;

/// A template as the API server sends it, and what became of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    template: Box<RawValue>,
    /// Name of the StatefulSet's revision, after the StatefulSet's own.
    #[serde(default)]
    hash: String,
    #[serde(default)]
    stateful_set: Option<Box<RawValue>>,
    #[serde(default)]
    daemon_set: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Owner {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    template: Box<RawValue>,
}

#[derive(Deserialize)]
struct Revisions {
    items: Vec<Revision>,
}

#[derive(Deserialize)]
struct Revision {
    metadata: Metadata,
    data: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    uid: String,
    #[serde(default)]
    owner_references: Vec<Value>,
}

const PATIENCE: Duration = Duration::from_secs(120);

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../workloads/tests/revisions/golden.json")
}

#[tokio::test]
async fn the_golden_revisions_are_what_kube_controller_manager_writes() {
    if apiserver::switched_off() {
        return;
    }
    let held = std::fs::read_to_string(golden()).unwrap();
    let mut entries: Vec<Entry> = serde_json::from_str(&held).unwrap();
    let server = apiserver::shared().await;
    let client = server.client();
    let namespace = server.namespace().await;
    let _manager = server.controller_manager("statefulset-controller,daemonset-controller");
    for entry in &mut entries {
        for kind in [Resource::stateful_sets(Face::Native), Resource::daemon_sets(Face::Native)] {
            create(&client, &namespace, kind, entry).await;
        }
        let (template, revision) =
            recorded(&client, &namespace, Resource::stateful_sets(Face::Native), &entry.name).await;
        let prefix = format!("{}-", entry.name);
        let hash = revision.metadata.name.strip_prefix(&prefix).unwrap();
        hash.clone_into(&mut entry.hash);
        entry.stateful_set = Some(revision.data);
        let (same, revision) =
            recorded(&client, &namespace, Resource::daemon_sets(Face::Native), &entry.name).await;
        assert_eq!(same.get(), template.get(), "both kinds have the same template");
        entry.daemon_set = Some(revision.data);
        entry.template = template;
    }
    let found = serde_json::to_string_pretty(&entries).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(golden(), &found).unwrap();
    }
    let held = std::fs::read_to_string(golden()).unwrap();
    assert!(held == found, "{} is not what is written today: run with UPDATE=1", golden().display());
}

async fn create(client: &Client, namespace: &str, kind: Resource, entry: &Entry) {
    let mut body = json!({
        "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": entry.name},
        "spec": {"selector": {"matchLabels": {"app": "golden"}}, "template": entry.template},
    });
    if kind.plural == "statefulsets" {
        body["spec"]["replicas"] = 0.into();
    }
    client.create(&kind, namespace, &body).await.unwrap_or_else(|error| panic!("{}: {error}", entry.name));
}

/// The template as the server sends it, and its record.
async fn recorded(client: &Client, namespace: &str, kind: Resource, name: &str) -> (Box<RawValue>, Revision) {
    let owner: Owner = client.get(&kind, &Key::new(namespace, name)).await.unwrap();
    let find = async {
        loop {
            let path = CONTROLLER_REVISIONS.path(Some(namespace), None, None);
            let request = http::Request::get(path).body(Vec::new()).unwrap();
            let text = client.kube().request_text(request).await.unwrap();
            let all: Revisions = serde_json::from_str(&text).unwrap();
            let mut own = all.items.into_iter().filter(|revision| {
                revision
                    .metadata
                    .owner_references
                    .iter()
                    .any(|held| held["uid"] == owner.metadata.uid.as_str())
            });
            if let Some(revision) = own.next() {
                return revision;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let revision = timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no record of {kind} {name}"));
    (owner.spec.template, revision)
}
