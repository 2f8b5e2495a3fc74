//! `cargo xtask codegen`: rewrites what is generated and committed; `--check` only compares.

use anyhow::Result;

use super::stage::{cargo, run};

/// Options of `codegen`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct CodegenArgs {
    /// Fail when a committed file differs from what would be generated, and change nothing.
    #[arg(long)]
    check: bool,
}

/// The generators are tests that compare, and that rewrite when `UPDATE=1`.
pub(crate) fn codegen(arguments: &CodegenArgs) -> Result<()> {
    for tests in
        [&["--package", "trysail-crds"][..], &["--package", "trysail-csi", "--test", "it", "generated"]]
    {
        let mut command = cargo(&["test", "--quiet"]);
        command.args(tests);
        if !arguments.check {
            command.env("UPDATE", "1");
        }
        run(command)?;
    }
    Ok(())
}
