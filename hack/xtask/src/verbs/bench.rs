//! `cargo xtask bench`: our controllers beside upstream's, in figures.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use trysail_cluster::bench::{self, Kind, Options, Scale, Subject};
use trysail_cluster::progress::Progress;

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// The workload controllers for the native kinds on simulated nodes.
    Workloads(WorkloadsArgs),
}

#[derive(Args, Debug)]
struct WorkloadsArgs {
    /// Who is measured.
    #[arg(long, value_enum, default_value = "both")]
    subject: Who,
    /// Which kinds, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "replicas,jobs,daemonsets,statefulsets")]
    kinds: Vec<Kinds>,
    /// Rounds on a steady machine; twice as many are tried.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Sizes of the cluster in pods, separated by commas (0,10000,50000; with --quick 0,200,600).
    #[arg(long, value_delimiter = ',')]
    pods: Option<Vec<usize>>,
    /// Small sizes: to see that it works, not to compare.
    #[arg(long)]
    quick: bool,
    /// What is printed; the JSON is always written to target/bench/workloads.json.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Who {
    /// trysail-manager alone.
    Ours,
    /// kube-controller-manager alone.
    Kcm,
    /// Both, in turn.
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kinds {
    /// Deployments, ReplicaSets and ReplicationControllers.
    Replicas,
    Jobs,
    #[value(name = "daemonsets")]
    DaemonSets,
    #[value(name = "statefulsets")]
    StatefulSets,
}

impl From<Kinds> for Kind {
    fn from(kinds: Kinds) -> Self {
        match kinds {
            Kinds::Replicas => Kind::Replicas,
            Kinds::Jobs => Kind::Jobs,
            Kinds::DaemonSets => Kind::DaemonSets,
            Kinds::StatefulSets => Kind::StatefulSets,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Runs the verb. Figures that miss a bar are no failure: they are the result.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let What::Workloads(args) = &args.what;
    let mut scale = if args.quick { Scale::quick() } else { Scale::full() };
    if let Some(pods) = &args.pods {
        scale.pods.clone_from(pods);
    }
    scale.pods.sort_unstable();
    scale.pods.dedup();
    let subjects = match args.subject {
        Who::Ours => vec![Subject::Ours],
        Who::Kcm => vec![Subject::Kcm],
        Who::Both => vec![Subject::Ours, Subject::Kcm],
    };
    let kinds = args.kinds.iter().copied().map(Kind::from).collect();
    let options = Options { subjects, kinds, rounds: usize::from(args.rounds), scale };
    let report = bench::workloads(&options, &Progress::new())?;
    match args.output {
        Output::Table => println!("{}", report.text()),
        Output::Json => println!("{}", report.json()?),
    }
    Ok(())
}
