//! Which binaries there are, which package each is built from, and in which group: data only.

/// A set of binaries that are needed together and built by one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// What a running cluster consists of, and the tools that bring it up.
    Cluster,
    /// Helm, the metrics API, simulated nodes, and the CNI exerciser.
    Tools,
    /// Upstream's end-to-end tests and the programs inside their images.
    Upstream,
    /// The official CSI sidecars and the CSI conformance test.
    Csi,
}

/// One binary: its file name with us, and the Go package of its `main`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binary {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
}

/// One call of the Go tool.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Build {
    /// `go build` of several mains at once: they share one action graph.
    Mains { module: &'static str, binaries: &'static [Binary] },
    /// `go test -c` of a package whose `TestMain` is the program.
    Test { binary: Binary },
}

const fn bin(name: &'static str, package: &'static str) -> Binary {
    Binary { name, package }
}

const CLUSTER: &[Build] = &[Build::Mains {
    module: ".",
    binaries: &[
        bin("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        bin("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        bin("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        bin("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        bin("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        bin("kubeadm", "k8s.io/kubernetes/cmd/kubeadm"),
        bin("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        bin("etcd", "go.etcd.io/etcd/server/v3"),
        bin("etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
        bin("coredns", "./coredns"),
        bin("bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
        bin("loopback", "github.com/containernetworking/plugins/plugins/main/loopback"),
        bin("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
        bin("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
        bin("bandwidth", "github.com/containernetworking/plugins/plugins/meta/bandwidth"),
    ],
}];

const TOOLS: &[Build] = &[Build::Mains {
    module: ".",
    binaries: &[
        bin("helm", "helm.sh/helm/v4/cmd/helm"),
        bin("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        bin("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"),
        bin("cnitool", "github.com/containernetworking/cni/cnitool"),
    ],
}];

const UPSTREAM: &[Build] = &[
    Build::Mains {
        module: ".",
        binaries: &[
            bin("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"),
            bin("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
            bin("resource-consumer", "k8s.io/kubernetes/test/images/resource-consumer"),
            bin("consume-cpu", "k8s.io/kubernetes/test/images/resource-consumer/consume-cpu"),
            bin("nonewprivs", "k8s.io/kubernetes/test/images/nonewprivs"),
            bin("regression-issue-74839", "k8s.io/kubernetes/test/images/regression-issue-74839"),
            bin("sample-apiserver", "k8s.io/sample-apiserver"),
        ],
    },
    Build::Test { binary: bin("e2e.test", "./e2e") },
];

const CSI: &[Build] = &[
    Build::Mains {
        module: ".",
        binaries: &[
            bin("csi-provisioner", "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"),
            bin("csi-attacher", "github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher"),
            bin("csi-resizer", "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer"),
            bin("csi-snapshotter", "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter"),
            bin(
                "snapshot-controller",
                "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
            ),
        ],
    },
    // A module of its own: it raises the CSI spec to a version with which the kubelet does not compile.
    Build::Mains {
        module: "sanity",
        binaries: &[bin("csi-sanity", "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity")],
    },
];

impl Group {
    /// Every group, in the order in which they are worth building.
    pub const ALL: [Group; 4] = [Group::Cluster, Group::Tools, Group::Upstream, Group::Csi];

    /// The name on the command line and in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Group::Cluster => "cluster",
            Group::Tools => "tools",
            Group::Upstream => "upstream",
            Group::Csi => "csi",
        }
    }

    /// The group of that name.
    pub fn by_name(name: &str) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.name() == name)
    }

    /// The group that builds the binary `tool`.
    pub fn of_tool(tool: &str) -> Option<Group> {
        Group::ALL.into_iter().find(|group| group.tools().any(|name| name == tool))
    }

    /// The names of the binaries of this group.
    pub fn tools(self) -> impl Iterator<Item = &'static str> {
        self.builds().iter().flat_map(Build::binaries).map(|binary| binary.name)
    }

    /// Files and folders below `hack/cluster` that go into the group's stamp.
    pub(crate) fn sources(self) -> &'static [&'static str] {
        match self {
            Group::Cluster => &["go.mod", "go.sum", "coredns"],
            Group::Tools => &["go.mod", "go.sum"],
            Group::Upstream => &["go.mod", "go.sum", "e2e"],
            Group::Csi => &["go.mod", "go.sum", "sanity"],
        }
    }

    pub(crate) fn builds(self) -> &'static [Build] {
        match self {
            Group::Cluster => CLUSTER,
            Group::Tools => TOOLS,
            Group::Upstream => UPSTREAM,
            Group::Csi => CSI,
        }
    }
}

impl Build {
    pub(crate) fn binaries(&self) -> &[Binary] {
        match self {
            Build::Mains { binaries, .. } => binaries,
            Build::Test { binary } => std::slice::from_ref(binary),
        }
    }
}

impl Binary {
    /// The file name that `go build -o DIR/` gives this package: its last path element that is not a major version.
    pub(crate) fn go_output_name(&self) -> &'static str {
        let is_major = |part: &str| part.strip_prefix('v').is_some_and(|n| n.parse::<u32>().is_ok());
        self.package.rsplit('/').find(|part| !is_major(part)).unwrap_or(self.package)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tool lives in one group only; otherwise two stamps could claim the same program.
    #[test]
    fn names_are_unique_over_all_groups() {
        let mut names: Vec<_> = Group::ALL.into_iter().flat_map(Group::tools).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// Go drops a trailing major version from the name of an executable.
    #[test]
    fn output_names_follow_the_go_tool() {
        assert_eq!(bin("etcd", "go.etcd.io/etcd/server/v3").go_output_name(), "server");
        assert_eq!(bin("coredns", "./coredns").go_output_name(), "coredns");
        assert_eq!(bin("kwok", "sigs.k8s.io/kwok/cmd/kwok").go_output_name(), "kwok");
    }

    #[test]
    fn tools_are_found_by_name() {
        assert_eq!(Group::of_tool("kubectl"), Some(Group::Cluster));
        assert_eq!(Group::of_tool("csi-sanity"), Some(Group::Csi));
        assert_eq!(Group::of_tool("docker"), None);
        assert_eq!(Group::by_name("tools"), Some(Group::Tools));
    }
}
