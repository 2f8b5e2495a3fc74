//! Our manager in the place of kube-controller-manager's workload controllers: a static pod on the control plane.
//!
//! It must not depend on what it runs itself: no Deployment, no cluster DNS, no service account. So: host network,
//! a kubeconfig of its own user, started by the kubelet from a file.

use crate::config::{MANAGER_IMAGE, NATIVE_CONTROLLERS};
use crate::layout::inside;
use crate::node_spec::NodeFile;
use crate::pki::MANAGER_USER;

/// What the manager may do: the output of `trysail-manager rbac`, kept up to date by a test of that program.
pub(crate) const ACCESS: &str = include_str!("../rbac/native-manager.json");

/// The manager's command line.
pub(crate) fn manager_args() -> Vec<String> {
    vec![
        "--api=native".to_owned(),
        format!("--controllers={}", NATIVE_CONTROLLERS.join(",")),
        format!("--kubeconfig={}", kubeconfig()),
        // The Lease, in a namespace that is there from the first moment.
        "--leader-elect-namespace=kube-system".to_owned(),
        // On the host's network: for itself alone.
        "--bind-address=127.0.0.1:8090".to_owned(),
    ]
}

/// Its kubeconfig, on the node and in the pod alike.
pub(crate) fn kubeconfig() -> String {
    format!("{}/{MANAGER_USER}.conf", inside::KUBERNETES)
}

/// The static pod's manifest in the directory that the kubelet watches.
pub(crate) fn manifest() -> NodeFile {
    let args: Vec<String> = manager_args().iter().map(|arg| format!("    - {arg}\n")).collect();
    let text = format!(
        "\
apiVersion: v1
kind: Pod
metadata:
  name: trysail-manager
  namespace: kube-system
  labels:
    app.kubernetes.io/name: trysail-manager
spec:
  hostNetwork: true
  dnsPolicy: Default
  priorityClassName: system-node-critical
  containers:
  - name: manager
    image: {MANAGER_IMAGE}
    imagePullPolicy: Never
    args:
{args}    volumeMounts:
    - name: kubeconfig
      mountPath: {file}
      readOnly: true
  volumes:
  - name: kubeconfig
    hostPath:
      path: {file}
      type: File
",
        args = args.concat(),
        file = kubeconfig(),
    );
    NodeFile::new(&format!("{}/trysail-manager.yaml", inside::MANIFESTS), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_of_the_static_pod() {
        insta::assert_snapshot!(manifest().content);
    }
}
