//! What passes with upstream's own controllers, and the verdict that compares a run with it: pure.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::ginkgo::{Results, State};
use super::suite::{Exclusion, Selection};

/// Specs may take this much longer in sum than with upstream's controllers.
pub const TIME_LIMIT: f64 = 1.1;

/// The committed baseline of a suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// The suite's name.
    pub suite: String,
    /// The version of Kubernetes that was tested.
    pub kubernetes: String,
    /// Ginkgo processes; times of different numbers cannot be compared.
    pub procs: u32,
    /// kube-controller-manager's `--controllers`.
    pub kcm_controllers: String,
    /// What became of each spec.
    pub specs: BTreeMap<String, BaselineSpec>,
}

/// One spec of a baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaselineSpec {
    /// One state per run.
    pub runs: Vec<State>,
    /// The median of the runs' times.
    pub seconds: f64,
}

impl BaselineSpec {
    /// Whether the spec is reliable with upstream's controllers: then ours must pass it, too.
    fn is_required(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|state| *state == State::Passed)
    }

    fn ever_passed(&self) -> bool {
        self.runs.contains(&State::Passed)
    }
}

impl Baseline {
    /// Reads the baseline, or nothing if there is none yet.
    pub(crate) fn read(path: &Path) -> Result<Option<Baseline>> {
        match std::fs::read(path) {
            Ok(text) => {
                let parsed = serde_json::from_slice(&text);
                Ok(Some(parsed.with_context(|| format!("{} is not a baseline", path.display()))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("failed to encode the baseline")?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Replaces the specs of `runs`, and keeps those that were not run now (a baseline of a whole suite takes an
    /// hour; a part of it can be renewed alone).
    pub(crate) fn merge(&mut self, runs: &[Results]) {
        let Some(first) = runs.first() else { return };
        for name in first.keys() {
            let results: Vec<_> = runs.iter().filter_map(|run| run.get(name)).collect();
            let mut times: Vec<f64> = results.iter().map(|result| result.seconds).collect();
            times.sort_by(f64::total_cmp);
            let seconds = (times[times.len() / 2] * 10.0).round() / 10.0;
            let runs = results.iter().map(|result| result.state).collect();
            self.specs.insert(name.clone(), BaselineSpec { runs, seconds });
        }
    }

    /// Fails if an exclusion hides a spec that upstream's controllers pass.
    pub(crate) fn check_exclusions(&self, exclusions: &[Exclusion]) -> Result<()> {
        for exclusion in exclusions {
            match self.specs.get(&exclusion.spec) {
                Some(spec) if spec.ever_passed() => {
                    bail!("{:?} must not be excluded: it passes with upstream's controllers", exclusion.spec)
                }
                Some(_) => {}
                None => bail!("{:?} is excluded but not in the baseline: run it there first", exclusion.spec),
            }
        }
        Ok(())
    }
}

/// How a run compares with its baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Specs that pass with upstream's controllers and did not pass now. Empty is the goal.
    pub lost: Vec<String>,
    /// Specs that do not reliably pass with upstream's controllers and passed now.
    pub gained: Vec<String>,
    /// Specs of this run that the baseline does not know.
    pub unknown: Vec<String>,
    /// Seconds of the specs that pass in both, now.
    pub seconds: f64,
    /// Seconds of the same specs in the baseline.
    pub baseline_seconds: f64,
}

impl Verdict {
    /// The set difference between the baseline's specs that `selection` selects and what passed in `run`.
    pub(crate) fn new(baseline: &Baseline, run: &Results, selection: &Selection) -> Verdict {
        let mut verdict = Verdict::default();
        let passed = |name: &String| run.get(name).filter(|result| result.state == State::Passed);
        for (name, spec) in baseline.specs.iter().filter(|(name, _)| selection.selects(name)) {
            match passed(name) {
                Some(result) if spec.is_required() => {
                    verdict.seconds += result.seconds;
                    verdict.baseline_seconds += spec.seconds;
                }
                Some(_) => verdict.gained.push(name.clone()),
                None if spec.is_required() => verdict.lost.push(name.clone()),
                None => {}
            }
        }
        verdict.unknown = run.keys().filter(|name| !baseline.specs.contains_key(*name)).cloned().collect();
        verdict
    }

    /// Time now in relation to the baseline's; nothing when there is nothing to compare.
    pub fn ratio(&self) -> Option<f64> {
        (self.baseline_seconds > 0.0).then(|| self.seconds / self.baseline_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ginkgo::SpecResult;
    use super::super::suite::Suite;
    use super::*;

    const P: State = State::Passed;
    const F: State = State::Failed;
    const S: State = State::Skipped;

    fn run(specs: &[(&str, State, f64)]) -> Results {
        let result = |state, seconds| SpecResult { state, seconds, message: String::new() };
        specs.iter().map(|(name, state, seconds)| ((*name).to_owned(), result(*state, *seconds))).collect()
    }

    fn baseline(runs: &[Results]) -> Baseline {
        let mut baseline = Baseline {
            suite: "apps".into(),
            kubernetes: "v1".into(),
            procs: 4,
            kcm_controllers: "*".into(),
            specs: BTreeMap::new(),
        };
        baseline.merge(runs);
        baseline
    }

    fn all() -> Selection {
        let suite: Suite = serde_json::from_str(r#"{"focus": "", "procs": 1}"#).unwrap();
        Selection::new(&suite, None, None).unwrap()
    }

    /// Lost is what always passed there and does not pass here, for whatever reason; a spec that is not even in the
    /// run counts, flaky and failing ones do not.
    #[test]
    fn the_verdict_is_the_set_difference() {
        let base = baseline(&[
            run(&[
                ("good", P, 10.0),
                ("fails", P, 1.0),
                ("skips", P, 1.0),
                ("gone", P, 1.0),
                ("flaky", P, 1.0),
                ("bad", F, 1.0),
            ]),
            run(&[
                ("good", P, 30.0),
                ("fails", P, 1.0),
                ("skips", P, 1.0),
                ("gone", P, 1.0),
                ("flaky", F, 1.0),
                ("bad", F, 1.0),
            ]),
            run(&[
                ("good", P, 20.0),
                ("fails", P, 1.0),
                ("skips", P, 1.0),
                ("gone", P, 1.0),
                ("flaky", P, 1.0),
                ("bad", F, 1.0),
            ]),
        ]);
        let now = run(&[
            ("good", P, 21.0),
            ("fails", F, 9.0),
            ("skips", S, 0.0),
            ("flaky", F, 1.0),
            ("bad", P, 5.0),
            ("new", P, 1.0),
        ]);
        let verdict = Verdict::new(&base, &now, &all());
        assert_eq!(verdict.lost, ["fails", "gone", "skips"]);
        assert_eq!(verdict.gained, ["bad"]);
        assert_eq!(verdict.unknown, ["new"]);
        assert_eq!(
            (verdict.seconds, verdict.baseline_seconds),
            (21.0, 20.0),
            "the median of good, nothing else"
        );
        assert_eq!(verdict.ratio(), Some(1.05));
    }

    /// Specs outside the run's focus are no loss.
    #[test]
    fn the_verdict_keeps_to_the_selection() {
        let base = baseline(&[run(&[("[a] x", P, 1.0), ("[b] x", P, 1.0)])]);
        let suite: Suite = serde_json::from_str(r#"{"focus": "", "procs": 1}"#).unwrap();
        let selection = Selection::new(&suite, Some(r"^\[a\]"), None).unwrap();
        assert!(Verdict::new(&base, &run(&[("[a] x", P, 1.0)]), &selection).lost.is_empty());
        assert_eq!(Verdict::new(&base, &run(&[]), &selection).lost, ["[a] x"]);
    }

    #[test]
    fn merging_replaces_what_was_run() {
        let mut base = baseline(&[run(&[("a", P, 1.0), ("b", P, 1.0)])]);
        base.merge(&[run(&[("b", F, 5.04)])]);
        assert_eq!(base.specs["a"].runs, [P]);
        assert_eq!(base.specs["b"], BaselineSpec { runs: vec![F], seconds: 5.0 });
    }

    /// An exclusion needs a failure with upstream's own controllers.
    #[test]
    fn exclusions_need_a_failing_baseline() {
        let base =
            baseline(&[run(&[("bad", F, 1.0), ("good", P, 1.0)]), run(&[("bad", F, 1.0), ("good", F, 1.0)])]);
        let check =
            |spec: &str| base.check_exclusions(&[Exclusion { spec: spec.into(), reason: "r".into() }]);
        assert!(check("bad").is_ok());
        assert!(check("good").unwrap_err().to_string().contains("must not be excluded"));
        assert!(check("unheard of").is_err());
    }

    #[test]
    fn baselines_survive_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.json");
        assert_eq!(Baseline::read(&path).unwrap(), None);
        let base = baseline(&[run(&[("a", P, 1.26), ("b", S, 0.0)])]);
        base.write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), Some(base));
    }
}
