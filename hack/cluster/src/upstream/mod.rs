//! Upstream's end-to-end suites against a cluster of ours.
//!
//! A baseline says what passes with upstream's own controllers; a run passes when nothing of that is lost and the
//! audit log shows that our controllers did the work. [`suite`] chooses specs, [`ginkgo`] runs them, [`baseline`]
//! and [`audit`] judge, [`report`] shows. This file decides the order, and knows no cluster: the caller says how
//! one is reached.

mod audit;
mod baseline;
mod ginkgo;
mod report;
mod suite;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

pub use self::audit::AuditVerdict;
pub use self::baseline::{Baseline, BaselineSpec, TIME_LIMIT, Verdict};
pub use self::ginkgo::{Results, SpecResult, State};
pub use self::report::RunReport;
use self::suite::{Selection, Suite, Suites};
use crate::progress::Progress;
use crate::setup::{self, Group};

/// How often a baseline runs every spec: once could be luck.
const BASELINE_RUNS: usize = 3;

/// Our manager counts as started when it has sent no LIST for this long, which may take this long at most.
const QUIET: Duration = Duration::from_secs(5);
const QUIET_LIMIT: Duration = Duration::from_secs(120);

/// How to reach the cluster, and what it is.
#[derive(Clone, Debug)]
pub struct Target {
    /// An administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The API server's audit log.
    pub audit_log: PathBuf,
    /// `--controllers` of the kube-controller-manager that runs.
    pub kcm_controllers: String,
    /// Schedulable nodes.
    pub workers: usize,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the suite.
    pub suite: String,
    /// Only specs that match this, too.
    pub focus: Option<String>,
    /// Leave out specs that match this.
    pub skip: Option<String>,
    /// Ginkgo processes, instead of the suite's number.
    pub procs: Option<u32>,
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All that is known.
    pub report: RunReport,
    /// The same for people.
    pub table: String,
    /// Where the report was written.
    pub path: PathBuf,
}

/// Everything that is settled before the first spec runs.
struct Plan {
    suites: Suites,
    suite: Suite,
    selection: Selection,
    specs: Vec<String>,
    procs: u32,
    baseline_path: PathBuf,
}

/// Fails where `options` cannot work, before a cluster is asked for. `compare` says whether a baseline is needed.
pub fn check(options: &Options, compare: bool, progress: &Progress) -> Result<()> {
    let plan = Plan::new(options, progress)?;
    if compare {
        plan.baseline(options)?.check_exclusions(&plan.suite.exclusions)?;
    }
    Ok(())
}

/// Runs the suite and compares it with its baseline. The result says whether the run passed.
pub fn run(options: &Options, target: &Target, progress: &Progress) -> Result<Outcome> {
    let plan = Plan::new(options, progress)?;
    let baseline = plan.baseline(options)?;
    baseline.check_exclusions(&plan.suite.exclusions)?;
    let identities = plan.suites.identities.clone();
    let rules = audit::Rules { identities, kcm_controllers: target.kcm_controllers.clone() };
    if rules.expects_us() {
        progress.run("wait until the manager has listed everything", || settle(&target.audit_log, &rules))?;
    }
    let start = audit::position(&target.audit_log)?;
    let specs = plan.ginkgo(target, &options.suite, progress)?;
    let mut report = RunReport {
        suite: options.suite.clone(),
        kubernetes: setup::kubernetes_version()?,
        kcm_controllers: target.kcm_controllers.clone(),
        procs: plan.procs,
        focus: options.focus.clone(),
        skip: options.skip.clone(),
        excluded: Vec::new(),
        verdict: Verdict::new(&baseline, &specs, &plan.selection),
        audit: audit::judge(&target.audit_log, start, &rules)?,
        specs,
    };
    let excluded: Vec<_> =
        plan.suite.exclusions.iter().filter(|e| plan.selection.matches(&e.spec)).cloned().collect();
    report.exclude(&excluded);
    let path = ginkgo::output_dir()?.join(format!("{}.json", options.suite));
    report.write(&path)?;
    let table = report.table(&baseline);
    Ok(Outcome { report, table, path })
}

