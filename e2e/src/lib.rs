//! What the end-to-end tests are written with: a namespace per test, a watch that judges every moment, and
//! hands to break things with. Nothing here knows what a test wants to prove.

pub mod audit;
pub mod faults;
pub mod history;
pub mod kinds;
pub mod local;
pub mod manager;
pub mod monitor;
pub mod namespace;
pub mod object;
pub mod program;
pub mod promises;
pub mod proxy;
pub mod shell;
pub mod stand_in;
pub mod wait;
pub mod workload;

pub use monitor::PodMonitor;
pub use namespace::TestNamespace;

use trysail_cluster::Cluster;

/// The client for the cluster under test: `KUBECONFIG`, else the cluster that `cargo xtask cluster up` started.
pub async fn connect() -> anyhow::Result<kube::Client> {
    let path = match std::env::var_os("KUBECONFIG") {
        Some(path) => std::path::PathBuf::from(path),
        None => anyhow::bail!(
            "KUBECONFIG is not set: run `cargo xtask test`, or `cargo xtask cluster up` and set it to the path printed there"
        ),
    };
    let kubeconfig = kube::config::Kubeconfig::read_from(&path)?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// The cluster under test, for what a user of its API cannot do: `TRYSAIL_CLUSTER`.
pub fn cluster() -> anyhow::Result<Cluster> {
    let name = std::env::var("TRYSAIL_CLUSTER").ok();
    Cluster::open(name.as_deref().unwrap_or(trysail_cluster::config::DEFAULT_NAME))
}
