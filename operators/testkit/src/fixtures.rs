//! Small manifests. Values differ wherever they could be mixed up: name, label, namespace, image.

use serde_json::{Value, json};
use trysail_core::Face;

use crate::cluster::Cluster;

/// The namespace of everything here.
pub const NAMESPACE: &str = "shop";

/// A pod template with the label `app=APP`.
pub fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

fn workload(face: Face, kind: usize, name: &str, spec: &Value) -> Value {
    let resource = Cluster::resources(face)[kind];
    json!({
        "apiVersion": resource.api_version(),
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    })
}

/// A Deployment whose pods are labelled `app=NAME`.
pub fn deployment(face: Face, name: &str, replicas: i32, image: &str) -> Value {
    workload(
        face,
        0,
        name,
        &json!({
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, image),
        }),
    )
}

/// A ReplicaSet whose pods are labelled `app=NAME`.
pub fn replica_set(face: Face, name: &str, replicas: i32, image: &str) -> Value {
    workload(
        face,
        1,
        name,
        &json!({
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, image),
        }),
    )
}

/// A ReplicationController whose pods are labelled `app=NAME`.
pub fn replication_controller(face: Face, name: &str, replicas: i32, image: &str) -> Value {
    workload(
        face,
        2,
        name,
        &json!({
            "replicas": replicas,
            "selector": {"app": name},
            "template": template(name, image),
        }),
    )
}

/// A pod that nobody controls.
pub fn pod(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "any"}]},
    })
}
