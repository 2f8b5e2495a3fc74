//! What a cluster is made of: the options of `cluster up` and the constants of the network plan.
//!
//! Decided here: names, addresses, defaults and which options are valid together. Nothing is read or changed.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The Kubernetes version of every component; must equal the one pinned in `hack/cluster/go.mod`.
pub const KUBERNETES_VERSION: &str = "v1.36.3";
/// Pod addresses; kube-controller-manager hands each node a /24 of it.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// Virtual service addresses.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The service address of CoreDNS, which every kubelet gives to its pods.
pub const DNS_ADDRESS: &str = "10.96.0.10";
/// The domain of service names.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// The image of the container that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10.2";
/// The image of the cluster's name server.
pub const COREDNS_IMAGE: &str = "registry.k8s.io/coredns/coredns:v1.14.7";
/// The image of our own manager when it runs as a static pod.
pub const MANAGER_IMAGE: &str = "trysail.dev/trysail-manager:dev";
/// The cluster that verbs mean when none is named.
pub const DEFAULT_NAME: &str = "main";
/// The node that runs the control plane.
pub const CONTROL_PLANE: &str = "cp";

/// The workload controllers that `--native-manager` takes over, in the manager's own spelling.
pub const NATIVE_CONTROLLERS: [&str; 8] = [
    "deployment",
    "replicaset",
    "replicationcontroller",
    "statefulset",
    "daemonset",
    "job",
    "cronjob",
    "ttl-after-finished",
];

/// One /24 per cluster; host part of the addresses in it. Workers count up from [`FIRST_WORKER`].
const CONTROL_PLANE_HOST: u8 = 10;
const FIRST_WORKER: u8 = 11;
/// More would not fit the /24, nor any machine this is meant for.
const MAX_WORKERS: usize = 100;

/// Who connects pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// The reference plugins (bridge, host-local, portmap) with routes between the nodes.
    #[default]
    Reference,
    /// Our plugin in their place, with routes between the nodes.
    Trysail,
    /// None: nodes stay NotReady until somebody installs a network.
    None,
}

/// How kube-proxy realises services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// nf_tables.
    #[default]
    Nftables,
    /// iptables (over nf_tables on Debian).
    Iptables,
}

/// Everything that tells one cluster from another. Stored with the cluster, so that a second `up` can compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Name of the cluster on this machine.
    pub name: String,
    /// Number of worker nodes beside the control plane.
    pub workers: usize,
    /// The pod network.
    pub cni: Cni,
    /// kube-proxy's mode.
    pub proxy_mode: ProxyMode,
    /// `--controllers` of kube-controller-manager.
    pub kcm_controllers: String,
    /// Whether our manager runs as a static pod on the control plane.
    pub native_manager: bool,
    /// `--feature-gates` of every component, e.g. `Foo=true,Bar=false`.
    pub feature_gates: String,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            workers: 2,
            cni: Cni::default(),
            proxy_mode: ProxyMode::default(),
            kcm_controllers: "*".to_owned(),
            native_manager: false,
            feature_gates: String::new(),
        }
    }
}

/// One node: its name and its place in the cluster's subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// `cp`, `w1`, `w2`, …
    pub name: String,
    /// Last byte of its address.
    pub host: u8,
}

