//! The simulated cluster against what a real one does.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod api;
mod invariants;
mod job_status;
mod nodes;
mod views;

use serde_json::{Value, json};
use trysail_core::{Key, Resource, resource::PODS};
use trysail_testkit::{Cluster, cluster::Writer, fixtures::NAMESPACE};

fn key(name: &str) -> Key {
    Key::new(NAMESPACE, name)
}

/// A pod with more in its spec and metadata.
fn pod(name: &str, spec: &Value, metadata: &Value) -> Value {
    let mut pod = trysail_testkit::fixtures::pod(name, "app");
    for (part, more) in [("spec", spec), ("metadata", metadata)] {
        let more = more.as_object().cloned().unwrap_or_default();
        pod[part].as_object_mut().unwrap().extend(more);
    }
    pod
}

/// The entry of `ownerReferences` that makes `owner` the controller.
fn controlled_by(owner: &Value) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }])
}

fn create(cluster: &mut Cluster, resource: Resource, object: Value) -> Value {
    (*cluster.create(resource, object, Writer::Other).unwrap()).clone()
}

fn phase(cluster: &Cluster, name: &str) -> Option<String> {
    let pod = cluster.get(PODS, &key(name))?;
    pod["status"]["phase"].as_str().map(str::to_owned)
}

fn ticks(cluster: &mut Cluster, count: usize) {
    (0..count).for_each(|_| cluster.actors());
}
