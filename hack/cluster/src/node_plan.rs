//! What a node is made of: puts the parts of a node's specification together.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::config::{CONTROL_PLANE, ClusterConfig, NodeName};
use crate::kubelet::{self, Machine};
use crate::layout::{Layout, inside};
use crate::node_spec::{Bind, Link, NodeSpec};
use crate::pki::MANAGER_USER;
use crate::process::has_capability;
use crate::start::Start;
use crate::{containerd, control_plane, native_manager, network};

/// CAP_SYS_RESOURCE of capability.h.
const CAP_SYS_RESOURCE: u32 = 24;

/// The specification of one node.
pub(crate) fn spec(start: Start<'_>, node: &NodeName, subnet: Ipv4Addr, switch: i32) -> NodeSpec {
    let Start { layout, config, hierarchies, bin, progress: _ } = start;
    let machine = Machine { may_raise_limits: has_capability(CAP_SYS_RESOURCE) };
    let leads = node.name == CONTROL_PLANE;
    let mut components = vec![containerd::component()];
    let mut files = containerd::files(machine);
    if leads {
        components.extend(control_plane::components(config, subnet));
        files.extend(control_plane::files());
        if config.native_manager {
            files.push(native_manager::manifest());
        }
    }
    components.extend(kubelet::components(config, node, subnet));
    files.extend(kubelet::files(config, node, machine));
    NodeSpec {
        cluster: config.name.clone(),
        node: node.name.clone(),
        rootfs: layout.rootfs(&node.name),
        etc: layout.node(&node.name).join("etc"),
        pid_file: layout.init_pid(&node.name),
        hierarchies: hierarchies.clone(),
        link: Link {
            switch,
            node_batch: network::node_batch(node, subnet, switch),
            switch_batch: network::plug_batch(&node.name),
            nft: network::node_rules(config, subnet),
        },
        binds: binds(layout, config, node, leads, bin),
        tmpfs: if leads { vec![inside::ETCD.into()] } else { Vec::new() },
        files,
        sysctls: network::node_sysctls(),
        components,
    }
}

/// Each node gets the credentials that are its own, and no others.
fn binds(layout: &Layout, config: &ClusterConfig, node: &NodeName, leads: bool, bin: &Path) -> Vec<Bind> {
    let read_only =
        |source: std::path::PathBuf, target: String| Bind { source, target: target.into(), writable: false };
    let kubeconfig = |source: &str, target: &str| {
        read_only(
            layout.pki().join(format!("{source}.conf")),
            format!("{}/{target}.conf", inside::KUBERNETES),
        )
    };
    let logs = Bind { source: layout.logs(&node.name), target: inside::LOGS.into(), writable: true };
    let mut binds = vec![
        logs,
        read_only(bin.to_path_buf(), inside::BIN.to_owned()),
        kubeconfig(&format!("kubelet-{}", node.name), "kubelet"),
        kubeconfig("kube-proxy", "kube-proxy"),
    ];
    if !leads {
        binds.push(read_only(layout.certs().join("ca.crt"), format!("{}/ca.crt", inside::PKI)));
        return binds;
    }
    binds.push(read_only(layout.certs(), inside::PKI.to_owned()));
    for name in ["admin", "controller-manager", "scheduler"] {
        binds.push(kubeconfig(name, name));
    }
    if config.native_manager {
        binds.push(kubeconfig(MANAGER_USER, MANAGER_USER));
    }
    binds
}
