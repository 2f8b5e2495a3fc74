//! The objects of the bench: namespaces, nodes, and workloads about as large as real ones.

use serde_json::{Value, json};

/// Label of a pod that names its Deployment.
pub(crate) const APP: &str = "app";
/// Label of a pod that counts the templates of its Deployment; a rolling update raises it.
pub(crate) const REVISION: &str = "bench-revision";

pub(crate) const NAMESPACES: usize = 10;
pub(crate) const NODES: usize = 50;

/// Enters the key of saved data: raise it when something here changes.
pub(crate) const VERSION: u32 = 1;

pub(crate) fn namespace_name(at: usize) -> String {
    format!("bench-{at}")
}

pub(crate) fn namespace(at: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace_name(at)}})
}

pub(crate) fn node_name(at: usize) -> String {
    format!("node-{at:02}")
}

pub(crate) fn node(at: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node_name(at), "labels": {"kubernetes.io/hostname": node_name(at)}},
    })
}

/// A Deployment by its number: where it lives and what it is called.
pub(crate) fn deployment_names(at: usize) -> (String, String) {
    (namespace_name(at % NAMESPACES), format!("web-{at:04}"))
}

/// A web service. Surge is 25 % by default.
pub(crate) fn deployment(at: usize, replicas: usize) -> Value {
    let (namespace, name) = deployment_names(at);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": {APP: name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {APP: name}},
            "template": template(&name),
        },
    })
}

/// Pods of a web service like many: probes, resources, a few variables, a volume.
fn template(app: &str) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": 10});
    json!({
        "metadata": {
            "labels": {APP: app, "tier": "frontend", "app.kubernetes.io/part-of": "shop", REVISION: "1"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "web",
                "image": "registry.example.com/shop/web:1.0.0",
                "args": ["--listen=:8080", "--metrics=:9090", "--log-format=json"],
                "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
                "env": [
                    {"name": "LOG_LEVEL", "value": "info"},
                    {"name": "DATABASE_HOST", "value": "database.shop.svc.cluster.local"},
                    {"name": "CACHE_HOST", "value": "cache.shop.svc.cluster.local"},
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "resources": {
                    "requests": {"cpu": "50m", "memory": "64Mi"},
                    "limits": {"memory": "128Mi"},
                },
                "readinessProbe": probe("/ready"),
                "livenessProbe": probe("/healthz"),
                "volumeMounts": [{"name": "config", "mountPath": "/etc/web", "readOnly": true}],
                "securityContext": {"runAsNonRoot": true, "allowPrivilegeEscalation": false},
            }],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}],
        },
    })
}

/// Namespace and name of the owner of that kind and number.
pub(crate) fn names(kind: &str, at: usize) -> (String, String) {
    (namespace_name(at % NAMESPACES), format!("{kind}-{at:04}"))
}

/// A batch of work: all its pods run at the same time and succeed.
pub(crate) fn job(at: usize, pods: usize) -> Value {
    let (namespace, name) = names("job", at);
    let mut template = template(&name);
    template["spec"]["restartPolicy"] = "Never".into();
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": {APP: name}},
        "spec": {"parallelism": pods, "completions": pods, "template": template},
    })
}

/// An agent for every node.
pub(crate) fn daemon_set(at: usize) -> Value {
    let (namespace, name) = names("agent", at);
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace, "labels": {APP: name}},
        "spec": {"selector": {"matchLabels": {APP: name}}, "template": template(&name)},
    })
}

/// A database without volumes of its own: nobody here provides any.
pub(crate) fn stateful_set(at: usize, replicas: usize) -> Value {
    let (namespace, name) = names("db", at);
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": namespace, "labels": {APP: name}},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": {APP: name}},
            "template": template(&name),
        },
    })
}

/// A new image, and the label by which the bench tells new pods from old.
pub(crate) fn new_revision(revision: u32) -> Value {
    json!({"spec": {"template": {
        "metadata": {"labels": {REVISION: revision.to_string()}},
        "spec": {"containers": [{"name": "web", "image": format!("registry.example.com/shop/web:{revision}.0.0")}]},
    }}})
}

/// How many pods above its replicas a Deployment may have during a rolling update: 25 %, rounded up.
pub(crate) fn surge(replicas: usize) -> usize {
    replicas.div_ceil(4)
}

pub(crate) fn binding(namespace: &str, pod: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod, "namespace": namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    })
}
