//! Programs that users call, run to their end: kubectl, helm, `trysail`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

/// Namespace and name of the chart's release in the tests.
pub const RELEASE_NAMESPACE: &str = "trysail-system";
/// The release's name.
pub const RELEASE: &str = "trysail";

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs a program to its end, whatever that is.
pub fn end(command: &mut Command) -> Result<Ended> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to start {shown}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

/// Runs a program that must succeed, and returns what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let ended = end(command)?;
    if ended.code != Some(0) {
        bail!("{command:?} ended with {:?}:\n{}{}", ended.code, ended.stdout, ended.stderr);
    }
    Ok(ended.stdout)
}

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// helm as the cluster's administrator; its caches go to a directory that lasts as long as the test.
pub fn helm(home: &Path) -> Result<Command> {
    let program = match std::env::var_os("TRYSAIL_HELM") {
        Some(path) => PathBuf::from(path),
        None => trysail_cluster::setup::tool("helm")?,
    };
    let mut helm = Command::new(program);
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(variable, home);
    }
    Ok(helm)
}

/// `helm upgrade --install` of our chart as the tests expect to find it, with more settings.
pub fn install_chart(home: &Path, settings: &[&str]) -> Result<()> {
    let mut helm = helm(home)?;
    helm.args(["upgrade", "--install", RELEASE]).arg(root().join("charts/trysail-workloads"));
    helm.args(["--namespace", RELEASE_NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m"]);
    for setting in settings {
        helm.args(["--set", setting]);
    }
    run(&mut helm).map(drop)
}

/// The program `trysail`: `TRYSAIL_CLI`, else built from this workspace once.
pub fn trysail() -> Result<Command> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    built(&BUILT, "trysail-cli", "TRYSAIL_CLI")
}

/// The manager as a process of this machine: `TRYSAIL_MANAGER`, else built from this workspace once.
pub fn manager() -> Result<Command> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    built(&BUILT, "trysail-manager", "TRYSAIL_MANAGER")
}

/// The manager with places in which it stops itself: `TRYSAIL_MANAGER_FAILPOINTS`, else built from this workspace
/// once. It has a target directory of its own, so that nothing else is built with them.
pub fn stopping_manager() -> Result<Command> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let more = ["--features", "failpoints", "--target-dir", "target/failpoints"];
    built_with(&BUILT, "trysail-manager", "TRYSAIL_MANAGER_FAILPOINTS", &more)
}

fn built(once: &'static OnceLock<Result<PathBuf, String>>, package: &str, variable: &str) -> Result<Command> {
    built_with(once, package, variable, &[])
}

fn built_with(
    once: &'static OnceLock<Result<PathBuf, String>>,
    package: &str,
    variable: &str,
    more: &[&str],
) -> Result<Command> {
    let path = once.get_or_init(|| match std::env::var_os(variable) {
        Some(path) => Ok(PathBuf::from(path)),
        None => build(package, more).map_err(|error| format!("{error:#}")),
    });
    match path {
        Ok(path) => Ok(Command::new(path)),
        Err(error) => bail!("{error}"),
    }
}

fn build(package: &str, more: &[&str]) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--package", package, "--message-format=json"]).args(more);
    cargo.current_dir(root());
    let messages = run(&mut cargo)?;
    let executable = messages.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.with_context(|| format!("cargo built no executable of {package}"))
}
