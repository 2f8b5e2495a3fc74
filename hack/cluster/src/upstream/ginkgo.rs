//! Runs `e2e.test`: lists its specs, runs a chosen set of them through ginkgo, and reads the report.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::progress::Progress;
use crate::{interrupt, setup};

/// The longest argument that Linux passes on is 128 KiB; selections of whole suites come near.
const MAX_PATTERN: usize = 100_000;

/// A run that hangs must end before whoever waits for it gives up.
const SUITE_TIMEOUT: &str = "3h";

/// What became of a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It passed.
    Passed,
    /// It failed, panicked, timed out, or was interrupted.
    Failed,
    /// It decided itself that it does not apply here.
    Skipped,
}

/// The result of one spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecResult {
    /// What became of it.
    pub state: State,
    /// Wall-clock time.
    pub seconds: f64,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Results by the full text of the spec.
pub type Results = BTreeMap<String, SpecResult>;

/// One call of ginkgo.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) kubeconfig: &'a Path,
    /// Schedulable nodes.
    pub(crate) nodes: usize,
    pub(crate) procs: u32,
    pub(crate) specs: &'a [String],
    /// Directory for the log and the report.
    pub(crate) dir: &'a Path,
    /// Base name of the files in it.
    pub(crate) label: &'a str,
}

/// The full text of every spec that `e2e.test` contains.
pub(crate) fn list() -> Result<Vec<String>> {
    let output = Command::new(setup::tool("e2e.test")?)
        .arg("--list-tests")
        .env_remove("KUBECONFIG")
        .output()
        .context("failed to run `e2e.test --list-tests`")?;
    let specs = parse_list(&String::from_utf8_lossy(&output.stdout));
    if specs.is_empty() {
        bail!("`e2e.test --list-tests` named no spec: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(specs)
}

/// Lines are `    FILE:LINE: TEXT`.
fn parse_list(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with("    "))
        .filter_map(|line| {
            let (place, name) = line.trim_start().split_once(": ")?;
            let (_, number) = place.rsplit_once(':')?;
            number.parse::<u32>().is_ok().then(|| name.trim().to_owned())
        })
        .collect()
}

/// Runs the specs and returns what became of each of them. That specs fail is no error; that ginkgo did not run is.
pub(crate) fn run(call: &Call<'_>, progress: &Progress) -> Result<Results> {
    let report = call.dir.join(format!("{}.ginkgo.json", call.label));
    let log = call.dir.join(format!("{}.log", call.label));
    if report.exists() {
        // A report of an earlier run must not pass for this one's.
        std::fs::remove_file(&report).with_context(|| format!("failed to remove {}", report.display()))?;
    }
    let mut step =
        progress.step(format!("{}: {} specs, {} at a time", call.label, call.specs.len(), call.procs));
    let (mut reader, writer) = std::io::pipe().context("failed to create a pipe")?;
    let mut command = command(call, &report)?;
    command
        .stdin(Stdio::null())
        .stderr(writer.try_clone().context("failed to create a pipe")?)
        .stdout(writer);
    let mut child = command.spawn().context("failed to start ginkgo")?;
    drop(command); // it holds the pipe's write end
    let pid = Pid::from_raw(child.id().cast_signed());
    let (ended, wait_for_end) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || pass_on_interrupt(pid, &wait_for_end));
        let copied = copy(&mut reader, &log, |done| {
            step.update(format!("{}: {done} of {} specs", call.label, call.specs.len()));
        });
        drop(ended);
        copied
    })?;
    child.wait().context("failed to wait for ginkgo")?;
    if interrupt::check().is_err() {
        interrupt::clear(); // what cleans up now may have to wait for things
        return Err(interrupt::Interrupted.into());
    }
    let text = std::fs::read(&report).with_context(|| {
        format!("ginkgo wrote no report: read {}\n{}", log.display(), tail(&log).unwrap_or_default())
    })?;
    let results = parse_report(&text, call.specs)?;
    let passed = results.values().filter(|result| result.state == State::Passed).count();
    step.done_with(&format!("{passed} passed, log in {}", log.display()));
    Ok(results)
}

