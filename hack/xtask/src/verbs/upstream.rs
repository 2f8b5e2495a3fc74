//! `cargo xtask upstream SUITE`: upstream's end-to-end suites, judged against what upstream's controllers pass.

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use trysail_cluster::config::{self, ClusterConfig};
use trysail_cluster::image::ImageGroup;
use trysail_cluster::progress::Progress;
use trysail_cluster::upstream::{self, Options, State, Target};
use trysail_cluster::{Cluster, down, up};

use super::{release, sanity};

/// The cluster that the suites run on when none is named.
const CLUSTER: &str = "upstream";
/// The suite that needs none.
const SANITY: &str = "sanity";

/// Arguments of `upstream`.
#[derive(Args, Debug)]
pub(crate) struct UpstreamArgs {
    /// The suite: apps, network, scheduling; or sanity, which judges the CSI driver without a cluster.
    suite: String,
    /// Only specs whose text matches this regular expression.
    #[arg(long, allow_hyphen_values = true)]
    focus: Option<String>,
    /// Leave out specs whose text matches this regular expression.
    #[arg(long, allow_hyphen_values = true)]
    skip: Option<String>,
    /// Specs at a time, instead of the suite's number.
    #[arg(long)]
    procs: Option<u32>,
    /// Run three times with upstream's own controllers and write e2e/upstream/SUITE.baseline.json.
    #[arg(long)]
    baseline: bool,
    /// Whose controllers do the work. Ours, unless a baseline is made.
    #[arg(long, value_enum)]
    controllers: Option<Controllers>,
    /// A running cluster to use, instead of one of its own that is removed at the end.
    #[arg(long)]
    name: Option<String>,
    /// Leave the suite's own cluster up.
    #[arg(long)]
    keep: bool,
    /// How many random orders the sanity suite runs in.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    seeds: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Controllers {
    Stock,
    Native,
}

/// What became of a run on a cluster that is up.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Specs that passed.
    pub(crate) passed: u64,
    /// Specs that failed.
    pub(crate) failed: u64,
    /// The verdict over all of it.
    pub(crate) verdict: Result<()>,
}

/// The specs of the apps suite that match `focus`, on the cluster called `name`, done by our manager.
pub(crate) fn on_native(name: &str, focus: &str) -> Result<Judged> {
    let cluster = existing(name, Controllers::Native)?;
    let options =
        Options { suite: "apps".to_owned(), focus: Some(focus.to_owned()), skip: None, procs: None };
    let outcome = upstream::run(&options, &target(&cluster)?, &Progress::new())?;
    println!("{}", outcome.table);
    let count = |state| outcome.report.specs.values().filter(|spec| spec.state == state).count() as u64;
    let failures = outcome.report.failures();
    let verdict = if failures.is_empty() {
        Ok(())
    } else {
        Err(anyhow!("the run does not count as passed:\n  {}", failures.join("\n  ")))
    };
    Ok(Judged { passed: count(State::Passed), failed: count(State::Failed), verdict })
}

fn target(cluster: &Cluster) -> Result<Target> {
    Ok(Target {
        kubeconfig: cluster.kubeconfig(),
        audit_log: cluster.audit_log(),
        kcm_controllers: running_controllers(cluster)?,
        workers: cluster.config().workers,
    })
}

/// Runs the verb.
pub(crate) fn run(args: &UpstreamArgs) -> Result<()> {
    if args.suite == SANITY {
        return sanity::run(args.seeds);
    }
    let controllers =
        args.controllers.unwrap_or(if args.baseline { Controllers::Stock } else { Controllers::Native });
    if args.baseline && controllers == Controllers::Native {
        bail!("--baseline is made with upstream's own controllers: leave --controllers native away");
    }
    let options = Options {
        suite: args.suite.clone(),
        focus: args.focus.clone(),
        skip: args.skip.clone(),
        procs: args.procs,
    };
    let progress = Progress::new();
    upstream::check(&options, !args.baseline, &progress)?;
    let cluster = match &args.name {
        Some(name) => existing(name, controllers)?,
        None => own(controllers, &progress)?,
    };
    let result = on(&cluster, args, &options, &progress);
    if args.name.is_none() && !args.keep {
        down(CLUSTER, &progress)?;
    }
    result
}

fn on(cluster: &Cluster, args: &UpstreamArgs, options: &Options, progress: &Progress) -> Result<()> {
    release::load_images(cluster, &[ImageGroup::Demo, ImageGroup::Upstream], progress)?;
    let target = target(cluster)?;
    if args.baseline {
        let path = upstream::make_baseline(options, &target, progress)?;
        println!("{}", path.display());
        return Ok(());
    }
    let outcome = upstream::run(options, &target, progress)?;
    println!("{}\n\n{}", outcome.table, outcome.path.display());
    match outcome.report.failures() {
        failures if failures.is_empty() => Ok(()),
        failures => bail!("the run does not count as passed:\n  {}", failures.join("\n  ")),
    }
}

/// `--controllers` of the kube-controller-manager that runs: what it was started with, not what was asked for.
fn running_controllers(cluster: &Cluster) -> Result<String> {
    let pid = cluster.node(config::CONTROL_PLANE)?.component_pid("kube-controller-manager")?;
    let path = format!("/proc/{pid}/cmdline");
    let bytes = std::fs::read(&path).with_context(|| format!("failed to read {path}"))?;
    let line = String::from_utf8_lossy(&bytes);
    let value = line.split('\0').find_map(|arg| arg.strip_prefix("--controllers="));
    value.map(str::to_owned).context("kube-controller-manager runs without --controllers")
}

fn wanted(controllers: Controllers) -> ClusterConfig {
    let native = controllers == Controllers::Native;
    ClusterConfig {
        name: CLUSTER.to_owned(),
        native_manager: native,
        kcm_controllers: if native { config::controllers_without_native() } else { "*".to_owned() },
        ..ClusterConfig::default()
    }
}

fn existing(name: &str, controllers: Controllers) -> Result<Cluster> {
    let cluster = Cluster::open(name)?;
    if cluster.config().native_manager != (controllers == Controllers::Native) {
        let flag = if controllers == Controllers::Native { "with" } else { "without" };
        bail!("cluster {name:?} does not fit: bring it up {flag} --native-manager");
    }
    Ok(cluster)
}

/// A cluster of the suite's own; one that an earlier run left in the other mode is replaced.
fn own(controllers: Controllers, progress: &Progress) -> Result<Cluster> {
    let wanted = wanted(controllers);
    if Cluster::open(CLUSTER).is_ok_and(|old| *old.config() != wanted) {
        down(CLUSTER, progress)?;
    }
    up(&wanted, progress)
}
