//! Small manifests. Values differ wherever they could be mixed up: name, label, namespace, image.

use serde_json::{Value, json};
use trysail_core::{Face, Resource};

/// The namespace of everything here.
pub const NAMESPACE: &str = "shop";

/// A pod template with the label `app=APP`.
pub fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

fn workload(resource: Resource, name: &str, spec: &Value) -> Value {
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
        Resource::deployments(face),
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
        Resource::replica_sets(face),
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
        Resource::replication_controllers(face),
        name,
        &json!({
            "replicas": replicas,
            "selector": {"app": name},
            "template": template(name, image),
        }),
    )
}

/// A StatefulSet whose pods are labelled `app=NAME`.
pub fn stateful_set(face: Face, name: &str, replicas: i32, image: &str) -> Value {
    workload(
        Resource::stateful_sets(face),
        name,
        &json!({
            "replicas": replicas,
            "serviceName": format!("{name}-headless"),
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, image),
        }),
    )
}

/// A template of a claim, for `spec.volumeClaimTemplates`.
pub fn claim_template(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}

/// A DaemonSet whose pods are labelled `app=NAME`.
pub fn daemon_set(face: Face, name: &str, image: &str) -> Value {
    workload(
        Resource::daemon_sets(face),
        name,
        &json!({"selector": {"matchLabels": {"app": name}}, "template": template(name, image)}),
    )
}

/// A Job of one pod, which is labelled `app=NAME` and is not restarted.
pub fn job(face: Face, name: &str, image: &str) -> Value {
    workload(Resource::jobs(face), name, &job_spec(name, image))
}

/// A CronJob whose Jobs are as [`job`] makes them.
pub fn cron_job(face: Face, name: &str, schedule: &str, image: &str) -> Value {
    let template = json!({"metadata": {"labels": {"from": name}}, "spec": job_spec(name, image)});
    workload(Resource::cron_jobs(face), name, &json!({"schedule": schedule, "jobTemplate": template}))
}

fn job_spec(name: &str, image: &str) -> Value {
    let mut template = template(name, image);
    template["spec"]["restartPolicy"] = "Never".into();
    json!({"template": template})
}

/// A claim that nobody owns.
pub fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": claim_template(name)["spec"],
    })
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
