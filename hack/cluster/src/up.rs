//! Brings a cluster up: the order of the steps, and what is waited for. Each step's content is elsewhere.
//!
//! An earlier run's remains are reused when they are a complete cluster of the same options (dead workers are made
//! again), and removed otherwise. A failure, or Ctrl-C, removes everything but the logs.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cgroup::Hierarchies;
use crate::cleanup::{self, Keep};
use crate::cluster::{Cluster, Node, kubectl, log_tail};
use crate::config::{CONTROL_PLANE, COREDNS_IMAGE, ClusterConfig, Cni, MANAGER_IMAGE, NodeName, PAUSE_IMAGE};
use crate::image::{self, ImageTar};
use crate::interrupt::{self, Interrupted};
use crate::kubelet::JOIN_MARK;
use crate::layout::Layout;
use crate::network::NodeRoute;
use crate::process::{ProcessId, daemon, run, run_with_input, write_atomically};
use crate::progress::Progress;
use crate::setup::{self, Group};
use crate::state::{ClusterLock, MachineLock, Phase, State, subnets_in_use};
use crate::{host_sysctl, manifests, native_manager, network, node_plan, pki, programs};

/// Name of the process that holds the switch, in paths.
pub(crate) const SWITCH: &str = "switch";

/// How long each stage may take on a slow, busy machine before it counts as stuck.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);
const CONTAINERD_TIMEOUT: Duration = Duration::from_secs(60);
const API_TIMEOUT: Duration = Duration::from_secs(180);
const NODES_TIMEOUT: Duration = Duration::from_secs(180);
const DNS_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a state is looked at. Each look at the API costs a kubectl.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A component that had to be started so often during `up` will not make it.
const TOO_MANY_RESTARTS: u32 = 4;

/// Brings the cluster up, or makes sure that it is up.
pub fn up(config: &ClusterConfig, progress: &Progress) -> Result<Cluster> {
    config.validate()?;
    if !nix::unistd::geteuid().is_root() {
        bail!("clusters need root: namespaces, mounts and links are made");
    }
    programs::check()?;
    let layout = Layout::new(&config.name);
    let _lock = ClusterLock::take(&layout)?;
    interrupt::catch_signals()?;
    let hierarchies = Hierarchies::detect()?;
    let bin = setup::ensure(Group::Cluster, progress)?;
    if let Some(cluster) = reuse(&layout, config, &hierarchies, progress)? {
        return Ok(cluster);
    }
    hierarchies.join_helpers(&config.name)?;
    let start = Start { layout: &layout, config, hierarchies: &hierarchies, bin: &bin, progress };
    let result = start.run();
    hierarchies.leave_helpers();
    if let Err(error) = result {
        return Err(give_up(&layout, error, progress));
    }
    Cluster::open(&config.name)
}

/// After a failure nothing may stay but the explanation.
fn give_up(layout: &Layout, error: anyhow::Error, progress: &Progress) -> anyhow::Error {
    interrupt::clear();
    progress.note(if error.is::<Interrupted>() { "interrupted: cleaning up" } else { "failed: cleaning up" });
    match cleanup::remove_cluster(layout, Keep::Logs) {
        Ok(()) => error,
        Err(leftover) => error.context(format!("{leftover:#}")),
    }
}

/// A complete cluster of the same options is used as it is, after its dead nodes were made again.
fn reuse(
    layout: &Layout,
    config: &ClusterConfig,
    hierarchies: &Hierarchies,
    progress: &Progress,
) -> Result<Option<Cluster>> {
    let state = State::read(layout);
    let complete = state.filter(|state| {
        let alive = |member| ProcessId::read(&layout.init_pid(member)).is_some_and(ProcessId::alive);
        state.phase == Phase::Up && alive(SWITCH) && alive(CONTROL_PLANE)
    });
    let Some(state) = complete else {
        let remains =
            layout.dir().join("nodes").exists() || !crate::cgroup::find_groups(&config.name).is_empty();
        if remains {
            progress.run("removing what an earlier run left", || {
                cleanup::remove_cluster(layout, Keep::Nothing)
            })?;
        }
        return Ok(None);
    };
    if state.config != *config {
        bail!(
            "cluster {:?} runs with other options: take it down first (`cargo xtask cluster down --name {0}`)",
            config.name
        );
    }
    let cluster = Cluster::new(layout.clone(), state.clone());
    let dead: Vec<Node> = cluster.nodes().into_iter().filter(|node| node.init().is_err()).collect();
    if !dead.is_empty() {
        hierarchies.join_helpers(&config.name)?;
        let start = Start { layout, config, hierarchies, bin: &state.bin, progress };
        let repaired = dead.iter().try_for_each(|node| start.repair(node.name(), state.subnet));
        hierarchies.leave_helpers();
        repaired?;
    }
    progress.note(&format!("cluster {:?} is up", config.name));
    Ok(Some(cluster))
}

