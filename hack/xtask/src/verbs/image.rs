//! `cargo xtask image build|save|push`: container images without a container engine.

use clap::Args;

/// Arguments of `image`.
#[derive(Args, Debug)]
pub(crate) struct ImageArgs {}

/// Runs the verb.
pub(crate) fn run(_args: &ImageArgs) -> anyhow::Result<()> {
    anyhow::bail!("image is not implemented yet")
}
