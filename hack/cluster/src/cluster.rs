//! A running cluster as tests and verbs handle it: its nodes, their components, kubectl.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::{ClusterConfig, address, control_plane_address};
use crate::containerd;
use crate::control_plane::API_PORT;
use crate::layout::Layout;
use crate::node_init::{ComponentReport, stop_mark_name};
use crate::process::{ProcessId, all_pids, command, inner_pid, last_lines, namespace, run};
use crate::state::{Phase, State};

/// A cluster that is up.
#[derive(Clone, Debug)]
pub struct Cluster {
    layout: Layout,
    state: State,
}

/// One of its nodes.
#[derive(Clone, Debug)]
pub struct Node {
    layout: Layout,
    name: String,
    address: Ipv4Addr,
}

impl Cluster {
    /// The cluster called `name`, if it came up.
    pub fn open(name: &str) -> Result<Self> {
        let layout = Layout::new(name);
        match State::read(&layout) {
            Some(state) if state.phase == Phase::Up => Ok(Self { layout, state }),
            Some(_) => {
                bail!("cluster {name:?} did not come up: run `cargo xtask cluster up --name {name}` again")
            }
            None => bail!("there is no cluster {name:?}: run `cargo xtask cluster up --name {name}`"),
        }
    }

    pub(crate) fn new(layout: Layout, state: State) -> Self {
        Self { layout, state }
    }

    /// What it was made with.
    pub fn config(&self) -> &ClusterConfig {
        &self.state.config
    }

    /// Its files.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The administrator's kubeconfig; works from the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The API server's address as seen from the host.
    pub fn server(&self) -> String {
        format!("https://{}:{API_PORT}", control_plane_address(self.state.subnet))
    }

    /// The API server's audit log: writes and lists of all users, one JSON object per line.
    pub fn audit_log(&self) -> PathBuf {
        self.layout.audit_log()
    }

