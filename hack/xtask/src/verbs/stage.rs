//! Stages of a long verb: each is announced, timed and judged; a failed one does not hide the later ones that
//! do not depend on it, and the last line counts tests as test runners do.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// What became of all stages so far.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    rows: Vec<Row>,
    tests: Counts,
}

#[derive(Debug)]
struct Row {
    name: String,
    error: Option<String>,
    took: Duration,
}

/// Tests counted from the closing lines of test runners.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
}

impl Stages {
    /// Runs one stage; `work` may count tests. Says whether it succeeded.
    pub(crate) fn run(&mut self, name: &str, work: impl FnOnce(&mut Counts) -> Result<()>) -> bool {
        eprintln!("\n=== {name}");
        let start = Instant::now();
        let mut counts = Counts::default();
        let error = work(&mut counts).err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("=== {name} failed: {error}");
            // A stage that breaks before its tests are counted must not look like a pass.
            counts.failed = counts.failed.max(1);
        }
        self.tests.passed += counts.passed;
        self.tests.failed += counts.failed;
        let failed = error.is_some();
        self.rows.push(Row { name: name.to_owned(), error, took: start.elapsed() });
        !failed
    }

    /// Prints the table and the closing line; fails when a stage failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!();
        for row in &self.rows {
            let mark = if row.error.is_some() { "FAILED" } else { "ok" };
            println!("{mark:<6} {:>7.1}s  {}", row.took.as_secs_f64(), row.name);
        }
        println!("\n{} passed, {} failed", self.tests.passed, self.tests.failed);
        let failed: Vec<&str> =
            self.rows.iter().filter(|row| row.error.is_some()).map(|row| row.name.as_str()).collect();
        if !failed.is_empty() {
            bail!("these stages failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

/// Runs `cargo` with those arguments from the workspace's root and passes its output on.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The environment of `cargo run` names the package of xtask itself: a nested cargo must not inherit it.
    for (key, _) in std::env::vars() {
        if key.starts_with("CARGO_PKG_") || key == "CARGO_MANIFEST_DIR" || key == "CARGO_MANIFEST_PATH" {
            command.env_remove(key);
        }
    }
    command.args(arguments).current_dir(root());
    command
}

/// The workspace's root.
pub(crate) fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a command to its end; an error names it.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let shown = show(&command);
    let status = command.status().with_context(|| format!("failed to start {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// Runs a test command, passes its output on and adds up its `test result:` lines.
pub(crate) fn run_tests(mut command: Command, counts: &mut Counts) -> Result<()> {
    let shown = show(&command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("failed to start {shown}"))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.with_context(|| format!("failed to read the output of {shown}"))?;
            println!("{line}");
            if let Some(result) = parse_result(&line) {
                counts.passed += result.passed;
                counts.failed += result.failed;
            }
        }
    }
    let status = child.wait().with_context(|| format!("failed to wait for {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    if counts.passed == 0 {
        bail!("{shown} ran no test");
    }
    Ok(())
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    format!("`{}`", words.join(" "))
}

/// `test result: ok. 27 passed; 0 failed; …`
fn parse_result(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |what: &str| {
        let at = rest.find(what)?;
        rest[..at].trim_end().rsplit(' ').next()?.parse().ok()
    };
    Some(Counts { passed: number(" passed")?, failed: number(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_closing_line_is_read() {
        let line = "test result: FAILED. 27 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.04s";
        assert_eq!(parse_result(line), Some(Counts { passed: 27, failed: 3 }));
        assert_eq!(parse_result("running 3 tests"), None);
    }

    #[test]
    fn a_stage_that_breaks_early_counts_as_a_failed_test() {
        let mut stages = Stages::default();
        assert!(!stages.run("x", |_| bail!("no cluster")));
        assert_eq!(stages.tests, Counts { passed: 0, failed: 1 });
        assert!(stages.finish().is_err());
    }
}