fn command(call: &Call<'_>, report: &Path) -> Result<Command> {
    let mut command = Command::new(setup::tool("ginkgo")?);
    command
        .arg(format!("--procs={}", call.procs))
        .arg(format!("--timeout={SUITE_TIMEOUT}"))
        .arg(format!("--json-report={}", report.file_name().unwrap_or_default().display()))
        .arg(format!("--output-dir={}", call.dir.display()))
        .args(["--no-color", "--keep-going", "--output-interceptor-mode=none"])
        .args(focus(call.specs).iter().map(|pattern| format!("--focus={pattern}")))
        .arg(setup::tool("e2e.test")?)
        .arg("--")
        .arg(format!("--kubeconfig={}", call.kubeconfig.display()))
        .arg(format!("--kubectl-path={}", setup::tool("kubectl")?.display()))
        .arg(format!("--num-nodes={}", call.nodes))
        .args(["--provider=local", "--allowed-not-ready-nodes=0", "--minStartupPods=0"])
        .args(["--disable-log-dump=true", "--node-schedulable-timeout=1m", "--dns-domain=cluster.local"])
        .env("KUBECONFIG", call.kubeconfig);
    Ok(command)
}

/// Ginkgo ends its specs and writes what it has when it gets a SIGINT; a terminal sends it one, `kill` only us.
fn pass_on_interrupt(ginkgo: Pid, ended: &mpsc::Receiver<()>) {
    const LOOK_EVERY: Duration = Duration::from_millis(200);
    while ended.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
        if interrupt::check().is_err() {
            // It may have ended in between.
            let _ = kill(ginkgo, Signal::SIGINT);
            return;
        }
    }
}

/// Patterns that match exactly `specs`. Several patterns mean "one of them" to ginkgo.
fn focus(specs: &[String]) -> Vec<String> {
    let mut patterns: Vec<String> = Vec::new();
    for spec in specs {
        // Ginkgo puts the suite's description before the text.
        let pattern = format!(" {}$", regex::escape(spec));
        match patterns.last_mut() {
            Some(last) if last.len() + pattern.len() < MAX_PATTERN => {
                last.push('|');
                last.push_str(&pattern);
            }
            _ => patterns.push(pattern),
        }
    }
    patterns
}

/// Copies ginkgo's output into the log and reports how many specs it has marked as ended.
fn copy(reader: &mut impl std::io::Read, log: &Path, mut report: impl FnMut(usize)) -> Result<()> {
    let context = || format!("failed to write {}", log.display());
    let mut file = File::create(log).with_context(context)?;
    let mut lines = BufReader::new(reader);
    let (mut line, mut done) = (Vec::new(), 0);
    while lines.read_until(b'\n', &mut line).context("failed to read ginkgo's output")? > 0 {
        file.write_all(&line).with_context(context)?;
        done += String::from_utf8_lossy(&line).matches('•').count();
        report(done);
        line.clear();
    }
    Ok(())
}

fn tail(log: &Path) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    Some(lines[lines.len().saturating_sub(20)..].join("\n"))
}

