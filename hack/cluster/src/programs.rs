//! Which programs of the host a cluster needs.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::config::Cni;
use crate::image::compile_rust;
use crate::progress::Progress;

/// The reference CNI plugins that a pod network of `--cni reference` uses, and `loopback`, which containerd wants.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// Our plugin under the names that a node needs: `trysail-cni`, and `loopback` for containerd.
const OWN_PLUGIN: &str = "trysail-cni";
const OWN_NAMES: [&str; 2] = [OWN_PLUGIN, "loopback"];

/// A file, and its name in the node's directory of plugins.
pub(crate) type Plugin = (PathBuf, &'static str);

/// Files to put into every node's directory of CNI plugins, with their names there. With our network, none but ours:
/// what works in a cluster must work on a node on which no other plugin was ever installed.
pub(crate) fn plugins(cni: Cni, bin: &Path, progress: &Progress) -> Result<Vec<Plugin>> {
    match cni {
        Cni::Reference | Cni::None => Ok(PLUGINS.map(|name| (bin.join(name), name)).to_vec()),
        Cni::Trysail => {
            let program = progress
                .run(format!("compile {OWN_PLUGIN} (static)"), || compile_rust(OWN_PLUGIN, OWN_PLUGIN))?;
            Ok(OWN_NAMES.map(|name| (program.clone(), name)).to_vec())
        }
    }
}

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
