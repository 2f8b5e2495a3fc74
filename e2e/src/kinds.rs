//! Manifests of every kind but the Deployment, of pods that start and end quickly.

use serde_json::{Value, json};

use crate::workload::{Face, IMAGE};

/// An image with a shell.
pub const SHELL_IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";

fn manifest(face: Face, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": face.api_version(kind), "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn selector(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

fn template(name: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": IMAGE, "args": ["pause"]}],
        },
    })
}

/// Of pods that are ready at once.
pub fn stateful_set(face: Face, name: &str, replicas: i32) -> Value {
    let spec = json!({
        "replicas": replicas, "serviceName": name, "selector": selector(name), "template": template(name),
    });
    manifest(face, "StatefulSet", name, &spec)
}

/// Of pods that are ready at once, on every node that has no taint.
pub fn daemon_set(face: Face, name: &str) -> Value {
    manifest(face, "DaemonSet", name, &json!({"selector": selector(name), "template": template(name)}))
}

/// So many pods one after the other, each of which runs `script`.
pub fn job(face: Face, name: &str, completions: i32, script: &str) -> Value {
    let spec = json!({"completions": completions, "parallelism": 1, "template": work(name, script)});
    manifest(face, "Job", name, &spec)
}

/// Each index once.
pub fn indexed_job(face: Face, name: &str, completions: i32, parallelism: i32, script: &str) -> Value {
    let mut manifest = job(face, name, completions, script);
    manifest["spec"]["parallelism"] = json!(parallelism);
    manifest["spec"]["completionMode"] = json!("Indexed");
    manifest
}

/// Runs `script` every minute.
pub fn cron_job(face: Face, name: &str, script: &str) -> Value {
    let spec = json!({
        "schedule": "* * * * *",
        "jobTemplate": {"spec": {"completions": 1, "parallelism": 1, "template": work(name, script)}},
    });
    manifest(face, "CronJob", name, &spec)
}

fn work(name: &str, script: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": SHELL_IMAGE, "command": ["sh", "-c", script]}],
        },
    })
}
