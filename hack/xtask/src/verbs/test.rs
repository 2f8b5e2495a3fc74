//! `cargo xtask test`: everything that judges the project, cheapest first.
//!
//! One cluster serves all of it: kube-controller-manager's workload controllers are off, our manager runs as a
//! static pod in their place, and the chart is installed beside it, so both faces are judged in one go.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use trysail_cluster::config::{self, ClusterConfig};
use trysail_cluster::image::ImageGroup;
use trysail_cluster::progress::Progress;
use trysail_cluster::setup::{self as tools, Group};
use trysail_cluster::{Cluster, down, up};

use super::{
    lint, release, sanity, setup,
    stage::{Counts, Stages, cargo, root, run as run_command, run_tests},
    upstream,
};

/// The tests' own cluster.
const CLUSTER: &str = "test";
/// Upstream's specs of the kinds that we run, of those that conformance demands: for kinds whose specs take long, the
/// few that go through their whole life within seconds. `cargo xtask upstream apps` runs all.
const CONFORMANCE: &str = r"\[sig-apps\] (Deployment|ReplicaSet|ReplicationController|StatefulSet.*(scale subresource|Status endpoints)|Daemon set.*(simple daemon|collection of DaemonSets)|Job.*(Indexed job|adopt matching|lifecycle of a job)|CronJob.*API operations|ControllerRevision).*\[Conformance\]";

/// Arguments of `test`.
#[derive(clap::Args, Debug)]
pub(crate) struct TestArgs {
    /// Only what needs no cluster: lint, unit, property, scenario and drift tests.
    #[arg(long)]
    no_cluster: bool,
    /// Only what needs a cluster.
    #[arg(long, conflicts_with = "no_cluster")]
    only_cluster: bool,
    /// How often the end-to-end tests and upstream's specs run, one round after the other on one cluster.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// Leave the tests' cluster up.
    #[arg(long)]
    keep: bool,
}

/// Runs the verb.
pub(crate) fn run(arguments: &TestArgs) -> Result<()> {
    let mut stages = Stages::default();
    if !stages.run("setup", |_| setup::for_tests()) {
        return stages.finish();
    }
    if arguments.only_cluster {
        stages.run("build", |_| run_command(cargo(&["build", "--workspace", "--bins", "--locked"])));
    } else {
        stages.run("lint", |_| lint::lint(&lint::LintArgs::default()));
        stages.run("unit, property, scenario and drift tests", without_cluster);
    }
    if !arguments.no_cluster {
        on_cluster(&mut stages, arguments);
    }
    stages.finish()
}

/// Tests that compare programs with files find the programs through their environment.
fn without_cluster(counts: &mut Counts) -> Result<()> {
    run_command(cargo(&["build", "--workspace", "--bins", "--locked"]))?;
    let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("HELM", tools::tool("helm")?).env("MANAGER", program("trysail-manager"));
    tests.env(sanity::ROOT_TESTS, "1");
    run_tests(tests, counts)
}

/// A program of ours as the last stage built it.
fn program(name: &str) -> PathBuf {
    root().join("target/debug").join(name)
}

fn on_cluster(stages: &mut Stages, arguments: &TestArgs) {
    let mut cluster = None;
    stages.run("a cluster with our manager in both faces", |_| {
        cluster = Some(bring_up(&Progress::new())?);
        Ok(())
    });
    if let Some(cluster) = &cluster {
        stages.run("manifests, accepted and refused", |counts| manifests(cluster, counts));
        for round in 1..=arguments.rounds {
            let ready = round == 1 || stages.run("the chart again", |_| install(cluster, &Progress::new()));
            if ready {
                stages.run("end-to-end tests", |counts| end_to_end(cluster, counts));
                stages.run("upstream's conformance specs of our kinds", conformance);
            }
        }
    }
    if !arguments.keep {
        stages.run("down", |_| down(CLUSTER, &Progress::new()));
        stages.run("nothing is left of a cluster", leftovers);
    }
}

