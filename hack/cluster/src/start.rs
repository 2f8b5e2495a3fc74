//! Makes the processes of a cluster: claims what clusters share, then certificates, switch, nodes, images.
//! What the processes then do together is waited for in `ready`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cgroup::Hierarchies;
use crate::cleanup;
use crate::cluster::log_tail;
use crate::config::{COREDNS_IMAGE, ClusterConfig, Cni, MANAGER_IMAGE, NodeName, PAUSE_IMAGE};
use crate::image::{self, ImageTar};
use crate::interrupt;
use crate::layout::Layout;
use crate::process::{ProcessId, daemon, run, write_atomically};
use crate::programs::Plugin;
use crate::progress::Progress;
use crate::state::{MachineLock, Phase, State, subnets_in_use};
use crate::{host_sysctl, network, node_plan, pki, programs, rootfs};

/// Name of the process that holds the switch, in paths.
pub(crate) const SWITCH: &str = "switch";

const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);
/// On a slow, busy machine.
const CONTAINERD_TIMEOUT: Duration = Duration::from_secs(60);

/// One start, with what every step needs.
#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) config: &'a ClusterConfig,
    pub(crate) hierarchies: &'a Hierarchies,
    pub(crate) bin: &'a Path,
    pub(crate) progress: &'a Progress,
}

impl Start<'_> {
    pub(crate) fn run(self) -> Result<()> {
        // May compile for minutes, so before anything is made that a Ctrl-C would have to remove.
        let images = image::ensure_images(&self.images(), self.progress)?;
        let plugins = programs::plugins(self.config.cni, self.bin, self.progress)?;
        interrupt::check()?;
        let subnet = self.claim()?;
        std::thread::scope(|scope| {
            let certificates = scope.spawn(|| {
                self.progress
                    .run("certificates", || pki::generate(self.bin, self.layout, self.config, subnet))
            });
            let switch = self.progress.run("switch", || self.make_switch(subnet));
            join(certificates)?;
            switch
        })?;
        self.start_nodes(&self.config.nodes(), subnet, &plugins)?;
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

    fn start_nodes(self, nodes: &[NodeName], subnet: Ipv4Addr, plugins: &[Plugin]) -> Result<()> {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let switch = self.switch()?;
        self.progress.run(format!("nodes {}", names.join(", ")), || {
            std::thread::scope(|scope| {
                let launch = |node| scope.spawn(move || self.launch(node, subnet, switch, plugins));
                let jobs: Vec<_> = nodes.iter().map(launch).collect();
                jobs.into_iter().try_for_each(join)
            })
        })
    }

    fn launch(self, node: &NodeName, subnet: Ipv4Addr, switch: i32, plugins: &[Plugin]) -> Result<()> {
        let spec = node_plan::spec(self, node, subnet, switch);
        fs::create_dir_all(self.layout.logs(&node.name))?;
        rootfs::install_plugins(&spec.rootfs, plugins)?;
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

    /// Makes a dead node again, under its old name and address.
    pub(crate) fn repair(self, node: &str, subnet: Ipv4Addr) -> Result<()> {
        let step = self.progress.step(format!("repairing node {node}"));
        cleanup::remove_node(self.layout, node)?;
        let names = self.config.nodes();
        let name = names.iter().find(|name| name.name == node).context("no such node")?;
        let plugins = programs::plugins(self.config.cni, self.bin, self.progress)?;
        self.launch(name, subnet, self.switch()?, &plugins)?;
        self.let_join(node)?;
        self.import_into(node, &image::ensure_images(&self.images(), self.progress)?)?;
        if self.config.cni != Cni::None {
            let routes = self.wait_for_nodes(subnet)?;
            self.connect_pods(&routes, subnet)?;
            self.wait_for_ready()?;
        }
        step.done();
        Ok(())
    }
}

/// Below it lie private keys.
fn create_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot create {}", dir.display()))
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