/// The parts of ginkgo's report that count.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    #[serde(default)]
    spec_reports: Vec<SpecReport>,
    #[serde(default)]
    special_suite_failure_reasons: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecReport {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    #[serde(default)]
    leaf_node_type: String,
    #[serde(default)]
    leaf_node_text: String,
    state: String,
    /// Nanoseconds.
    #[serde(default)]
    run_time: u64,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

fn parse_report(text: &[u8], specs: &[String]) -> Result<Results> {
    let reports: Vec<Report> =
        serde_json::from_slice(text).context("ginkgo's report is not what it used to be")?;
    let mut results = Results::new();
    let mut nodes = reports.iter().flat_map(|report| &report.spec_reports);
    if let Some(broken) = nodes.clone().find(|node| node.leaf_node_type != "It" && node.is_failed()) {
        bail!("the suite's {} failed: {}", broken.leaf_node_type, broken.message());
    }
    for spec in specs {
        let found = nodes.clone().find(|node| node.leaf_node_type == "It" && node.name() == *spec);
        let result = match found {
            Some(node) => node.result(),
            None => SpecResult {
                state: State::Failed,
                seconds: 0.0,
                message: "it is not in ginkgo's report".into(),
            },
        };
        results.insert(spec.clone(), result);
    }
    let reasons: Vec<_> =
        reports.iter().flat_map(|r| r.special_suite_failure_reasons.iter().flatten()).collect();
    if !reasons.is_empty() && nodes.next().is_none() {
        bail!("ginkgo ran nothing: {reasons:?}");
    }
    Ok(results)
}

impl SpecReport {
    fn name(&self) -> String {
        let containers = self.container_hierarchy_texts.iter().flatten().map(String::as_str);
        let texts: Vec<_> =
            containers.chain([self.leaf_node_text.as_str()]).filter(|text| !text.is_empty()).collect();
        texts.join(" ").trim().to_owned()
    }

    fn is_failed(&self) -> bool {
        !matches!(self.state.as_str(), "passed" | "skipped" | "pending")
    }

    fn message(&self) -> String {
        self.failure.as_ref().map(|failure| failure.message.trim().to_owned()).unwrap_or_default()
    }

    fn result(&self) -> SpecResult {
        let state = match self.state.as_str() {
            "passed" => State::Passed,
            "skipped" | "pending" => State::Skipped,
            _ => State::Failed,
        };
        SpecResult {
            state,
            seconds: Duration::from_nanos(self.run_time).as_secs_f64(),
            message: self.message(),
        }
    }
}

/// Where the files of a run go: `target/upstream`.
pub(crate) fn output_dir() -> Result<PathBuf> {
    let dir = setup::repo_root().join("target/upstream");
    std::fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let text = "The following spec names can be used:\n    k8s.io/kubernetes@v1/test/e2e/a.go:12: [sig-apps] Job a: b\n    \n";
        assert_eq!(parse_list(text), ["[sig-apps] Job a: b"]);
    }

    /// A pattern selects its spec and none whose text continues or begins differently.
    #[test]
    fn focus_matches_exactly() {
        let specs = ["[sig-apps] Job a (b)".to_owned(), "[sig-apps] Job a (b) c".to_owned()];
        let pattern = regex::Regex::new(&focus(&specs[..1]).join("|")).unwrap();
        assert!(pattern.is_match("Kubernetes e2e suite [sig-apps] Job a (b)"));
        assert!(!pattern.is_match("Kubernetes e2e suite [sig-apps] Job a (b) c"));
        assert!(!pattern.is_match("Kubernetes e2e suite [x][sig-apps] Job a (b)"));
        let many: Vec<_> = (0..3000).map(|n| format!("[sig-apps] {n} {}", "x".repeat(100))).collect();
        let patterns = focus(&many);
        assert!(patterns.len() > 1 && patterns.iter().all(|p| p.len() <= MAX_PATTERN));
    }

    #[test]
    fn reports_are_read() {
        let text = br#"[{"SpecReports": [
            {"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed", "ContainerHierarchyTexts": null},
            {"ContainerHierarchyTexts": ["[sig-apps] Job", ""], "LeafNodeType": "It", "LeafNodeText": "a", "State": "passed", "RunTime": 1500000000},
            {"ContainerHierarchyTexts": ["[sig-apps] Job"], "LeafNodeType": "It", "LeafNodeText": "b", "State": "timedout", "RunTime": 1, "Failure": {"Message": "too slow"}},
            {"ContainerHierarchyTexts": ["[sig-apps] Job"], "LeafNodeType": "It", "LeafNodeText": "other", "State": "skipped"}
        ]}]"#;
        let specs = ["a", "b", "c"].map(|name| format!("[sig-apps] Job {name}"));
        let results = parse_report(text, &specs).unwrap();
        let states: Vec<_> = results.values().map(|result| result.state).collect();
        assert_eq!(
            states,
            [State::Passed, State::Failed, State::Failed],
            "a spec without a result is a failure"
        );
        assert!((results[&specs[0]].seconds - 1.5).abs() < 1e-9);
        assert_eq!(results[&specs[1]].message, "too slow");
    }

    /// When the suite's setup fails, every spec is skipped: that must not look like a run.
    #[test]
    fn a_failed_setup_is_an_error() {
        let text = br#"[{"SpecReports": [
            {"LeafNodeType": "SynchronizedBeforeSuite", "State": "failed", "Failure": {"Message": "nodes not ready"}}]}]"#;
        let error = parse_report(text, &[]).unwrap_err().to_string();
        assert_eq!(error, "the suite's SynchronizedBeforeSuite failed: nodes not ready");
    }
}