fn bring_up(progress: &Progress) -> Result<Cluster> {
    let config = ClusterConfig {
        name: CLUSTER.to_owned(),
        native_manager: true,
        kcm_controllers: config::controllers_without_native(),
        ..ClusterConfig::default()
    };
    // What an earlier run left may hold another state of our own images.
    down(CLUSTER, progress)?;
    let cluster = up(&config, progress)?;
    release::load_images(&cluster, &[ImageGroup::Own, ImageGroup::Demo, ImageGroup::Upstream], progress)?;
    install(&cluster, progress)?;
    Ok(cluster)
}

/// The last tests of a round remove the chart.
fn install(cluster: &Cluster, progress: &Progress) -> Result<()> {
    progress.run("helm install trysail-workloads", || release::install(cluster, &[]))
}

/// Tests that ask an API server where they are told of one.
fn manifests(cluster: &Cluster, counts: &mut Counts) -> Result<()> {
    let mut tests =
        cargo(&["test", "--locked", "--workspace", "--test", "it", "the_corpora_on_a_real_api_server"]);
    tests.env("KUBECONFIG", cluster.kubeconfig()).env("KUBECTL", tools::tool("kubectl")?);
    run_tests(tests, counts)
}

/// The manager with places in which it stops itself. Beside the others it costs two crates; under their name it
/// would be taken for the one that is shipped, so it is moved, and the other one put in its place again.
fn stopping_manager() -> Result<PathBuf> {
    let own = root().join("target/failpoints");
    std::fs::create_dir_all(&own).with_context(|| format!("failed to create {}", own.display()))?;
    let bins = ["build", "--workspace", "--bins", "--locked"];
    run_command(cargo(&[&bins[..], &["--features", "trysail-manager/failpoints"]].concat()))?;
    let moved = own.join("trysail-manager");
    let built = program("trysail-manager");
    std::fs::rename(&built, &moved).with_context(|| format!("failed to move {}", built.display()))?;
    run_command(cargo(&bins))?;
    Ok(moved)
}

fn end_to_end(cluster: &Cluster, counts: &mut Counts) -> Result<()> {
    let stopping_manager = stopping_manager()?;
    // Both have their say, whatever the other one says.
    let results = [
        // Tests that only wait for what is their own.
        run_end_to_end(cluster, &["beside"], "--test-threads=8", &stopping_manager, counts),
        // Tests that break the cluster take turns with all others.
        run_end_to_end(cluster, &["cluster", "last"], "--test-threads=1", &stopping_manager, counts),
    ];
    results.into_iter().collect()
}

fn run_end_to_end(
    cluster: &Cluster,
    programs: &[&str],
    threads: &str,
    stopping_manager: &Path,
    counts: &mut Counts,
) -> Result<()> {
    // The whole workspace, so that dependencies keep the features they were built with.
    let mut tests = cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]);
    tests.args(programs.iter().flat_map(|program| ["--test", *program])).args(["--", threads]);
    tests.env("KUBECONFIG", cluster.kubeconfig());
    tests.env("TRYSAIL_CLUSTER", CLUSTER).env("TRYSAIL_E2E_FACES", "crd,native");
    tests.env("TRYSAIL_HELM", tools::tool("helm")?);
    tests.env("TRYSAIL_CLI", program("trysail")).env("TRYSAIL_MANAGER", program("trysail-manager"));
    tests.env("TRYSAIL_MANAGER_FAILPOINTS", stopping_manager);
    run_tests(tests, counts)
}

fn conformance(counts: &mut Counts) -> Result<()> {
    tools::ensure(Group::Upstream, &Progress::new())?;
    let report = upstream::on_native(CLUSTER, CONFORMANCE)?;
    counts.passed += report.passed;
    counts.failed += report.failed;
    if report.passed == 0 {
        bail!("no spec ran");
    }
    report.verdict
}

fn leftovers(counts: &mut Counts) -> Result<()> {
    let mut tests = cargo(&["test", "--locked", "--workspace", "--test", "leftovers"]);
    tests.env("TRYSAIL_CLUSTER_TESTS", "1").env("TRYSAIL_XTASK", program("xtask"));
    run_tests(tests, counts)
}
