//! The table of ratios: which figures are shown, which bars they have to clear, and how it is printed.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;

use super::figures::{Figures, Phase};
use super::report::Report;
use super::scale::Scale;
use super::subject::Subject;

/// Memory at the largest size, of upstream's.
const MEMORY_BAR: f64 = 0.2;
/// CPU time of every phase, of upstream's.
const CPU_BAR: f64 = 0.5;
/// Writes, of the least number that would do.
const WRITES_BAR: f64 = 1.1;

/// What a figure has to clear.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bar {
    /// The most that passes.
    pub limit: f64,
    /// Whether it does; unknown while a side is missing.
    pub passed: Option<bool>,
}

/// One line: a figure of both subjects.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// When.
    pub phase: String,
    /// Ours.
    pub ours: Option<f64>,
    /// kube-controller-manager's.
    pub kcm: Option<f64>,
    /// Ours over theirs.
    pub ratio: Option<f64>,
    /// What it has to clear.
    pub bar: Option<Bar>,
    #[serde(skip)]
    digits: usize,
}

/// What a bar is held against.
#[derive(Clone, Copy)]
enum Goal {
    None,
    /// The ratio of ours to theirs.
    Ratio(f64),
    /// Our figure alone.
    Ours(f64),
}

/// How a figure is taken, shown and judged.
struct Figure {
    name: &'static str,
    digits: usize,
    take: fn(&Figures) -> Option<f64>,
    goal: fn(Phase, &Scale) -> Goal,
    phases: fn(Phase) -> bool,
}

const MIB: f64 = 1_048_576.0;

const FIGURES: &[Figure] = &[
    Figure {
        name: "RSS, MiB",
        digits: 1,
        take: |f| Some(f.rss as f64 / MIB),
        goal: |phase, scale| match (phase, scale.largest()) {
            (Phase::Start(pods), Some(largest)) if pods == largest => Goal::Ratio(MEMORY_BAR),
            _ => Goal::None,
        },
        phases: |_| true,
    },
    Figure {
        name: "RSS without files, MiB",
        digits: 1,
        take: |f| Some(f.rss_anon as f64 / MIB),
        goal: |_, _| Goal::None,
        phases: |_| true,
    },
    Figure {
        name: "peak RSS, MiB",
        digits: 1,
        take: |f| Some(f.rss_peak as f64 / MIB),
        goal: |_, _| Goal::None,
        phases: |_| true,
    },
    Figure {
        name: "CPU-seconds",
        digits: 2,
        take: |f| Some(f.cpu_seconds),
        goal: |_, _| Goal::Ratio(CPU_BAR),
        phases: |_| true,
    },
    Figure {
        name: "idle CPU, % of a core",
        digits: 2,
        take: |f| f.idle_cpu.map(|share| share * 100.0),
        goal: |_, _| Goal::None,
        phases: |phase| matches!(phase, Phase::Start(_)),
    },
    Figure {
        name: "API server's CPU-seconds",
        digits: 1,
        take: |f| Some(f.apiserver_cpu_seconds),
        goal: |_, _| Goal::None,
        phases: |_| true,
    },
    Figure {
        name: "the bench's CPU-seconds",
        digits: 1,
        take: |f| Some(f.bench_cpu_seconds),
        goal: |_, _| Goal::None,
        phases: |phase| !matches!(phase, Phase::Start(_)),
    },
    Figure {
        name: "status patches a second",
        digits: 0,
        take: |f| f.rate,
        goal: |_, _| Goal::None,
        phases: |phase| phase == Phase::Churn,
    },
    Figure {
        name: "seconds",
        digits: 1,
        take: |f| Some(f.seconds),
        goal: |_, _| Goal::None,
        phases: |phase| !matches!(phase, Phase::Churn | Phase::Flap),
    },
    Figure {
        name: "writes",
        digits: 0,
        take: |f| Some(f.writes as f64),
        goal: |phase, _| match phase {
            Phase::Start(_) => Goal::Ours(0.0),
            _ => Goal::None,
        },
        phases: |_| true,
    },
    Figure {
        name: "of these, specs of owners",
        digits: 0,
        take: |f| Some(f.calls.spec_writes() as f64),
        goal: |_, _| Goal::None,
        phases: |phase| matches!(phase, Phase::Burst | Phase::Rolling),
    },
    Figure {
        name: "writes / minimum",
        digits: 3,
        take: |f| (f.minimum_writes > 0).then(|| f.writes as f64 / f.minimum_writes as f64),
        goal: |_, _| Goal::Ours(WRITES_BAR),
        phases: |phase| !matches!(phase, Phase::Start(_)),
    },
    Figure {
        name: "pod writes / finished pod",
        digits: 3,
        take: |f| {
            let finished = f.calls.count("create pods");
            (finished > 0).then(|| f.calls.later_pod_writes() as f64 / finished as f64)
        },
        goal: |_, _| Goal::Ours(WRITES_BAR),
        phases: |phase| phase == Phase::Jobs,
    },
    Figure {
        name: "pods deleted",
        digits: 0,
        take: |f| Some(f.calls.count("delete pods") as f64),
        goal: |_, _| Goal::Ours(0.0),
        phases: |phase| matches!(phase, Phase::Jobs | Phase::Join | Phase::Flap | Phase::Stateful),
    },
    Figure {
        name: "events",
        digits: 0,
        take: |f| Some(f.calls.events as f64),
        goal: |_, _| Goal::None,
        phases: |phase| !matches!(phase, Phase::Start(_)),
    },
    Figure {
        name: "overshoot, pods",
        digits: 0,
        take: |f| Some(f.overshoot as f64),
        goal: |_, _| Goal::Ours(0.0),
        phases: |phase| !matches!(phase, Phase::Start(_)),
    },
];

