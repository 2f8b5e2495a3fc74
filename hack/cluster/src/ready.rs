//! From running processes to a cluster that works: what is applied, and what is waited for.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::{Cluster, Node, kubectl, log_tail};
use crate::config::{CONTROL_PLANE, ClusterConfig, Cni, NodeName, address};
use crate::kubelet::JOIN_MARK;
use crate::network::NodeRoute;
use crate::process::{last_lines, run, run_with_input};
use crate::start::Start;
use crate::state::State;
use crate::{interrupt, manifests, native_manager, network};

/// How long each stage may take on a slow, busy machine before it counts as stuck.
const API_TIMEOUT: Duration = Duration::from_secs(180);
const NODES_TIMEOUT: Duration = Duration::from_secs(180);
const DNS_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a state is looked at. Each look at the API costs a kubectl.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A component that had to be started so often during `up` will not make it.
const TOO_MANY_RESTARTS: u32 = 4;

impl Start<'_> {
    pub(crate) fn bring_to_ready(self, subnet: Ipv4Addr) -> Result<()> {
        self.progress.run("API server", || self.wait_for_api())?;
        self.progress.run("access rules", || self.apply(manifests::ACCESS, "super-admin"))?;
        if self.config.native_manager {
            self.apply(native_manager::ACCESS, "super-admin")
                .context("cannot give the manager its permissions")?;
        }
        for node in self.config.nodes() {
            self.let_join(&node.name)?;
        }
        self.apply(manifests::COREDNS, "super-admin").context("cannot install CoreDNS")?;
        if self.config.cni == Cni::None {
            return self.progress.run("nodes registered", || self.wait_for_nodes(subnet).map(drop));
        }
        let routes = self.progress.run("pod addresses", || self.wait_for_nodes(subnet))?;
        self.progress.run("pod network", || self.connect_pods(&routes, subnet))?;
        self.progress.run("nodes Ready", || self.wait_for_ready())
    }

    pub(crate) fn let_join(self, node: &str) -> Result<()> {
        let mark = self.layout.rootfs(node).join(JOIN_MARK.trim_start_matches('/'));
        fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
    }

    pub(crate) fn wait_for_api(self) -> Result<()> {
        let mut answer = String::new();
        let ready = self.wait("the API server", API_TIMEOUT, CONTROL_PLANE, "kube-apiserver", || {
            self.check_components()?;
            let ready = self.kubectl("super-admin", &["get", "--raw", "/readyz"]);
            answer = ready.as_ref().err().map(ToString::to_string).unwrap_or_default();
            Ok(ready.is_ok())
        });
        ready.map_err(|error| if error.is::<Timeout>() { error.context(answer) } else { error })
    }

    /// Pod ranges as kube-controller-manager gave them out.
    pub(crate) fn wait_for_nodes(self, subnet: Ipv4Addr) -> Result<Vec<NodeRoute>> {
        let mut routes = Vec::new();
        let wanted = self.config.workers + 1;
        self.wait("the nodes to register", NODES_TIMEOUT, CONTROL_PLANE, "kubelet", || {
            self.check_components()?;
            let list: Value = serde_json::from_str(&self.kubectl("admin", &["get", "nodes", "-o", "json"])?)?;
            routes = node_routes(&list, self.config, subnet);
            Ok(routes.len() == wanted)
        })?;
        // A kubelet may not give itself this label; `kubectl get nodes` shows it as the node's role.
        let role = "node-role.kubernetes.io/control-plane=";
        self.kubectl("admin", &["label", "--overwrite", "node", CONTROL_PLANE, role])?;
        Ok(routes)
    }

    /// Gives every node its CNI configuration and routes to the pods of the others.
    pub(crate) fn connect_pods(self, routes: &[NodeRoute], subnet: Ipv4Addr) -> Result<()> {
        for route in routes {
            let node = self.node(&route.node)?;
            network::ip_batch(Some(node.init()?.pid), &network::routes_batch(&route.node, routes))
                .with_context(|| format!("cannot set the routes of node {}", route.node))?;
            // Inside the node: its /etc is an overlay that the host does not see.
            let (name, list) = match self.config.cni {
                Cni::Reference => ("10-reference", network::conflist(&route.pod_cidr)),
                Cni::Trysail => ("10-trysail", network::own_conflist(&route.pod_cidr, subnet)),
                Cni::None => return Ok(()),
            };
            let write = format!("cd /etc/cni/net.d && cat > .new && mv .new {name}.conflist");
            run_with_input(node.command("sh")?.args(["-c", &write]), &list)?;
        }
        Ok(())
    }

    pub(crate) fn wait_for_ready(self) -> Result<()> {
        let wanted = self.config.workers + 1;
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        self.wait("all nodes to be Ready", NODES_TIMEOUT, CONTROL_PLANE, "kubelet", || {
            self.check_components()?;
            let text = self.kubectl("admin", &["get", "nodes", "-o", path])?;
            Ok(text.split_whitespace().filter(|status| *status == "True").count() == wanted)
        })
    }

    pub(crate) fn wait_for_dns(self) -> Result<()> {
        let args = [
            "get",
            "deployment",
            "-n",
            "kube-system",
            "coredns",
            "-o",
            "jsonpath={.status.availableReplicas}",
        ];
        let running = self.wait("CoreDNS", DNS_TIMEOUT, CONTROL_PLANE, "kube-controller-manager", || {
            self.check_components()?;
            Ok(self.kubectl("admin", &args)?.trim() == "1")
        });
        running.map_err(|error| {
            if !error.is::<Timeout>() {
                return error;
            }
            let args = ["describe", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns"];
            let pods = self.kubectl("admin", &args).unwrap_or_default();
            error.context(format!("CoreDNS's pods:\n{}", last_lines(&pods, 15)))
        })
    }

    pub(crate) fn node(self, name: &str) -> Result<Node> {
        let state = State::read(self.layout).context("the cluster's state is gone")?;
        Cluster::new(self.layout.clone(), state).node(name)
    }

    /// Fails as soon as a component keeps dying, instead of waiting for what it would have done.
    pub(crate) fn check_components(self) -> Result<()> {
        for name in self.config.nodes() {
            let node = self.node(&name.name)?;
            node.init()?;
            for component in node.components() {
                let report = node.component(&component).unwrap_or_default();
                if report.restarts >= TOO_MANY_RESTARTS {
                    let end = report.last_end.unwrap_or_default();
                    let tail = log_tail(self.layout, &name.name, &component);
                    bail!("{component} on node {} keeps dying ({end}){tail}", name.name);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn kubectl(self, user: &str, args: &[&str]) -> Result<String> {
        let kubeconfig = self.layout.pki().join(format!("{user}.conf"));
        run(kubectl(self.layout, self.bin, &kubeconfig).arg("--request-timeout=10s").args(args))
    }

    pub(crate) fn apply(self, manifest: &str, user: &str) -> Result<()> {
        let kubeconfig = self.layout.pki().join(format!("{user}.conf"));
        let mut apply = kubectl(self.layout, self.bin, &kubeconfig);
        run_with_input(apply.args(["apply", "--validate=false", "-f", "-"]), manifest).map(drop)
    }

    /// Looks until `good` says yes; after `timeout` the log of the component that should have done it is quoted.
    pub(crate) fn wait(
        self,
        what: &str,
        timeout: Duration,
        node: &str,
        component: &str,
        mut good: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            interrupt::check()?;
            if good()? {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = log_tail(self.layout, node, component);
                return Err(Timeout { what: what.to_owned(), waited: timeout, log }.into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// What was waited for did not come.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} for {what} in vain{log}")]
struct Timeout {
    what: String,
    waited: Duration,
    log: String,
}

/// Nodes that have a pod range.
fn node_routes(list: &Value, config: &ClusterConfig, subnet: Ipv4Addr) -> Vec<NodeRoute> {
    let items = list["items"].as_array().into_iter().flatten();
    let ranges: Vec<(&str, &str)> = items
        .filter_map(|item| Some((item["metadata"]["name"].as_str()?, item["spec"]["podCIDR"].as_str()?)))
        .collect();
    let route = |node: NodeName| {
        let (_, pod_cidr) = ranges.iter().find(|(name, _)| *name == node.name)?;
        let address = address(subnet, node.host);
        Some(NodeRoute { node: node.name, address, pod_cidr: (*pod_cidr).to_owned() })
    };
    config.nodes().into_iter().filter_map(route).collect()
}
