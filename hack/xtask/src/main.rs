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
    /// Build, save or push container images.
    Image(verbs::image::ImageArgs),
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let result = match &cli.verb {
        Verb::Setup(args) => verbs::setup::run(args),
        Verb::Image(args) => verbs::image::run(args),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
