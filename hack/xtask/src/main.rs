//! Every developer verb of the project: `cargo xtask VERB`. This file holds the tree of verbs and nothing else.

mod verbs;

use clap::{Parser, Subcommand};

/// Developer verbs of Trysail.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Install and build what the other verbs need.
    Setup(verbs::setup::SetupArgs),
    /// From nothing to a cluster with our chart and a Deployment of ours.
    Up(verbs::up::UpArgs),
    /// Remove that cluster and every trace of it.
    Down(verbs::up::DownArgs),
    /// Everything that judges the project, on one real cluster.
    Test(verbs::test::TestArgs),
    /// Format, clippy, dependency policy.
    Lint(verbs::lint::LintArgs),
    /// Rewrite generated files.
    Codegen(verbs::codegen::CodegenArgs),
    /// Build, save or push container images.
    Image(verbs::image::ImageArgs),
    /// Real clusters on this machine.
    Cluster(verbs::cluster::ClusterArgs),
    /// Run upstream's end-to-end suites.
    Upstream(verbs::upstream::UpstreamArgs),
    /// Measure our controllers beside upstream's.
    Bench(verbs::bench::BenchArgs),

    #[command(hide = true)]
    NodeLaunch(verbs::node::LaunchArgs),
    #[command(hide = true)]
    NodeInit(verbs::node::InitArgs),
    #[command(hide = true)]
    NodeSwitch(verbs::node::SwitchArgs),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let result = match &cli.verb {
        Verb::Setup(args) => verbs::setup::run(args),
        Verb::Up(args) => verbs::up::run(args),
        Verb::Down(args) => verbs::up::remove(args),
        Verb::Test(args) => verbs::test::run(args),
        Verb::Lint(args) => verbs::lint::lint(args),
        Verb::Codegen(args) => verbs::codegen::codegen(args),
        Verb::Image(args) => verbs::image::run(args),
        Verb::Cluster(args) => verbs::cluster::run(args),
        Verb::Upstream(args) => verbs::upstream::run(args),
        Verb::Bench(args) => verbs::bench::run(args),
        Verb::NodeLaunch(args) => verbs::node::launch(args),
        Verb::NodeInit(args) => verbs::node::init(args),
        Verb::NodeSwitch(args) => verbs::node::switch(args),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
