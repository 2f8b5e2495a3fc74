//! `cargo xtask setup`: installs and builds what everything else needs.

use clap::Args;

/// Arguments of `setup`.
#[derive(Args, Debug)]
pub(crate) struct SetupArgs {}

/// Runs the verb.
pub(crate) fn run(_args: &SetupArgs) -> anyhow::Result<()> {
    anyhow::bail!("setup is not implemented yet")
}