/// One start, with what every step needs.
#[derive(Clone, Copy)]
struct Start<'a> {
    layout: &'a Layout,
    config: &'a ClusterConfig,
    hierarchies: &'a Hierarchies,
    bin: &'a Path,
    progress: &'a Progress,
}

impl Start<'_> {
    fn run(self) -> Result<()> {
        let subnet = self.claim()?;
        let images = std::thread::scope(|scope| -> Result<Vec<ImageTar>> {
            let certificates = scope.spawn(|| {
                self.progress
                    .run("certificates", || pki::generate(self.bin, self.layout, self.config, subnet))
            });
            let images = image::ensure_images(&self.images(), self.progress)?;
            self.progress.run("switch", || self.make_switch(subnet))?;
            join(certificates)?;
            Ok(images)
        })?;
        self.start_nodes(&self.config.nodes(), subnet)?;
        std::thread::scope(|scope| {
            let loaded = scope.spawn(|| self.progress.run("image import", || self.import(&images)));
            let result = self.bring_to_ready(subnet);
            join(loaded)?;
            result
        })?;
        if self.config.deployments_work() && self.config.cni != Cni::None {
            self.progress.run("CoreDNS", || self.wait_for_dns())?;
        }
        self.state(Phase::Up, subnet).write(self.layout)
    }

    /// Everything that clusters share, under one lock: a subnet of its own, machine-wide settings.
    fn claim(self) -> Result<Ipv4Addr> {
        let _machine = MachineLock::take()?;
        // Logs of an earlier, failed start would be mistaken for this one's.
        let _ = fs::remove_dir_all(self.layout.dir());
        create_private(self.layout.dir())?;
        let subnet = network::choose_subnet(&network::host_routes()?, &subnets_in_use())?;
        self.state(Phase::Starting, subnet).write(self.layout)?;
        host_sysctl::raise()?;
        Ok(subnet)
    }

    fn images(self) -> Vec<&'static str> {
        let manager = self.config.native_manager.then_some(MANAGER_IMAGE);
        [PAUSE_IMAGE, COREDNS_IMAGE].into_iter().chain(manager).collect()
    }

    fn state(self, phase: Phase, subnet: Ipv4Addr) -> State {
        State { phase, config: self.config.clone(), subnet, bin: self.bin.to_path_buf() }
    }

    fn make_switch(self, subnet: Ipv4Addr) -> Result<()> {
        let pid_file = self.layout.init_pid(SWITCH);
        fs::create_dir_all(self.layout.node(SWITCH))?;
        fs::create_dir_all(self.layout.logs(SWITCH))?;
        let log = fs::File::create(self.layout.log(SWITCH, "init"))?;
        let mut holder = daemon(init_program()?)
            .arg("node-switch")
            .arg(subnet.to_string())
            .arg(&pid_file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the switch")?;
        self.wait("the switch", SWITCH_TIMEOUT, SWITCH, "init", || {
            if let Some(status) = holder.try_wait()? {
                bail!("the switch ended ({status}){}", log_tail(self.layout, SWITCH, "init"));
            }
            Ok(pid_file.exists())
        })?;
        let switch = self.switch()?;
        network::ip_batch(None, &network::host_batch(&self.config.name, subnet, switch))
            .and_then(|()| network::ip_batch(Some(switch), &network::plug_batch(network::HOST_PORT)))
            .context("cannot connect the host to the switch")
    }

    fn switch(self) -> Result<i32> {
        let id = ProcessId::read(&self.layout.init_pid(SWITCH)).filter(|id| id.alive());
        Ok(id.context("the switch is gone: run `cargo xtask cluster up` again")?.pid)
    }

    fn start_nodes(self, nodes: &[NodeName], subnet: Ipv4Addr) -> Result<()> {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let switch = self.switch()?;
        self.progress.run(format!("nodes {}", names.join(", ")), || {
            std::thread::scope(|scope| {
                let jobs: Vec<_> =
                    nodes.iter().map(|node| scope.spawn(move || self.launch(node, subnet, switch))).collect();
                jobs.into_iter().try_for_each(join)
            })
        })
    }

    fn launch(self, node: &NodeName, subnet: Ipv4Addr, switch: i32) -> Result<()> {
        let spec =
            node_plan::spec(self.layout, self.config, self.hierarchies, node, subnet, switch, self.bin)?;
        fs::create_dir_all(self.layout.logs(&node.name))?;
        crate::rootfs::install_plugins(&spec.rootfs, self.bin, &programs::PLUGINS)?;
        let file = self.layout.node_spec(&node.name);
        write_atomically(&file, &serde_json::to_vec_pretty(&spec)?)?;
        let log = self.layout.log(&node.name, "init");
        run(daemon(init_program()?).arg("node-launch").arg(&file).arg(&log)).with_context(|| {
            format!("cannot start node {}{}", node.name, log_tail(self.layout, &node.name, "init"))
        })?;
        Ok(())
    }

    /// Imports all images into all nodes, the nodes beside each other.
    fn import(self, images: &[ImageTar]) -> Result<()> {
        std::thread::scope(|scope| {
            let jobs: Vec<_> = self
                .config
                .nodes()
                .into_iter()
                .map(|node| scope.spawn(move || self.import_into(&node.name, images)))
                .collect();
            jobs.into_iter().try_for_each(join)
        })
    }

    fn import_into(self, node: &str, images: &[ImageTar]) -> Result<()> {
        let handle = self.node(node)?;
        self.wait("containerd", CONTAINERD_TIMEOUT, node, "containerd", || {
            self.check_components()?;
            Ok(handle.exec(&["ctr", "version"]).is_ok())
        })?;
        images.iter().try_for_each(|archive| {
            interrupt::check()?;
            handle.load_image(&archive.path)
        })
    }

    fn bring_to_ready(self, subnet: Ipv4Addr) -> Result<()> {
        self.progress.run("API server", || self.wait_for_api())?;
        self.progress.run("access rules", || self.apply(&manifests::access(), "super-admin"))?;
        if self.config.native_manager {
            self.apply(native_manager::ACCESS, "super-admin")
                .context("cannot give the manager its permissions")?;
        }
        for node in self.config.nodes() {
            self.let_join(&node.name)?;
        }
        self.apply(&manifests::coredns(), "super-admin").context("cannot install CoreDNS")?;
        if self.config.cni == Cni::None {
            return self.progress.run("nodes registered", || self.wait_for_nodes(subnet).map(drop));
        }
        let routes = self.progress.run("pod addresses", || self.wait_for_nodes(subnet))?;
        self.progress.run("pod network", || self.connect_pods(&routes))?;
        self.progress.run("nodes Ready", || self.wait_for_ready())
    }

    fn let_join(self, node: &str) -> Result<()> {
        let mark = self.layout.rootfs(node).join(JOIN_MARK.trim_start_matches('/'));
        fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))
    }

    fn wait_for_api(self) -> Result<()> {
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
    fn wait_for_nodes(self, subnet: Ipv4Addr) -> Result<Vec<NodeRoute>> {
        let mut routes = Vec::new();
        let wanted = self.config.workers + 1;
        self.wait("the nodes to register", NODES_TIMEOUT, CONTROL_PLANE, "kubelet", || {
            self.check_components()?;
            let list: Value = serde_json::from_str(&self.kubectl("admin", &["get", "nodes", "-o", "json"])?)?;
            routes = node_routes(&list, self.config, subnet);
            Ok(routes.len() == wanted)
        })?;
        Ok(routes)
    }

    /// Gives every node its CNI configuration and routes to the pods of the others.
    fn connect_pods(self, routes: &[NodeRoute]) -> Result<()> {
        for route in routes {
            let node = self.node(&route.node)?;
            network::ip_batch(Some(node.init()?.pid), &network::routes_batch(&route.node, routes))
                .with_context(|| format!("cannot set the routes of node {}", route.node))?;
            // Inside the node: its /etc is an overlay that the host does not see.
            let write =
                "cat > /etc/cni/net.d/.new && mv /etc/cni/net.d/.new /etc/cni/net.d/10-reference.conflist";
            run_with_input(node.command("sh")?.args(["-c", write]), &network::conflist(&route.pod_cidr))?;
        }
        Ok(())
    }

    fn wait_for_ready(self) -> Result<()> {
        let wanted = self.config.workers + 1;
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        self.wait("all nodes to be Ready", NODES_TIMEOUT, CONTROL_PLANE, "kubelet", || {
            self.check_components()?;
            let text = self.kubectl("admin", &["get", "nodes", "-o", path])?;
            Ok(text.split_whitespace().filter(|status| *status == "True").count() == wanted)
        })
    }

    fn wait_for_dns(self) -> Result<()> {
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
            error.context(format!("CoreDNS's pods:\n{}", crate::process::last_lines(&pods, 15)))
        })
    }

    /// Makes a dead node again, under its old name and address.
    fn repair(self, node: &str, subnet: Ipv4Addr) -> Result<()> {
        let step = self.progress.step(format!("repairing node {node}"));
        cleanup::remove_node(self.layout, node)?;
        let names = self.config.nodes();
        let name = names.iter().find(|name| name.name == node).context("no such node")?;
        self.launch(name, subnet, self.switch()?)?;
        self.let_join(node)?;
        self.import_into(node, &image::ensure_images(&self.images(), self.progress)?)?;
        if self.config.cni != Cni::None {
            let routes = self.wait_for_nodes(subnet)?;
            self.connect_pods(&routes)?;
            self.wait_for_ready()?;
        }
        step.done();
        Ok(())
    }

    fn node(self, name: &str) -> Result<Node> {
        let state = State::read(self.layout).context("the cluster's state is gone")?;
        Cluster::new(self.layout.clone(), state).node(name)
    }

    /// Fails as soon as a component keeps dying, instead of waiting for what it would have done.
    fn check_components(self) -> Result<()> {
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

    fn kubectl(self, user: &str, args: &[&str]) -> Result<String> {
        let kubeconfig = self.layout.pki().join(format!("{user}.conf"));
        run(kubectl(self.layout, self.bin, &kubeconfig).arg("--request-timeout=10s").args(args))
    }

    fn apply(self, manifest: &str, user: &str) -> Result<()> {
        let kubeconfig = self.layout.pki().join(format!("{user}.conf"));
        let mut apply = kubectl(self.layout, self.bin, &kubeconfig);
        run_with_input(apply.args(["apply", "--validate=false", "-f", "-"]), manifest).map(drop)
    }

    /// Looks until `good` says yes; after `timeout` the log of the component that should have done it is quoted.
    fn wait(
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
                return Err(Timeout { what: what.to_owned(), timeout, log }.into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// What was waited for did not come.
#[derive(Debug, thiserror::Error)]
#[error("waited {timeout:?} for {what} in vain{log}")]
struct Timeout {
    what: String,
    timeout: Duration,
    log: String,
}

/// Below it lie private keys.
fn create_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot create {}", dir.display()))
}

/// Nodes that have a pod range.
fn node_routes(list: &Value, config: &ClusterConfig, subnet: Ipv4Addr) -> Vec<NodeRoute> {
    let items = list["items"].as_array().into_iter().flatten();
    let ranges: Vec<(&str, &str)> = items
        .filter_map(|item| Some((item["metadata"]["name"].as_str()?, item["spec"]["podCIDR"].as_str()?)))
        .collect();
    let route = |node: NodeName| {
        let (_, pod_cidr) = ranges.iter().find(|(name, _)| *name == node.name)?;
        let address = crate::config::address(subnet, node.host);
        Some(NodeRoute { node: node.name, address, pod_cidr: (*pod_cidr).to_owned() })
    };
    config.nodes().into_iter().filter_map(route).collect()
}

/// The program whose hidden verbs make and run nodes: xtask, also when a test calls this library.
fn init_program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("TRYSAIL_XTASK") {
        return Ok(program.into());
    }
    let own = std::env::current_exe().context("cannot find our own program")?;
    let beside = own.ancestors().skip(1).take(2).map(|directory| directory.join("xtask"));
    let found = beside.into_iter().find(|path| path.is_file());
    found.with_context(|| format!("no xtask beside {}: run `cargo build -p xtask`", own.display()))
}

fn join(handle: std::thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    match handle.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
