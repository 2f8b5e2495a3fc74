//! The short-lived process that makes a node: joins its control groups, makes its namespaces, wires it, and starts
//! its init as process 1 of a new pid namespace. Likewise the holder of the switch's network namespace.
//!
//! It must be a process of its own: namespaces can only be entered for good, and only while there is one thread.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use crate::network;
use crate::node_spec::NodeSpec;
use crate::process::ProcessId;

/// Reads a spec that `up` wrote.
pub(crate) fn read_spec(path: &Path) -> Result<NodeSpec> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no node specification", path.display()))
}

/// Makes the node and returns; its init lives on. `init_log` receives what the init says.
pub fn launch_node(spec_file: &Path, init_log: &Path) -> Result<()> {
    let spec = read_spec(spec_file)?;
    spec.hierarchies.create(&spec.cluster, &spec.node)?;
    spec.hierarchies.join(&spec.cluster, &spec.node)?;
    // Away from the terminal: its signals are for xtask alone.
    nix::unistd::setsid().context("cannot start a session")?;
    unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
    let link = &spec.link;
    network::ip_batch(None, &link.node_batch).context("cannot wire the node")?;
    network::ip_batch(Some(link.switch), &link.switch_batch)
        .context("cannot plug the node into the switch")?;
    if !link.nft.is_empty() {
        network::nft(None, &link.nft).context("cannot load the node's nftables rules")?;
    }
    // Not the mount namespace: the init makes that itself, lest its change of root changes ours too.
    unshare(
        CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .context("cannot create the node's namespaces")?;
    let log =
        File::options().create(true).append(true).open(init_log).context("cannot open the init's log")?;
    let init = Command::new("/proc/self/exe")
        .arg0("xtask")
        .arg("node-init")
        .arg(spec_file)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the node's init")?;
    let id = ProcessId::of(init.id() as i32).context("the node's init died at once")?;
    id.write(&spec.pid_file)
}

/// Makes the switch in a network namespace of its own, reports through `pid_file`, and stays until killed.
pub fn hold_switch(subnet: std::net::Ipv4Addr, pid_file: &Path) -> Result<()> {
    nix::unistd::setsid().context("cannot start a session")?;
    unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
    network::ip_batch(None, &network::switch_batch(subnet)).context("cannot make the switch")?;
    // Forwarding is what makes it answer "unreachable" instead of saying nothing.
    // (/proc/thread-self follows the namespace of this thread, /proc/sys does by itself.)
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot make the switch answer")?;
    let own = ProcessId::of(std::process::id() as i32).context("cannot read /proc/self/stat")?;
    own.write(pid_file)?;
    loop {
        nix::unistd::pause();
    }
}
