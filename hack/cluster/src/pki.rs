//! Certificates and kubeconfigs, made by kubeadm's offline phases.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::{
    CONTROL_PLANE, ClusterConfig, KUBERNETES_VERSION, POD_CIDR, SERVICE_CIDR, control_plane_address,
};
use crate::layout::Layout;
use crate::process::{command, run};

/// The user of our manager when it runs as a static pod; its rights come from its own RBAC objects.
pub(crate) const MANAGER_USER: &str = "trysail-manager";

/// Kubeconfigs that kubeadm has phases for.
const PHASES: [&str; 4] = ["admin", "super-admin", "controller-manager", "scheduler"];

/// Makes everything below the cluster's pki directory.
pub(crate) fn generate(bin: &Path, layout: &Layout, config: &ClusterConfig, subnet: Ipv4Addr) -> Result<()> {
    let pki = layout.pki();
    fs::create_dir_all(layout.certs()).with_context(|| format!("cannot create {}", pki.display()))?;
    let file = pki.join("kubeadm.yaml");
    fs::write(&file, kubeadm_config(&layout.certs(), subnet))?;
    let kubeadm = |args: &[&str]| {
        run(command(bin.join("kubeadm")).args(args).arg("--config").arg(&file))
            .context("kubeadm could not make the cluster's certificates")
    };
    kubeadm(&["init", "phase", "certs", "all"])?;
    let directory = pki.to_string_lossy();
    // Each call is short and mostly start-up time; beside each other they cost half.
    std::thread::scope(|scope| {
        let mut jobs = Vec::new();
        for phase in PHASES {
            let args = ["init", "phase", "kubeconfig", phase, "--kubeconfig-dir", &*directory];
            jobs.push(scope.spawn(move || kubeadm(&args).map(drop)));
        }
        for user in users(config) {
            let path = pki.join(format!("{}.conf", user.file));
            jobs.push(scope.spawn(move || {
                let text = kubeadm(&user.arguments())?;
                crate::process::write_atomically(&path, text.as_bytes())
            }));
        }
        jobs.into_iter().try_for_each(|job| match job.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    fs::copy(pki.join("admin.conf"), layout.kubeconfig()).context("cannot write the kubeconfig")?;
    Ok(())
}

struct User {
    file: String,
    name: String,
    organisation: Option<&'static str>,
}

impl User {
    fn arguments(&self) -> Vec<&str> {
        let mut args = vec!["kubeconfig", "user", "--client-name", &self.name];
        args.extend(self.organisation.iter().flat_map(|org| ["--org", org]));
        args
    }
}

/// Clients beyond those of kubeadm's phases.
fn users(config: &ClusterConfig) -> Vec<User> {
    let kubelet = |node: &str| User {
        file: format!("kubelet-{node}"),
        name: format!("system:node:{node}"),
        organisation: Some("system:nodes"),
    };
    let plain = |file: &str, name: &str| User { file: file.into(), name: name.into(), organisation: None };
    let mut users: Vec<User> = config.nodes().iter().map(|node| kubelet(&node.name)).collect();
    users.push(plain("kube-proxy", "system:kube-proxy"));
    users.push(plain(MANAGER_USER, MANAGER_USER));
    users
}

/// ECDSA keys: they take milliseconds where RSA takes seconds.
fn kubeadm_config(certs: &Path, subnet: Ipv4Addr) -> String {
    let address = control_plane_address(subnet);
    format!(
        "\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: {address}
  bindPort: 6443
nodeRegistration:
  name: {CONTROL_PLANE}
  criSocket: unix:///run/containerd/containerd.sock
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {KUBERNETES_VERSION}
certificatesDir: {certs}
encryptionAlgorithm: ECDSA-P256
networking:
  serviceSubnet: {SERVICE_CIDR}
  podSubnet: {POD_CIDR}
apiServer:
  certSANs: [localhost, 127.0.0.1, {address}]
",
        certs = certs.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeadm_is_told_the_version_so_that_it_asks_nobody() {
        insta::assert_snapshot!(kubeadm_config(Path::new("/state/certs"), Ipv4Addr::new(198, 18, 7, 0)));
    }

    /// NodeRestriction knows a kubelet by exactly this name and group.
    #[test]
    fn kubelets_are_members_of_system_nodes() {
        let users = users(&ClusterConfig::default());
        assert_eq!(
            users[1].arguments(),
            ["kubeconfig", "user", "--client-name", "system:node:w1", "--org", "system:nodes"]
        );
    }
}
