//! Command lines of etcd, kube-apiserver, kube-controller-manager and kube-scheduler.
//!
//! They run in the network namespace of the control plane's node, so that webhooks and aggregated APIs are reached
//! over the pod network like from any other node.

use std::net::Ipv4Addr;

use crate::config::{ClusterConfig, POD_CIDR, SERVICE_CIDR, control_plane_address};
use crate::layout::inside;
use crate::node_spec::{ComponentSpec, Condition, NodeFile};

/// Port of the API server.
pub(crate) const API_PORT: u16 = 6443;

const AUDIT_POLICY_FILE: &str = "/etc/kubernetes/audit-policy.yaml";

/// Who changed what, and who listed what: enough to prove which identity did a controller's work, and that it
/// keeps to its watches. Of our own managers everything, so that used and granted permissions can be compared.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: [trysail-manager, 'system:serviceaccount:trysail-system:trysail-workloads']
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection, list]
- level: None
";

/// The control plane's components in the order of their start.
pub(crate) fn components(config: &ClusterConfig, subnet: Ipv4Addr) -> Vec<ComponentSpec> {
    let api = Condition::Accepts(format!("{}:{API_PORT}", control_plane_address(subnet)));
    vec![
        component("etcd", etcd(), vec![]),
        component("kube-apiserver", apiserver(config, subnet), vec![]),
        component("kube-controller-manager", controller_manager(config), vec![api.clone()]),
        component("kube-scheduler", scheduler(config), vec![api]),
    ]
}

/// Files that the control plane reads beside its certificates.
pub(crate) fn files() -> Vec<NodeFile> {
    vec![NodeFile::new(AUDIT_POLICY_FILE, AUDIT_POLICY)]
}

pub(crate) fn component(name: &str, args: Vec<String>, after: Vec<Condition>) -> ComponentSpec {
    let program = format!("{}/{name}", inside::BIN);
    ComponentSpec { name: name.to_owned(), argv: std::iter::once(program).chain(args).collect(), after }
}

/// `--feature-gates`, when there are any.
pub(crate) fn feature_gates(config: &ClusterConfig) -> Option<String> {
    (!config.feature_gates.is_empty()).then(|| format!("--feature-gates={}", config.feature_gates))
}

/// Data in memory and no fsync: this cluster's life ends with its processes.
fn etcd() -> Vec<String> {
    let data = format!("--data-dir={}", inside::ETCD);
    owned(&[
        "--name=etcd",
        &data,
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=etcd=http://127.0.0.1:2380",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ])
}

fn apiserver(config: &ClusterConfig, subnet: Ipv4Addr) -> Vec<String> {
    let pki = inside::PKI;
    let mut args = owned(&[
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--kubelet-preferred-address-types=InternalIP",
        "--enable-aggregator-routing=true",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--v=1",
    ]);
    args.extend([
        format!("--advertise-address={}", control_plane_address(subnet)),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--service-account-signing-key-file={pki}/sa.key"),
        format!("--service-account-key-file={pki}/sa.pub"),
        format!("--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt"),
        format!("--kubelet-client-key={pki}/apiserver-kubelet-client.key"),
        format!("--requestheader-client-ca-file={pki}/front-proxy-ca.crt"),
        format!("--proxy-client-cert-file={pki}/front-proxy-client.crt"),
        format!("--proxy-client-key-file={pki}/front-proxy-client.key"),
        format!("--audit-policy-file={AUDIT_POLICY_FILE}"),
        format!("--audit-log-path={}/audit.log", inside::LOGS),
        // Rotation would split the log under the eyes of whoever reads it.
        "--audit-log-maxsize=8192".to_owned(),
    ]);
    args.extend(feature_gates(config));
    args
}

fn controller_manager(config: &ClusterConfig) -> Vec<String> {
    let pki = inside::PKI;
    let mut args = client_flags("controller-manager");
    args.extend([
        "--use-service-account-credentials".to_owned(),
        format!("--root-ca-file={pki}/ca.crt"),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--requestheader-client-ca-file={pki}/front-proxy-ca.crt"),
        format!("--service-account-private-key-file={pki}/sa.key"),
        format!("--cluster-signing-cert-file={pki}/ca.crt"),
        format!("--cluster-signing-key-file={pki}/ca.key"),
        format!("--cluster-cidr={POD_CIDR}"),
        "--allocate-node-cidrs=true".to_owned(),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        "--node-monitor-grace-period=20s".to_owned(),
        format!("--controllers={}", config.kcm_controllers),
    ]);
    args.extend(feature_gates(config));
    args
}

fn scheduler(config: &ClusterConfig) -> Vec<String> {
    let mut args = client_flags("scheduler");
    args.extend(feature_gates(config));
    args
}

/// How both controllers reach the API server. One of each: no election.
fn client_flags(name: &str) -> Vec<String> {
    let file = format!("{}/{name}.conf", inside::KUBERNETES);
    vec![
        format!("--kubeconfig={file}"),
        format!("--authentication-kubeconfig={file}"),
        format!("--authorization-kubeconfig={file}"),
        "--leader-elect=false".to_owned(),
        "--v=1".to_owned(),
    ]
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let config = ClusterConfig {
            kcm_controllers: "*,-deployment-controller".into(),
            feature_gates: "Foo=true".into(),
            ..ClusterConfig::default()
        };
        let all = components(&config, Ipv4Addr::new(198, 18, 7, 0));
        let text: Vec<String> = all
            .iter()
            .map(|component| format!("{}\n  after {:?}", component.argv.join("\n  "), component.after))
            .collect();
        insta::assert_snapshot!(text.join("\n\n"));
    }
}
