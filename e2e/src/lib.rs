//! What the end-to-end tests are written with: a namespace per test, a watch that judges every moment, and
//! hands to break things with. Nothing here knows what a test wants to prove.

pub mod faults;
pub mod manager;
pub mod monitor;
pub mod namespace;
pub mod wait;
pub mod workload;

pub use monitor::PodMonitor;
pub use namespace::TestNamespace;

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
