//! What a bench leaves behind: a JSON document and a table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::figures::{Figures, Phase, PhaseFigures};
use super::machine::Steadiness;
use super::subject::Subject;
use super::table::{self, Row};
use super::{Options, Scale};
use crate::setup;

/// One round: every subject once on every size.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// Whether its figures may be compared.
    pub steadiness: Steadiness,
    /// By subject and phase.
    pub figures: BTreeMap<Subject, PhaseFigures>,
    /// Where the subjects' end states differ, by phase; only when there are two.
    pub differences: BTreeMap<Phase, Difference>,
}

/// A comparison of two end states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How many objects differ.
    pub count: usize,
    /// The first of them.
    pub shown: Vec<String>,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    kubernetes: String,
    cores: usize,
    scale: Scale,
    subjects: Vec<Subject>,
    rounds_wanted: usize,
    rounds: Vec<Round>,
    /// The medians of the rounds that count.
    pub rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(options: &Options, rounds: Vec<Round>) -> Result<Self> {
        let mut report = Self {
            kubernetes: setup::kubernetes_version()?,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            scale: options.scale.clone(),
            subjects: options.subjects.clone(),
            rounds_wanted: options.rounds,
            rounds,
            rows: Vec::new(),
        };
        report.rows = table::rows(&report, &options.scale);
        Ok(report)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.json()? + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// The whole as JSON.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("cannot encode the report")
    }

    /// The rounds that count: the steady ones, or all when there is none.
    fn counted(&self) -> impl Iterator<Item = &Round> {
        let any = self.steady() > 0;
        self.rounds.iter().filter(move |round| !any || round.steadiness.steady())
    }

    fn steady(&self) -> usize {
        self.rounds.iter().filter(|round| round.steadiness.steady()).count()
    }

    /// That phase of that subject in each round that counts.
    pub(crate) fn figures(&self, subject: Subject, phase: Phase) -> impl Iterator<Item = &Figures> {
        self.counted().filter_map(move |round| round.figures.get(&subject)?.get(&phase))
    }

    /// The median over the rounds that count.
    pub(crate) fn median(
        &self,
        subject: Subject,
        phase: Phase,
        value: impl Fn(&Figures) -> Option<f64>,
    ) -> Option<f64> {
        median(self.figures(subject, phase).filter_map(value).collect())
    }

    /// Every phase that ran, in the order of time.
    pub(crate) fn phases(&self) -> Vec<Phase> {
        let mut phases: Vec<Phase> = self
            .rounds
            .iter()
            .flat_map(|round| round.figures.values())
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        phases.sort_unstable();
        phases.dedup();
        phases
    }

    /// All for people: the table of ratios, the API calls, the end states, and how far it may be trusted.
    pub fn text(&self) -> String {
        let mut text = table::ratios(&self.rows);
        text.push_str(&table::calls(self));
        text.push_str(&self.end_states());
        let _ = write!(
            text,
            "\nKubernetes {}, {} cores; medians of {} of {} rounds",
            self.kubernetes,
            self.cores,
            self.counted().count(),
            self.rounds.len()
        );
        if self.steady() < self.rounds_wanted {
            let _ = write!(
                text,
                "\nNOT STEADY: {} of the {} rounds that were wanted; do not quote these figures",
                self.steady(),
                self.rounds_wanted
            );
        }
        text
    }

    fn end_states(&self) -> String {
        let mut text = String::new();
        for (number, round) in self.rounds.iter().enumerate() {
            for (phase, difference) in &round.differences {
                if difference.count > 0 {
                    let _ = writeln!(
                        text,
                        "END STATES DIFFER in {} objects, round {}, {}:\n  {}",
                        difference.count,
                        number + 1,
                        phase.name(),
                        difference.shown.join("\n  ")
                    );
                }
            }
        }
        let compared: usize = self.rounds.iter().map(|round| round.differences.len()).sum();
        if text.is_empty() && compared > 0 {
            let _ = writeln!(text, "\nend states are equal in all {compared} comparisons");
        }
        text
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::Kind;
    use crate::bench::calls::Calls;

    pub(crate) fn report() -> Report {
        let figures = |cpu_seconds: f64, rss: u64, creates: u64| Figures {
            cpu_seconds,
            rss,
            rss_peak: rss,
            writes: creates,
            minimum_writes: 100,
            quiet: true,
            calls: Calls { by_verb: [("create pods".to_owned(), creates)].into(), ..Calls::default() },
            ..Figures::default()
        };
        let subject = |factor: f64| -> PhaseFigures {
            let rss = |mib: f64| (mib * factor) as u64 * (1 << 20);
            [
                (Phase::Start(0), figures(0.5 * factor, rss(20.0), 0)),
                (Phase::Burst, figures(4.0 * factor, rss(30.0), 100)),
                (Phase::Start(200), figures(1.0 * factor, rss(40.0), 0)),
            ]
            .into()
        };
        let round = |spread: f64, factor: f64| Round {
            steadiness: Steadiness { control_spread: spread, steal: 0.0 },
            figures: [(Subject::Ours, subject(factor)), (Subject::Kcm, subject(4.0))].into(),
            differences: [(Phase::Burst, Difference::default())].into(),
        };
        let options = Options {
            subjects: vec![Subject::Ours, Subject::Kcm],
            kinds: vec![Kind::Replicas],
            rounds: 2,
            scale: Scale { pods: vec![0, 200], ..Scale::quick() },
        };
        let mut report =
            Report::new(&options, vec![round(1.01, 1.0), round(1.3, 90.0), round(1.02, 2.0)]).unwrap();
        report.cores = 2;
        report
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    /// An unsteady round must not move the figures.
    #[test]
    fn unsteady_rounds_do_not_count() {
        let cpu = report().median(Subject::Ours, Phase::Burst, |figures| Some(figures.cpu_seconds));
        assert_eq!(cpu, Some(6.0));
    }

    /// Without a steady round there is still something to read, but it says that it is worth little.
    #[test]
    fn figures_of_unsteady_rounds_alone_are_marked() {
        let mut report = report();
        report.rounds.retain(|round| !round.steadiness.steady());
        assert!(report.text().contains("NOT STEADY: 0 of the 2"), "{}", report.text());
    }

    #[test]
    fn differences_of_the_end_states_are_told() {
        let mut report = report();
        assert!(report.text().contains("end states are equal in all 3 comparisons"));
        report.rounds[2]
            .differences
            .insert(Phase::Burst, Difference { count: 1, shown: vec!["web differs".into()] });
        assert!(
            report.text().contains("DIFFER in 1 objects, round 3, burst:\n  web differs"),
            "{}",
            report.text()
        );
    }

    #[test]
    fn the_text() {
        insta::assert_snapshot!(report().text());
    }
}
