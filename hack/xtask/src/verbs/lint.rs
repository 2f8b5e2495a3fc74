//! `cargo xtask lint`: format, clippy with warnings denied, dependency policy.

use anyhow::Result;

use super::stage::{cargo, run};

/// Options of `lint`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct LintArgs {
    /// Repair what can be repaired.
    #[arg(long)]
    fix: bool,
}

/// Runs every lint.
pub(crate) fn lint(arguments: &LintArgs) -> Result<()> {
    if arguments.fix {
        run(cargo(&["fmt", "--all"]))?;
        run(cargo(&["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"]))?;
    }
    run(cargo(&["fmt", "--all", "--check"]))?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]))?;
    dependencies()
}

/// cargo-deny takes minutes to compile, so it is used where it is installed and asked for where it is not.
fn dependencies() -> Result<()> {
    if cargo(&["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return run(cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"]));
    }
    eprintln!(
        "note: cargo-deny is not installed, so deny.toml was not checked: cargo install cargo-deny --locked"
    );
    Ok(())
}