/// Runs the suite three times on a cluster with upstream's controllers, and writes what became of each spec into
/// the committed baseline. Returns its path.
pub fn make_baseline(options: &Options, target: &Target, progress: &Progress) -> Result<PathBuf> {
    if target.kcm_controllers.split(',').any(|entry| entry.trim().starts_with('-')) {
        bail!(
            "a baseline needs upstream's own controllers, but kube-controller-manager runs with --controllers={}",
            target.kcm_controllers
        );
    }
    let plan = Plan::new(options, progress)?;
    let mut runs = Vec::new();
    for number in 1..=BASELINE_RUNS {
        let label = format!("{}-baseline-{number}", options.suite);
        runs.push(plan.ginkgo(target, &label, progress)?);
    }
    let kubernetes = setup::kubernetes_version()?;
    let fresh = || Baseline {
        suite: options.suite.clone(),
        kubernetes: kubernetes.clone(),
        procs: plan.procs,
        kcm_controllers: target.kcm_controllers.clone(),
        specs: std::collections::BTreeMap::new(),
    };
    // Results of another version or another number of processes say nothing about this one.
    let mut baseline = Baseline::read(&plan.baseline_path)?
        .filter(|old| old.kubernetes == kubernetes && old.procs == plan.procs)
        .unwrap_or_else(fresh);
    baseline.merge(&runs);
    baseline.write(&plan.baseline_path)?;
    Ok(plan.baseline_path)
}

impl Plan {
    fn new(options: &Options, progress: &Progress) -> Result<Plan> {
        let dir = suite::dir();
        let suites = Suites::read(&dir)?;
        let suite = suites.get(&options.suite)?.clone();
        let selection = Selection::new(&suite, options.focus.as_deref(), options.skip.as_deref())?;
        for group in [Group::Cluster, Group::Upstream] {
            setup::ensure(group, progress)?;
        }
        let specs: Vec<_> = ginkgo::list()?.into_iter().filter(|spec| selection.selects(spec)).collect();
        if specs.is_empty() {
            bail!("no spec of {} matches: check --focus and --skip", options.suite);
        }
        let procs = options.procs.unwrap_or(suite.procs);
        let baseline_path = dir.join(format!("{}.baseline.json", options.suite));
        Ok(Plan { suites, suite, selection, specs, procs, baseline_path })
    }

    fn baseline(&self, options: &Options) -> Result<Baseline> {
        let remedy = format!("run `cargo xtask upstream {} --baseline` with the same --focus", options.suite);
        let baseline = Baseline::read(&self.baseline_path)?
            .ok_or_else(|| anyhow!("{} does not exist: {remedy}", self.baseline_path.display()))?;
        if !self.specs.iter().any(|spec| baseline.specs.contains_key(spec)) {
            bail!("{} has none of the chosen specs: {remedy}", self.baseline_path.display());
        }
        let version = setup::kubernetes_version()?;
        if baseline.kubernetes != version {
            bail!("the baseline is of Kubernetes {}, this is {version}: {remedy}", baseline.kubernetes);
        }
        Ok(baseline)
    }

    fn ginkgo(&self, target: &Target, label: &str, progress: &Progress) -> Result<Results> {
        let dir = ginkgo::output_dir()?;
        let call = ginkgo::Call {
            kubeconfig: &target.kubeconfig,
            nodes: target.workers,
            procs: self.procs,
            specs: &self.specs,
            dir: &dir,
            label,
        };
        ginkgo::run(&call, progress)
    }
}

/// Waits until our manager has sent no LIST for a while, so that its start is not held against it.
fn settle(log: &Path, rules: &audit::Rules) -> Result<()> {
    let begun = Instant::now();
    let mut position = audit::position(log)?;
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < QUIET {
        if begun.elapsed() > QUIET_LIMIT {
            bail!("the manager still sends LISTs after {} s: read its log", QUIET_LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(250));
        let end = audit::position(log)?;
        if audit::lists(log, position, rules)? > 0 {
            quiet_since = Instant::now();
        }
        position = end;
    }
    Ok(())
}
