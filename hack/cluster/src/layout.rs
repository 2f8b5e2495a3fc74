//! Where a cluster keeps its files. Every path of ours, on the host and inside a node, is spelled here once.

use std::path::{Path, PathBuf};

/// All state of all clusters.
pub const STATE_ROOT: &str = "/var/lib/trysail/clusters";

/// Paths inside a node.
pub mod inside {
    /// The Kubernetes binaries (bound read-only from the host).
    pub const BIN: &str = "/opt/trysail/bin";
    /// CNI plugins (the node's own copies: installers write here).
    pub const CNI_BIN: &str = "/opt/cni/bin";
    /// CNI configuration.
    pub const CNI_CONF: &str = "/etc/cni/net.d";
    /// Certificates of the control plane.
    pub const PKI: &str = "/etc/kubernetes/pki";
    /// Kubeconfigs and component configuration.
    pub const KUBERNETES: &str = "/etc/kubernetes";
    /// Manifests of static pods.
    pub const MANIFESTS: &str = "/etc/kubernetes/manifests";
    /// One file per component.
    pub const LOGS: &str = "/var/log/trysail";
    /// What the node's init writes about each component, and the marks by which it is told to keep one stopped.
    pub const COMPONENTS: &str = "/var/lib/trysail/components";
    /// containerd's socket, where cadvisor and the kubelet look for it.
    pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
    /// etcd's data, on a tmpfs.
    pub const ETCD: &str = "/var/lib/etcd";
}

/// The files of one cluster on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    name: String,
    dir: PathBuf,
}

impl Layout {
    /// The layout of the cluster called `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), dir: Path::new(STATE_ROOT).join(name) }
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that holds everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Held while a verb changes the cluster. Beside the directory, because `down` removes that.
    pub fn lock(&self) -> PathBuf {
        Path::new(STATE_ROOT).join(format!(".{}.lock", self.name))
    }

    /// What the cluster is and how far its start came.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// The administrator's kubeconfig, for use from the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// kubectl's discovery cache, so that nothing is written to the caller's home.
    pub fn kubectl_cache(&self) -> PathBuf {
        self.dir.join("kubectl-cache")
    }

    /// Kubeconfigs as kubeadm wrote them.
    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// Certificates and keys.
    pub fn certs(&self) -> PathBuf {
        self.pki().join("certs")
    }

    /// Logs of one node.
    pub fn logs(&self, node: &str) -> PathBuf {
        self.dir.join("logs").join(node)
    }

    /// The log of one component.
    pub fn log(&self, node: &str, component: &str) -> PathBuf {
        self.logs(node).join(format!("{component}.log"))
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.logs(crate::config::CONTROL_PLANE).join("audit.log")
    }

    /// Files of one node.
    pub fn node(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    /// What the node becomes `/` of the node.
    pub fn rootfs(&self, node: &str) -> PathBuf {
        self.node(node).join("rootfs")
    }

    /// The instructions that the node's init follows.
    pub fn node_spec(&self, node: &str) -> PathBuf {
        self.node(node).join("spec.json")
    }

    /// Host pid of the process that keeps a node (or the switch) alive.
    pub fn init_pid(&self, node: &str) -> PathBuf {
        self.node(node).join("init.pid")
    }

    /// What the node's init says about its components. The directory is part of the node's root on disk,
    /// so both sides see it without a mount.
    pub fn components(&self, node: &str) -> PathBuf {
        self.rootfs(node).join(inside::COMPONENTS.trim_start_matches('/'))
    }
}

/// Names of the clusters that have left anything on disk.
pub fn existing_clusters() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(STATE_ROOT) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
