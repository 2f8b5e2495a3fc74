//! `cargo xtask lint`: format, clippy with warnings denied, dependency policy.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use trysail_cluster::setup;

use super::stage::{cargo, root, run};

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

/// The version that judges, so that every machine judges alike.
const CARGO_DENY: &str = "0.20.2";

fn dependencies() -> Result<()> {
    let mut deny = Command::new(cargo_deny()?);
    deny.current_dir(root()).args([
        "--offline",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
    run(deny)
}

/// The program, compiled once a machine: Debian does not have it.
fn cargo_deny() -> Result<PathBuf> {
    let home = setup::cache_dir()?.join(format!("cargo-deny-{CARGO_DENY}"));
    let program = home.join("bin/cargo-deny");
    if !program.is_file() {
        eprintln!("compiling cargo-deny {CARGO_DENY}, once; this takes minutes");
        let mut install =
            cargo(&["install", "cargo-deny", "--quiet", "--locked", "--version", CARGO_DENY, "--root"]);
        install.arg(&home);
        run(install)?;
    }
    Ok(program)
}
