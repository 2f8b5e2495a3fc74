//! Which API resource a controller reads and writes, and which of its two faces it serves.

use std::fmt;

/// The two faces of a workload kind: our CRD, or Kubernetes' own kind in place of kube-controller-manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Face {
    /// `apps.trysail.dev`, `batch.trysail.dev`, …
    Crd,
    /// `apps`, `batch`, …
    Native,
}

/// A kind as the API server serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Kind, in CamelCase.
    pub kind: &'static str,
    /// Path segment, in lower case and plural.
    pub plural: &'static str,
}

impl Resource {
    /// `v1` or `group/version`, as manifests say it.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The URL path of a namespaced object, or of the collection when `name` is `None`; with `namespace`
    /// `None`, the collection in all namespaces.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>) -> String {
        use std::fmt::Write as _;
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        // Writing to a String cannot fail.
        if let Some(namespace) = namespace {
            let _ = write!(path, "/namespaces/{namespace}");
        }
        let _ = write!(path, "/{}", self.plural);
        if let Some(name) = name {
            let _ = write!(path, "/{name}");
        }
        if let Some(subresource) = subresource {
            let _ = write!(path, "/{subresource}");
        }
        path
    }

    /// Deployments of a face.
    pub const fn deployments(face: Face) -> Self {
        Self { group: apps(face), version: "v1", kind: "Deployment", plural: "deployments" }
    }

    /// ReplicaSets of a face.
    pub const fn replica_sets(face: Face) -> Self {
        Self { group: apps(face), version: "v1", kind: "ReplicaSet", plural: "replicasets" }
    }

    /// ReplicationControllers of a face: the native kind lives in the core group, ours in `apps.trysail.dev`.
    pub const fn replication_controllers(face: Face) -> Self {
        let group = match face {
            Face::Crd => apps(face),
            Face::Native => "",
        };
        Self { group, version: "v1", kind: "ReplicationController", plural: "replicationcontrollers" }
    }

    /// StatefulSets of a face.
    pub const fn stateful_sets(face: Face) -> Self {
        Self { group: apps(face), version: "v1", kind: "StatefulSet", plural: "statefulsets" }
    }

    /// DaemonSets of a face.
    pub const fn daemon_sets(face: Face) -> Self {
        Self { group: apps(face), version: "v1", kind: "DaemonSet", plural: "daemonsets" }
    }

    /// Jobs of a face.
    pub const fn jobs(face: Face) -> Self {
        Self { group: batch(face), version: "v1", kind: "Job", plural: "jobs" }
    }

    /// CronJobs of a face.
    pub const fn cron_jobs(face: Face) -> Self {
        Self { group: batch(face), version: "v1", kind: "CronJob", plural: "cronjobs" }
    }
}

const fn apps(face: Face) -> &'static str {
    match face {
        Face::Crd => "apps.trysail.dev",
        Face::Native => "apps",
    }
}

const fn batch(face: Face) -> &'static str {
    match face {
        Face::Crd => "batch.trysail.dev",
        Face::Native => "batch",
    }
}

/// Pods.
pub const PODS: Resource = Resource { group: "", version: "v1", kind: "Pod", plural: "pods" };

/// Nodes: they have no namespace.
pub const NODES: Resource = Resource { group: "", version: "v1", kind: "Node", plural: "nodes" };

/// PersistentVolumeClaims.
pub const PERSISTENT_VOLUME_CLAIMS: Resource =
    Resource { group: "", version: "v1", kind: "PersistentVolumeClaim", plural: "persistentvolumeclaims" };

/// ControllerRevisions: Kubernetes' own for both faces, so that everything that reads rollout histories reads
/// these too.
pub const CONTROLLER_REVISIONS: Resource =
    Resource { group: "apps", version: "v1", kind: "ControllerRevision", plural: "controllerrevisions" };

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_api_servers() {
        let deployments = Resource::deployments(Face::Crd);
        assert_eq!(
            deployments.path(Some("shop"), Some("web"), Some("status")),
            "/apis/apps.trysail.dev/v1/namespaces/shop/deployments/web/status"
        );
        assert_eq!(PODS.path(None, None, None), "/api/v1/pods");
        assert_eq!(
            Resource::replication_controllers(Face::Native).path(Some("a"), Some("b"), None),
            "/api/v1/namespaces/a/replicationcontrollers/b"
        );
        assert_eq!(NODES.path(None, Some("w1"), None), "/api/v1/nodes/w1");
        assert_eq!(
            CONTROLLER_REVISIONS.path(Some("a"), Some("b"), None),
            "/apis/apps/v1/namespaces/a/controllerrevisions/b"
        );
    }

    #[test]
    fn each_face_has_its_groups() {
        let groups = |face| {
            [
                Resource::stateful_sets(face),
                Resource::daemon_sets(face),
                Resource::jobs(face),
                Resource::cron_jobs(face),
            ]
            .map(|resource| format!("{}.{}", resource.plural, resource.group))
        };
        assert_eq!(
            groups(Face::Native),
            ["statefulsets.apps", "daemonsets.apps", "jobs.batch", "cronjobs.batch"]
        );
        assert_eq!(
            groups(Face::Crd),
            [
                "statefulsets.apps.trysail.dev",
                "daemonsets.apps.trysail.dev",
                "jobs.batch.trysail.dev",
                "cronjobs.batch.trysail.dev"
            ]
        );
    }
}
