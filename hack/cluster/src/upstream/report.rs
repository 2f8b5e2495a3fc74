//! What a run leaves behind: a JSON document, and a table for people.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::audit::AuditVerdict;
use super::baseline::{Baseline, TIME_LIMIT, Verdict};
use super::ginkgo::{Results, State};
use super::suite::Exclusion;

/// One run of a suite.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// The suite's name.
    pub suite: String,
    /// The version of Kubernetes that was tested.
    pub kubernetes: String,
    /// kube-controller-manager's `--controllers` during the run.
    pub kcm_controllers: String,
    /// Ginkgo processes.
    pub procs: u32,
    /// What the command line narrowed the suite to.
    pub focus: Option<String>,
    /// What the command line left out.
    pub skip: Option<String>,
    /// Specs that were not run, with the reason.
    pub excluded: Vec<(String, String)>,
    /// The comparison with the baseline.
    pub verdict: Verdict,
    /// Who wrote what.
    pub audit: AuditVerdict,
    /// What became of each spec.
    pub specs: Results,
}

impl RunReport {
    /// Why the run does not count as passed; empty when it does.
    pub fn failures(&self) -> Vec<String> {
        let mut failures: Vec<_> = self.verdict.lost.iter().map(|spec| format!("lost: {spec}")).collect();
        failures.extend(
            self.audit.violations.iter().map(|(text, count)| format!("audit: {text} ({count} times)")),
        );
        failures
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("failed to encode the report")?;
        std::fs::write(path, text + "\n").with_context(|| format!("failed to write {}", path.display()))
    }

    pub(crate) fn exclude(&mut self, exclusions: &[Exclusion]) {
        self.excluded = exclusions.iter().map(|e| (e.spec.clone(), e.reason.clone())).collect();
    }

    /// One line per spec, then the sums.
    pub fn table(&self, baseline: &Baseline) -> String {
        let mut text = format!("{:<8} {:>8} {:>8}  spec\n", "result", "seconds", "baseline");
        for (name, result) in &self.specs {
            let mark = match result.state {
                State::Passed => "passed",
                State::Failed if self.verdict.lost.contains(name) => "LOST",
                State::Failed => "failed",
                State::Skipped => "skipped",
            };
            let before =
                baseline.specs.get(name).map(|spec| format!("{:.1}", spec.seconds)).unwrap_or_default();
            let _ = writeln!(text, "{mark:<8} {:>8.1} {before:>8}  {name}", result.seconds);
        }
        for (spec, reason) in &self.excluded {
            let _ = writeln!(text, "{:<8} {:>8} {:>8}  {spec}: {reason}", "excluded", "", "");
        }
        text.push_str(&self.summary());
        if baseline.procs != self.procs {
            let _ = write!(
                text,
                "\ntimes do not compare: {} specs at a time, {} in the baseline",
                self.procs, baseline.procs
            );
        }
        text
    }

    fn summary(&self) -> String {
        let count = |state| self.specs.values().filter(|result| result.state == state).count();
        let mut text = format!(
            "\n{} passed, {} failed, {} skipped; {} lost against the baseline",
            count(State::Passed),
            count(State::Failed),
            count(State::Skipped),
            self.verdict.lost.len()
        );
        if let Some(ratio) = self.verdict.ratio() {
            let (now, before) = (self.verdict.seconds, self.verdict.baseline_seconds);
            let judged = if ratio <= TIME_LIMIT { "within" } else { "OVER" };
            let _ = write!(
                text,
                "\ntime in sum {now:.1} s against {before:.1} s: {ratio:.2}x, {judged} {TIME_LIMIT}x"
            );
        }
        let _ = write!(text, "\nkube-controller-manager --controllers={}", self.kcm_controllers);
        for (user, writes) in &self.audit.writes_by_user {
            let _ = write!(text, "\n{writes:>8} workload writes by {user}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::baseline::BaselineSpec;
    use super::super::ginkgo::SpecResult;
    use super::*;

    fn report() -> (RunReport, Baseline) {
        let result = |state, seconds| SpecResult { state, seconds, message: String::new() };
        let spec = |seconds| BaselineSpec { runs: vec![State::Passed; 3], seconds };
        let baseline = Baseline {
            suite: "apps".into(),
            kubernetes: "v1.36.3".into(),
            procs: 4,
            kcm_controllers: "*".into(),
            specs: [("a".to_owned(), spec(10.0)), ("b".to_owned(), spec(4.2))].into(),
        };
        let report = RunReport {
            suite: "apps".into(),
            kubernetes: "v1.36.3".into(),
            kcm_controllers: "*,-deployment-controller".into(),
            procs: 4,
            focus: None,
            skip: None,
            excluded: vec![("d".into(), "no such device".into())],
            verdict: Verdict {
                lost: vec!["b".into()],
                seconds: 12.0,
                baseline_seconds: 10.0,
                ..Verdict::default()
            },
            audit: AuditVerdict {
                writes_by_user: [("trysail-manager".to_owned(), 42)].into(),
                violations: [("x wrote pods".to_owned(), 3)].into(),
                ..AuditVerdict::default()
            },
            specs: [
                ("a".to_owned(), result(State::Passed, 12.0)),
                ("b".to_owned(), result(State::Failed, 300.04)),
                ("c".to_owned(), result(State::Skipped, 0.0)),
            ]
            .into(),
        };
        (report, baseline)
    }

    #[test]
    fn the_table_shows_results_beside_the_baseline() {
        let (report, baseline) = report();
        let expected = "\
result    seconds baseline  spec
passed       12.0     10.0  a
LOST        300.0      4.2  b
skipped       0.0           c
excluded                    d: no such device

1 passed, 1 failed, 1 skipped; 1 lost against the baseline
time in sum 12.0 s against 10.0 s: 1.20x, OVER 1.1x
kube-controller-manager --controllers=*,-deployment-controller
      42 workload writes by trysail-manager";
        assert_eq!(report.table(&baseline), expected);
    }

    #[test]
    fn other_conditions_are_mentioned() {
        let (report, mut baseline) = report();
        baseline.procs = 1;
        let table = report.table(&baseline);
        assert!(table.ends_with("times do not compare: 4 specs at a time, 1 in the baseline"), "{table}");
    }

    /// A lost spec and a broken rule each fail a run; slowness and failures of unreliable specs do not.
    #[test]
    fn failures_are_lost_specs_and_broken_rules() {
        let (mut report, _) = report();
        assert_eq!(report.failures(), ["lost: b", "audit: x wrote pods (3 times)"]);
        report.verdict.lost.clear();
        report.audit.violations.clear();
        assert!(report.failures().is_empty());
    }
}
