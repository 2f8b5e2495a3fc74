//! Configuration of the kubelet and of kube-proxy.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::config::{
    CLUSTER_DOMAIN, CONTROL_PLANE, ClusterConfig, DNS_ADDRESS, NodeName, POD_CIDR, ProxyMode, address,
};
use crate::control_plane::{component, feature_gates};
use crate::layout::inside;
use crate::node_spec::{ComponentSpec, Condition, NodeFile};

const KUBELET_CONFIG: &str = "/etc/kubernetes/kubelet.yaml";
const PROXY_CONFIG: &str = "/etc/kubernetes/kube-proxy.yaml";
/// What pods with `dnsPolicy: Default` get: the cluster's own name server, for there is no other.
const POD_RESOLV_CONF: &str = "/etc/kubernetes/resolv.conf";
/// The mark by which `up` lets the kubelets join: before the API server answers they would only compete for CPU.
pub(crate) const JOIN_MARK: &str = "/var/lib/trysail/join";

/// What this machine lets us do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// CAP_SYS_RESOURCE: lower OOM scores, raise limits.
    pub(crate) may_raise_limits: bool,
}

/// The node agents in the order of their start.
pub(crate) fn components(config: &ClusterConfig, node: &NodeName, subnet: Ipv4Addr) -> Vec<ComponentSpec> {
    let mut kubelet = vec![
        format!("--config={KUBELET_CONFIG}"),
        format!("--kubeconfig={}/kubelet.conf", inside::KUBERNETES),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", address(subnet, node.host)),
    ];
    if node.name == CONTROL_PLANE {
        kubelet.push("--register-with-taints=node-role.kubernetes.io/control-plane=:NoSchedule".to_owned());
    }
    kubelet.extend(feature_gates(config));
    let mut proxy = vec![format!("--config={PROXY_CONFIG}")];
    proxy.extend(feature_gates(config));
    let join = Condition::Exists(JOIN_MARK.into());
    let socket = Condition::Exists(inside::CONTAINERD_SOCKET.into());
    vec![
        component("kubelet", kubelet, vec![join.clone(), socket]),
        component("kube-proxy", proxy, vec![join]),
    ]
}

/// Their configuration files.
pub(crate) fn files(config: &ClusterConfig, node: &NodeName, machine: Machine) -> Vec<NodeFile> {
    vec![
        NodeFile::new(KUBELET_CONFIG, kubelet_config(machine)),
        NodeFile::new(PROXY_CONFIG, proxy_config(config, node)),
        NodeFile::new(POD_RESOLV_CONF, format!("nameserver {DNS_ADDRESS}\n")),
    ]
}

/// Static client certificate, no image collection (images cannot be pulled again), no eviction for a full disk that
/// the nodes share with the rest of the machine.
fn kubelet_config(machine: Machine) -> String {
    let mut text = format!(
        "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
enforceNodeAllocatable: [pods]
failSwapOn: false
containerRuntimeEndpoint: unix://{socket}
staticPodPath: {manifests}
imageGCHighThresholdPercent: 100
evictionHard:
  memory.available: 200Mi
  nodefs.available: \"0%\"
  nodefs.inodesFree: \"0%\"
  imagefs.available: \"0%\"
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: {pki}/ca.crt
authorization:
  mode: Webhook
clusterDNS: [{DNS_ADDRESS}]
clusterDomain: {CLUSTER_DOMAIN}
resolvConf: {POD_RESOLV_CONF}
rotateCertificates: false
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
",
        socket = inside::CONTAINERD_SOCKET,
        manifests = inside::MANIFESTS,
        pki = inside::PKI,
    );
    if !machine.may_raise_limits {
        let _ = writeln!(text, "oomScoreAdj: 0\nmaxOpenFiles: 20000");
    }
    text
}

/// The conntrack settings are machine-wide and not ours to change: zero leaves them alone.
fn proxy_config(config: &ClusterConfig, node: &NodeName) -> String {
    let mode = match config.proxy_mode {
        ProxyMode::Nftables => "nftables",
        ProxyMode::Iptables => "iptables",
    };
    format!(
        "\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: {mode}
hostnameOverride: {node}
clusterCIDR: {POD_CIDR}
oomScoreAdj: 0
conntrack:
  maxPerCore: 0
  min: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
clientConnection:
  kubeconfig: {conf}/kube-proxy.conf
",
        node = node.name,
        conf = inside::KUBERNETES,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_configuration() {
        insta::assert_snapshot!(kubelet_config(Machine { may_raise_limits: false }));
    }

    /// Where the machine allows it, the kubelet keeps its own defaults.
    #[test]
    fn limits_stay_at_their_defaults_where_they_may_be_raised() {
        assert!(!kubelet_config(Machine { may_raise_limits: true }).contains("oomScoreAdj"));
    }

    #[test]
    fn proxy_configuration() {
        let config = ClusterConfig { proxy_mode: ProxyMode::Iptables, ..ClusterConfig::default() };
        insta::assert_snapshot!(proxy_config(&config, &config.nodes()[1]));
    }

    /// Ordinary pods stay off the control plane; workers carry no taint.
    #[test]
    fn only_the_control_plane_is_tainted() {
        let config = ClusterConfig::default();
        let tainted: Vec<bool> = config
            .nodes()
            .iter()
            .map(|node| components(&config, node, Ipv4Addr::new(198, 18, 7, 0)))
            .map(|all| all[0].argv.iter().any(|arg| arg.starts_with("--register-with-taints")))
            .collect();
        assert_eq!(tainted, [true, false, false]);
    }
}
