//! A user at a prompt: the commands of the README, run as they stand there.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{cluster, program};

/// A shell in the workspace's root in which `kubectl` and `trysail` work in a namespace of their own.
#[derive(Debug)]
pub struct Shell {
    folder: tempfile::TempDir,
}

impl Shell {
    /// Opens it.
    pub fn new(namespace: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let cluster = cluster()?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::copy(cluster.kubeconfig(), &kubeconfig)?;
        for (name, command) in [("kubectl", cluster.kubectl()), ("trysail", program::trysail()?)] {
            std::os::unix::fs::symlink(command.get_program(), folder.path().join(name))?;
        }
        let shell = Self { folder };
        shell.succeed(&format!("kubectl config set-context --current --namespace {namespace}"))?;
        Ok(shell)
    }

    /// A line, not run yet.
    pub fn command(&self, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("bash");
        bash.args(["-c", line]).current_dir(program::root());
        bash.env("KUBECONFIG", self.folder.path().join("kubeconfig"));
        bash.env("KUBECACHEDIR", self.folder.path().join("cache"));
        bash.env("PATH", format!("{}:{path}", self.folder.path().display()));
        bash
    }

    /// Runs a line that must succeed, and returns what it printed.
    pub fn succeed(&self, line: &str) -> Result<String> {
        program::run(&mut self.command(line))
    }
}

/// The commands under that heading of the README, but for those that make kubectl and trysail known.
pub fn readme(heading: &str) -> Result<Vec<String>> {
    let path = program::root().join("README.md");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let section = text.split_once(&format!("\n{heading}\n")).map(|(_, section)| section);
    let section = section.with_context(|| format!("README.md has no {heading:?}"))?;
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let lines = block.with_context(|| format!("{heading:?} has no commands"))?.lines().map(str::trim);
    let prepares = |line: &&str| ["export ", "kubectl()", "cargo "].iter().any(|word| line.starts_with(word));
    Ok(lines.filter(|line| !line.is_empty() && !prepares(line)).map(str::to_owned).collect())
}