/// All lines, figure by figure.
pub(crate) fn rows(report: &Report, scale: &Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for figure in FIGURES {
        for phase in report.phases().into_iter().filter(|phase| (figure.phases)(*phase)) {
            let side = |subject| report.median(subject, phase, figure.take);
            let goal = (figure.goal)(phase, scale);
            let row = Row::new(figure.name, phase.name(), (side(Subject::Ours), side(Subject::Kcm)), goal);
            rows.push(Row { digits: figure.digits, ..row });
        }
        if figure.name == "RSS, MiB" {
            rows.extend(bytes_per_pod(report, scale));
        }
    }
    rows
}

/// What a pod adds to the memory of the empty cluster.
fn bytes_per_pod(report: &Report, scale: &Scale) -> Option<Row> {
    let largest = scale.largest()?;
    let side = |subject| {
        let rss = |pods| report.median(subject, Phase::Start(pods), |f| Some(f.rss as f64));
        Some((rss(largest)? - rss(0)?) / largest as f64)
    };
    let name = Phase::Start(largest).name();
    Some(Row::new("bytes per pod", name, (side(Subject::Ours), side(Subject::Kcm)), Goal::None))
}

impl Row {
    fn new(figure: &str, phase: String, (ours, kcm): (Option<f64>, Option<f64>), goal: Goal) -> Self {
        let ratio = match (ours, kcm) {
            (Some(ours), Some(kcm)) if kcm != 0.0 => Some(ours / kcm),
            _ => None,
        };
        let bar = |limit: f64, value: Option<f64>| Bar { limit, passed: value.map(|value| value <= limit) };
        let bar = match goal {
            Goal::None => None,
            Goal::Ratio(limit) => Some(bar(limit, ratio)),
            Goal::Ours(limit) => Some(bar(limit, ours)),
        };
        Self { figure: figure.to_owned(), phase, ours, kcm, ratio, bar, digits: 0 }
    }
}

/// The lines as text.
pub(crate) fn ratios(rows: &[Row]) -> String {
    let mut text = format!("{:<26} {:<13} {:>10} {:>10} {:>9}  bar\n", "", "", "ours", "kcm", "ours/kcm");
    let mut last = "";
    for row in rows {
        let name = if row.figure == last { "" } else { &row.figure };
        last = &row.figure;
        let number =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.*}", row.digits));
        let ratio = row.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
        let bar = row.bar.map_or(String::new(), |bar| {
            let mark = bar.passed.map_or("-", |passed| if passed { "pass" } else { "FAIL" });
            format!("<= {} {mark}", bar.limit)
        });
        let line = format!(
            "{name:<26} {:<13} {:>10} {:>10} {ratio:>9}  {bar}",
            row.phase,
            number(row.ours),
            number(row.kcm)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The API calls by verb, phase by phase.
pub(crate) fn calls(report: &Report) -> String {
    let mut text = format!("\n{:<13} {:<36} {:>10} {:>10}\n", "phase", "API call", "ours", "kcm");
    for phase in report.phases() {
        let mut names = BTreeSet::new();
        for subject in [Subject::Ours, Subject::Kcm] {
            for figures in report.figures(subject, phase) {
                names.extend(figures.calls.by_verb.keys().cloned());
                names.extend(figures.calls.refused.keys().map(|call| format!("refused: {call}")));
            }
        }
        for name in names {
            let side = |subject| {
                let count = |figures: &Figures| {
                    let counts = match name.strip_prefix("refused: ") {
                        Some(call) => figures.calls.refused.get(call),
                        None => figures.calls.by_verb.get(&name),
                    };
                    Some(counts.copied().unwrap_or_default() as f64)
                };
                report.median(subject, phase, count).map_or("-".to_owned(), |count| format!("{count:.0}"))
            };
            let _ = writeln!(
                text,
                "{:<13} {name:<36} {:>10} {:>10}",
                phase.name(),
                side(Subject::Ours),
                side(Subject::Kcm)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(sides: (Option<f64>, Option<f64>), goal: Goal) -> Row {
        Row::new("x", "y".into(), sides, goal)
    }

    /// A bar on the ratio needs both sides; one on our figure needs ours.
    #[test]
    fn bars_are_held_against_what_they_are_about() {
        let passed = |row: Row| row.bar.unwrap().passed;
        assert_eq!(passed(row((Some(1.0), Some(2.0)), Goal::Ratio(0.5))), Some(true));
        assert_eq!(passed(row((Some(1.1), Some(2.0)), Goal::Ratio(0.5))), Some(false));
        assert_eq!(passed(row((Some(1.0), None), Goal::Ratio(0.5))), None);
        assert_eq!(passed(row((Some(1.0), None), Goal::Ours(0.0))), Some(false));
    }

    #[test]
    fn nothing_over_nothing_is_no_ratio() {
        assert_eq!(row((Some(0.0), Some(0.0)), Goal::None).ratio, None);
    }
}