impl ClusterConfig {
    /// Refuses options that cannot work, naming the flag.
    pub fn validate(&self) -> Result<()> {
        validate_name(&self.name)?;
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            bail!("--nodes {}: the number of workers must be between 1 and {MAX_WORKERS}", self.workers);
        }
        for gate in self.feature_gates.split(',').filter(|gate| !gate.is_empty()) {
            match gate.split_once('=') {
                Some((name, "true" | "false")) if !name.is_empty() => {}
                _ => bail!("--feature-gates: {gate:?} is not NAME=true or NAME=false"),
            }
        }
        if self.native_manager {
            self.validate_native()?;
        }
        Ok(())
    }

    /// Two controllers of one kind would fight over the same objects for ever.
    fn validate_native(&self) -> Result<()> {
        for name in NATIVE_CONTROLLERS {
            if self.runs_controller(name) {
                bail!(
                    "--native-manager needs kube-controller-manager's own {name} controller off: \
                     leave --kcm-controllers away, or add -{name}-controller to it"
                );
            }
        }
        Ok(())
    }

    /// Whether kube-controller-manager runs the controller called `short` or `short-controller`.
    pub fn runs_controller(&self, short: &str) -> bool {
        let long = format!("{short}-controller");
        let entries: Vec<&str> = self.kcm_controllers.split(',').map(str::trim).collect();
        let names = |entry: &str| entry == short || entry == long;
        if entries.iter().any(|entry| entry.strip_prefix('-').is_some_and(names)) {
            return false;
        }
        entries.iter().any(|entry| *entry == "*" || names(entry))
    }

    /// Whether somebody turns Deployments into pods: only then does CoreDNS come up by itself.
    pub fn deployments_work(&self) -> bool {
        self.native_manager || (self.runs_controller("deployment") && self.runs_controller("replicaset"))
    }

    /// The nodes, control plane first.
    pub fn nodes(&self) -> Vec<NodeName> {
        let workers = (0..self.workers)
            .map(|index| NodeName { name: format!("w{}", index + 1), host: FIRST_WORKER + index as u8 });
        let control_plane = NodeName { name: CONTROL_PLANE.to_owned(), host: CONTROL_PLANE_HOST };
        std::iter::once(control_plane).chain(workers).collect()
    }
}

/// kube-controller-manager's controllers when ours stand in for [`NATIVE_CONTROLLERS`].
pub fn controllers_without_native() -> String {
    let off = NATIVE_CONTROLLERS.map(|name| format!(",-{name}-controller"));
    format!("*{}", off.concat())
}

/// The address of a host in a cluster's /24.
pub fn address(subnet: Ipv4Addr, host: u8) -> Ipv4Addr {
    let [a, b, c, _] = subnet.octets();
    Ipv4Addr::new(a, b, c, host)
}

/// The address of the control plane.
pub fn control_plane_address(subnet: Ipv4Addr) -> Ipv4Addr {
    address(subnet, CONTROL_PLANE_HOST)
}

/// Names become parts of paths, cgroups and link names.
pub fn validate_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c != '-');
    if name.len() > 30 || !name.chars().all(good) || !edge(name.chars().next()) || !edge(name.chars().last())
    {
        bail!("--name {name:?}: use 1 to 30 lower-case letters, digits and inner dashes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut ClusterConfig)) -> Result<()> {
        let mut config = ClusterConfig::default();
        change(&mut config);
        config.validate()
    }

    /// An option that cannot work is refused before anything is touched, by its flag's name.
    #[test]
    fn bad_options_name_their_flag() {
        let cases: [(&str, Result<()>); 5] = [
            ("--nodes", with(|c| c.workers = 0)),
            ("--name", with(|c| c.name = "a/../b".into())),
            ("--name", with(|c| c.name = "-x".into())),
            ("--feature-gates", with(|c| c.feature_gates = "Foo".into())),
            ("--native-manager", with(|c| c.native_manager = true)),
        ];
        for (flag, result) in cases {
            let message = result.unwrap_err().to_string();
            assert!(message.starts_with(flag), "{message}");
        }
    }

    /// The controllers that ours replace are exactly those that must be off.
    #[test]
    fn native_manager_goes_with_its_controllers_off() {
        with(|c| {
            c.native_manager = true;
            c.kcm_controllers = controllers_without_native();
        })
        .unwrap();
    }

    /// kube-controller-manager's rules: a minus wins, a star means all.
    #[test]
    fn controllers_are_read_as_the_controller_manager_reads_them() {
        let runs = |list: &str| {
            let config = ClusterConfig { kcm_controllers: list.into(), ..ClusterConfig::default() };
            (config.runs_controller("deployment"), config.deployments_work())
        };
        assert_eq!(runs("*"), (true, true));
        assert_eq!(runs("*,-deployment-controller"), (false, false));
        assert_eq!(runs("*,-replicaset"), (true, false));
        assert_eq!(runs("deployment,replicaset-controller"), (true, true));
        assert_eq!(runs("namespace"), (false, false));
    }

    #[test]
    fn nodes_count_up_behind_the_control_plane() {
        let names: Vec<_> = ClusterConfig::default().nodes().into_iter().map(|n| (n.name, n.host)).collect();
        assert_eq!(names, [("cp".into(), 10), ("w1".into(), 11), ("w2".into(), 12)]);
    }
}
