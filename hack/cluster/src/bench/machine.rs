//! Is the machine steady? A fixed piece of work is timed before and after every run, and stolen time is counted.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A round counts only while the fixed work costs the same CPU time within this factor …
pub(crate) const MAX_SPREAD: f64 = 1.10;
/// … and the host took no more than this share of our time away.
pub(crate) const MAX_STEAL: f64 = 0.05;

const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 24;
/// The least of several tries: cold caches and a slow clock at the start are not the machine's speed.
const TRIES: usize = 5;

/// One look at the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// CPU time of the fixed work.
    work: Duration,
    stolen: u64,
    total: u64,
}

/// How steady the machine was over a round.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Steadiness {
    /// Slowest over fastest reading of the fixed work.
    pub control_spread: f64,
    /// Share of all CPU time that the host gave to others.
    pub steal: f64,
}

impl Steadiness {
    /// Over all readings of a round.
    pub(crate) fn of(readings: &[Reading]) -> Self {
        let works = || readings.iter().map(|reading| reading.work.as_secs_f64());
        let (slow, fast) = (works().fold(0.0, f64::max), works().fold(f64::INFINITY, f64::min));
        let steal = match (readings.first(), readings.last()) {
            (Some(first), Some(last)) if last.total > first.total => {
                (last.stolen - first.stolen) as f64 / (last.total - first.total) as f64
            }
            _ => 0.0,
        };
        Self { control_spread: if fast > 0.0 { slow / fast } else { 1.0 }, steal }
    }

    /// Whether figures of that round may be compared.
    pub fn steady(&self) -> bool {
        self.control_spread <= MAX_SPREAD && self.steal <= MAX_STEAL
    }
}

/// Times the fixed work.
pub(crate) fn read() -> Result<Reading> {
    let data = vec![0x5a_u8; BLOCK];
    let mut best = Duration::MAX;
    for _ in 0..TRIES {
        let start = thread_cpu()?;
        let mut hash = Sha256::new();
        for _ in 0..BLOCKS {
            hash.update(&data);
        }
        std::hint::black_box(hash.finalize());
        best = best.min(thread_cpu()?.saturating_sub(start));
    }
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let (stolen, total) = parse_stat(&stat).context("/proc/stat has no line of all CPUs")?;
    Ok(Reading { work: best, stolen, total })
}

/// CPU time of this thread: being descheduled does not count.
fn thread_cpu() -> Result<Duration> {
    let text =
        fs::read_to_string("/proc/thread-self/schedstat").context("cannot read the thread's CPU time")?;
    let nanos = text.split_whitespace().next().and_then(|field| field.parse().ok());
    nanos.map(Duration::from_nanos).context("/proc/thread-self/schedstat holds no number")
}

/// Stolen and total ticks. Guest time (fields 9 and 10) is already in user time.
fn parse_stat(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
    Some((*ticks.get(7)?, ticks.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(millis: u64, stolen: u64, total: u64) -> Reading {
        Reading { work: Duration::from_millis(millis), stolen, total }
    }

    /// One slow reading in the middle spoils the round, even when both ends agree.
    #[test]
    fn a_round_is_as_steady_as_its_worst_reading() {
        assert!(Steadiness::of(&[reading(100, 0, 0), reading(109, 0, 100)]).steady());
        assert!(!Steadiness::of(&[reading(100, 0, 0), reading(112, 0, 50), reading(100, 0, 100)]).steady());
        assert!(!Steadiness::of(&[reading(100, 0, 0), reading(100, 6, 100)]).steady());
    }

    #[test]
    fn stolen_time_is_the_eighth_field() {
        assert_eq!(parse_stat("cpu  10 0 20 60 1 2 3 4 99 99\ncpu0 1 1\n"), Some((4, 100)));
    }
}
