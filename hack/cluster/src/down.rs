//! The verb that takes a cluster down.

use anyhow::{Result, bail};

use crate::cleanup::{self, Keep};
use crate::config::validate_name;
use crate::interrupt;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::state::ClusterLock;

/// Removes every trace of the cluster called `name`. Not an error when there is none.
pub fn down(name: &str, progress: &Progress) -> Result<()> {
    validate_name(name)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("clusters need root: namespaces, mounts and links are removed");
    }
    let layout = Layout::new(name);
    let _lock = ClusterLock::take(&layout)?;
    // A clean-up cut in two would only have to be run again.
    interrupt::catch_signals()?;
    progress.run(format!("removing cluster {name}"), || cleanup::remove_cluster(&layout, Keep::Nothing))?;
    // Whoever takes a cluster down wants the machine as it was: a bench that was killed leaves a directory in
    // memory and two control groups.
    crate::bench::sweep()
}
