//! Which programs of the host a cluster needs.

use std::path::Path;

use anyhow::{Result, bail};

/// The reference CNI plugins that a pod network of `--cni reference` uses, and `loopback`, which containerd wants.
pub(crate) const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// Installed from Debian by `cargo xtask setup`.
const INSTALLED: [&str; 9] =
    ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "ip", "nft", "nsenter", "losetup", "conntrack"];

/// Fails with the names of everything that is missing.
pub(crate) fn check() -> Result<()> {
    let missing: Vec<&str> = INSTALLED.iter().copied().filter(|name| !on_path(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("missing programs: {}: run `cargo xtask setup`", missing.join(", "))
}

fn on_path(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
    path.split(':').chain(usual).any(|directory| Path::new(directory).join(name).is_file())
}
