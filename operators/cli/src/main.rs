//! `trysail`, also installed as `kubectl-trysail`: what kubectl does only for the built-in workload kinds, for
//! Trysail's; and `why`, which tells what a workload waits for.
//!
//! What a verb decides is in synchronous functions on JSON (`kind`, `edit`, `image`, `rollout::{status, history,
//! change}`, `drain::plan`, `uninstall::plan`, `why::words`); what it does goes through `cluster`.

mod args;
mod cluster;
mod drain;
mod edit;
mod exec;
mod failure;
#[cfg(test)]
mod fake;
mod image;
mod kind;
mod logs;
mod pods;
mod port_forward;
mod rollout;
mod target;
mod text;
mod uninstall;
mod why;

use std::{io, path::Path, process::ExitCode};

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Rollout, Set, Verb};
use cluster::Cluster;

/// What a shell sees of a program that a closed pipe ended.
const BROKEN_PIPE: u8 = 141;

fn main() -> ExitCode {
    let command = command(std::env::args().next().as_deref());
    let cli = match command.clone().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // That the message cannot be printed changes nothing about the outcome.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let outcome = runtime.block_on(run(cli, command));
    // A read of standard input may still be blocked; waiting for it would hang until the next key.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<io::Error>().is_some_and(closed) {
        return ExitCode::from(BROKEN_PIPE);
    }
    text::note(&format!("error: {}", failure::chain(error.as_ref())));
    ExitCode::FAILURE
}

/// Named as it was called, so that the usage of a kubectl plugin reads as it is typed.
fn command(program: Option<&str>) -> clap::Command {
    let program = program.and_then(|path| Path::new(path).file_name()?.to_str());
    if program.is_some_and(|name| name.starts_with("kubectl-trysail")) {
        Cli::command().name("kubectl-trysail").bin_name("kubectl trysail")
    } else {
        Cli::command().name("trysail")
    }
}

async fn run(cli: Cli, command: clap::Command) -> Result<ExitCode> {
    if let Verb::Completion { shell } = cli.verb {
        return completion(shell, command);
    }
    // A budget's refusal is told at once and waited for in the open.
    let retries = !matches!(cli.verb, Verb::Drain(_));
    let cluster = Cluster::connect(&cli.connection, retries).await?;
    match cli.verb {
        Verb::Rollout(verb) => match verb {
            Rollout::Status(args) => rollout::status(&cluster, args).await,
            Rollout::History(args) => rollout::history(&cluster, args).await,
            Rollout::Undo(args) => rollout::undo(&cluster, args).await,
            Rollout::Pause(args) => rollout::pause(&cluster, args).await,
            Rollout::Resume(args) => rollout::resume(&cluster, args).await,
            Rollout::Restart(args) => rollout::restart(&cluster, args).await,
        },
        Verb::Set(Set::Image(args)) => rollout::set_image(&cluster, args).await,
        Verb::Logs(args) => logs::run(&cluster, args).await,
        Verb::Exec(args) => return exec::run(&cluster, args).await,
        Verb::PortForward(args) => port_forward::run(&cluster, args).await,
        Verb::Why(args) => why::run(&cluster, args).await,
        Verb::Drain(args) => drain::run(&cluster, args).await,
        Verb::Uninstall(args) => uninstall::run(&cluster, args).await,
        Verb::Completion { .. } => Ok(()),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn completion(shell: clap_complete::Shell, mut command: clap::Command) -> Result<ExitCode> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    text::out(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
