//! `trysail-csi`: the driver of one node, and what looks after its pools while it does not run.

mod offline;
mod options;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use trysail_csi::Driver;
use trysail_csi::service::{Backend, Metrics, Sockets, serve};
use trysail_csi::store::Store;
use trysail_csi::sys::linux::Linux;

use options::{NodeArgs, Options, Verb};

fn main() -> ExitCode {
    let result = match Options::parse().verb {
        Verb::Node(args) => node(*args),
        Verb::Inspect(args) => offline::inspect(&args),
        Verb::Repair(args) => offline::repair(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn node(args: NodeArgs) -> Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log).context("--log is no filter")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let system = Arc::new(Linux::new(&args.kubelet_root).context("--kubelet-root")?);
    let (store, reports) = Store::open(system, &args.pools)?;
    let metrics = Metrics::default();
    for report in reports {
        metrics.repaired(&report.pool, report.repairs.len() as u64);
        for (finding, result) in report.repairs {
            match result {
                Ok(()) => tracing::warn!(pool = report.pool, "{finding}"),
                Err(error) => tracing::error!(pool = report.pool, %error, "{finding}"),
            }
        }
    }
    let endpoint = args.endpoint.strip_prefix("unix://").unwrap_or(&args.endpoint).into();
    let registration = args.registration_dir.map(|directory| {
        (directory, args.kubelet_endpoint.unwrap_or_else(|| std::path::PathBuf::clone(&endpoint)))
    });
    let sockets =
        Sockets { name: args.driver_name, csi: endpoint, registration, health: args.health_address };
    let mut driver = Driver::new(store, args.node_name, args.max_volumes);
    driver.attach = args.attach;
    let driver = Arc::new(driver);
    // Blocking work has threads of its own, as many as there are calls: two are enough for the sockets.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("stopping");
        };
        tracing::info!(node = driver.node, socket = %sockets.csi.display(), "serving");
        serve(Backend { driver, metrics: Arc::new(metrics) }, sockets, stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}
