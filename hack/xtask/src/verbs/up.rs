//! `cargo xtask up`: from nothing to a rolled-out Deployment of ours; `cargo xtask down`: back to nothing.

use anyhow::{Context, Result};
use trysail_cluster::config::{self, ClusterConfig};
use trysail_cluster::image::ImageGroup;
use trysail_cluster::progress::Progress;
use trysail_cluster::{Cluster, down, up};

use super::{release, setup, stage::root};

/// Arguments of `up`.
#[derive(clap::Args, Debug)]
pub(crate) struct UpArgs {
    /// Which cluster of this machine.
    #[arg(long, default_value = config::DEFAULT_NAME, env = "TRYSAIL_CLUSTER")]
    name: String,
}

/// Arguments of `down`.
#[derive(clap::Args, Debug)]
pub(crate) struct DownArgs {
    /// Which cluster of this machine.
    #[arg(long, default_value = config::DEFAULT_NAME, env = "TRYSAIL_CLUSTER")]
    name: String,
}

/// Brings everything up and shows that it works.
pub(crate) fn run(arguments: &UpArgs) -> Result<()> {
    setup::for_up()?;
    let progress = Progress::new();
    let config = ClusterConfig { name: arguments.name.clone(), ..ClusterConfig::default() };
    let cluster = up(&config, &progress)?;
    release::load_images(&cluster, &[ImageGroup::Own, ImageGroup::Demo], &progress)?;
    progress.run("helm install trysail-workloads", || release::install(&cluster, &[]))?;
    progress.run("demo: three nginx pods by our own Deployment", || demo(&cluster))?;
    println!("{}", cluster.run_kubectl(&["get", "tdeploy,trs,pods,service", "-o", "wide"])?);
    println!("Next: export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("      trysail why tdeploy web           (cargo build --release -p trysail-cli)");
    println!("      cargo xtask cluster kubectl -- scale tdeploy/web --replicas=5");
    println!("      cargo xtask down                  leaves the machine as it was");
    Ok(())
}

/// Removes the cluster and every trace of it.
pub(crate) fn remove(arguments: &DownArgs) -> Result<()> {
    down(&arguments.name, &Progress::new())
}

fn demo(cluster: &Cluster) -> Result<()> {
    let manifest = root().join("hack/demo/web.yaml");
    let manifest = manifest.to_str().context("the checkout's path is not UTF-8")?;
    cluster.run_kubectl(&["apply", "-f", manifest])?;
    cluster.run_kubectl(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=120s",
        "deployments.apps.trysail.dev/web",
    ])?;
    Ok(())
}