    /// All nodes, control plane first.
    pub fn nodes(&self) -> Vec<Node> {
        let nodes = self.state.config.nodes();
        nodes
            .into_iter()
            .map(|node| Node {
                layout: self.layout.clone(),
                address: address(self.state.subnet, node.host),
                name: node.name,
            })
            .collect()
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Result<Node> {
        let found = self.nodes().into_iter().find(|node| node.name == name);
        found.with_context(|| {
            let names: Vec<String> = self.nodes().into_iter().map(|node| node.name).collect();
            format!("cluster {:?} has no node {name:?}; it has {}", self.layout.name(), names.join(", "))
        })
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Command {
        kubectl(&self.layout, &self.state.bin, &self.layout.kubeconfig())
    }

    /// Runs kubectl to its end and returns what it printed.
    pub fn run_kubectl(&self, args: &[&str]) -> Result<String> {
        run(self.kubectl().args(args))
    }
}

/// kubectl with a given identity; it caches beside the cluster, not in the caller's home.
pub(crate) fn kubectl(layout: &Layout, bin: &Path, kubeconfig: &Path) -> Command {
    let mut kubectl = command(bin.join("kubectl"));
    kubectl.env("KUBECONFIG", kubeconfig).env("KUBECACHEDIR", layout.kubectl_cache());
    kubectl
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address in the cluster's subnet, which the host reaches too.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The process that is pid 1 of the node, by its number on the host.
    pub fn init(&self) -> Result<ProcessId> {
        let init = ProcessId::read(&self.layout.init_pid(&self.name)).filter(|init| init.alive());
        init.with_context(|| {
            let log = self.log_tail("init");
            format!("node {} is down{log}\nrun `cargo xtask cluster up` to repair it", self.name)
        })
    }

    /// Names of the components that its init runs.
    pub fn components(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.layout.components(&self.name)) else { return Vec::new() };
        let files = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> =
            files.filter_map(|file| file.strip_suffix(".json").map(str::to_owned)).collect();
        names.sort();
        names
    }

    /// What the node's init last said about a component.
    pub fn component(&self, component: &str) -> Option<ComponentReport> {
        let file = self.layout.components(&self.name).join(format!("{component}.json"));
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// Process number of a component on the host.
    pub fn component_pid(&self, component: &str) -> Result<i32> {
        let init = self.init()?;
        let report = self.component(component).with_context(|| {
            format!("node {} runs no {component:?}; see `cargo xtask cluster status`", self.name)
        })?;
        let down = || format!("{component} on node {} is down{}", self.name, self.log_tail(component));
        let inner = report.pid.with_context(down)?;
        let own = namespace(init.pid, "pid");
        let found = all_pids()
            .into_iter()
            .find(|pid| inner_pid(*pid) == Some(inner) && own.is_some() && namespace(*pid, "pid") == own);
        found.with_context(down)
    }

    /// Sends a signal to a component. After one that ends it, the node's init starts it again.
    pub fn signal_component(&self, component: &str, signal: Signal) -> Result<()> {
        let pid = self.component_pid(component)?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {component}"))
    }

    /// Kills a component and keeps it down until [`Node::start_component`].
    pub fn stop_component(&self, component: &str) -> Result<()> {
        let pid = self.component_pid(component)?;
        let mark = self.stop_mark(component);
        fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("cannot kill {component}"))?;
        self.wait_for(component, |report| report.pid.is_none())
    }

    /// Lets a stopped component start again and waits until its process is there.
    pub fn start_component(&self, component: &str) -> Result<()> {
        let mark = self.stop_mark(component);
        fs::remove_file(&mark)
            .with_context(|| format!("{component} on node {} was not stopped", self.name))?;
        self.wait_for(component, |report| report.pid.is_some())
    }

    /// Kills a component and waits until its successor's process is there (not until that one is ready).
    pub fn restart_component(&self, component: &str) -> Result<()> {
        let before = self.component(component).map_or(0, |report| report.restarts);
        self.signal_component(component, Signal::SIGKILL)?;
        self.wait_for(component, |report| report.restarts > before && report.pid.is_some())
    }

    fn wait_for(&self, component: &str, good: impl Fn(&ComponentReport) -> bool) -> Result<()> {
        const TIMEOUT: Duration = Duration::from_secs(30);
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if self.component(component).is_some_and(|report| good(&report)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "{component} on node {} did not change within {TIMEOUT:?}{}",
            self.name,
            self.log_tail(component)
        )
    }

    fn stop_mark(&self, component: &str) -> PathBuf {
        self.layout.components(&self.name).join(stop_mark_name(component))
    }

    /// A command that will run inside the node, in all its namespaces.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let init = self.init()?;
        let mut nsenter = command("nsenter");
        nsenter.args(["-t", &init.pid.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--"]).arg(program);
        Ok(nsenter)
    }

    /// Runs a command inside the node and returns its output.
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        let (program, args) = argv.split_first().context("no command given")?;
        run(self.command(program)?.args(args)).with_context(|| format!("on node {}", self.name))
    }

    /// Imports an image archive into the node.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        containerd::import(self.init()?.pid, &self.name, archive)
    }

    /// Kills the whole node at once, as a power cut would.
    pub fn kill(&self) -> Result<()> {
        let init = self.init()?;
        kill(Pid::from_raw(init.pid), Signal::SIGKILL).context("cannot kill the node's init")
    }

    /// The log of one of its components, or `init`.
    pub fn log(&self, component: &str) -> PathBuf {
        self.layout.log(&self.name, component)
    }

    fn log_tail(&self, component: &str) -> String {
        log_tail(&self.layout, &self.name, component)
    }
}

/// The end of a component's log, as part of an error.
pub(crate) fn log_tail(layout: &Layout, node: &str, component: &str) -> String {
    const LINES: usize = 12;
    let path = layout.log(node, component);
    let text = fs::read(&path).unwrap_or_default();
    let text = last_lines(&String::from_utf8_lossy(&text), LINES);
    if text.is_empty() {
        return format!("; its log {} is empty", path.display());
    }
    let name = layout.name();
    format!(
        "; the end of its log:\n{text}\nthe whole log: `cargo xtask cluster logs --name {name} --tail 9999 {node}/{component}`"
    )
}
