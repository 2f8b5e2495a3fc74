//! `trysail-manager`: Kubernetes' workload controllers, for our own kinds or in place of the native ones.
//!
//! This program wires; it decides nothing. Options are in `options`, permissions in `rbac`, watches in `wiring`.

mod check;
mod leave_pods;
mod native_check;
mod options;
mod rbac;
mod run;
mod wiring;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::json;

use options::{Cli, Command, RbacOptions, RunOptions};

// One thread: the work is short and mostly waiting, and the machine's cores belong to others.
#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => run::run(&cli.run).await,
        Some(Command::Check(options)) => check(&cli.run, options).await,
        Some(Command::Rbac(options)) => print_rbac(&cli.run, options),
        Some(Command::LeavePods) => leave_pods(&cli.run).await,
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn check(options: &RunOptions, check: &options::CheckOptions) -> Result<()> {
    let config = run::config(options).await?;
    let client = kube::Client::try_from(config).context("the credentials cannot be used")?;
    let namespace = run::lease_namespace(options);
    check::check(&client, &options.selection, (&namespace, &options.leader_elect_name), check).await
}

async fn leave_pods(options: &RunOptions) -> Result<()> {
    let config = run::config(options).await?;
    let client = trysail_sdk::client::Client::new(&config, trysail_sdk::client::Options::default())?;
    let namespace = run::lease_namespace(options);
    leave_pods::leave_pods(&client, (&namespace, &options.leader_elect_name)).await
}

fn print_rbac(run: &RunOptions, options: &RbacOptions) -> Result<()> {
    let group = "rbac.authorization.k8s.io";
    let subject = match (&options.user, &options.service_account) {
        (Some(user), _) => json!({"kind": "User", "apiGroup": group, "name": user}),
        (None, Some(account)) => match account.split_once('/') {
            Some((namespace, name)) => {
                json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
            }
            None => bail!("--service-account {account}: say NAMESPACE/NAME"),
        },
        (None, None) => {
            bail!("say who shall have the permissions: --user NAME or --service-account NAMESPACE/NAME")
        }
    };
    let manifest = rbac::manifest(&run.selection, &options.lease_namespace, &run.leader_elect_name, &subject);
    println!("{}", serde_json::to_string_pretty(&manifest)?);
    Ok(())
}
