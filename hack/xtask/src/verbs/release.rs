//! The chart on a cluster of this machine, as `helm install` puts it there, and images on its nodes.

use std::process::Command;
use std::thread;

use anyhow::{Result, anyhow};
use trysail_cluster::Cluster;
use trysail_cluster::image::{self, ImageGroup};
use trysail_cluster::progress::Progress;
use trysail_cluster::setup;

use super::stage::{root, run};

/// The release's namespace.
pub(crate) const NAMESPACE: &str = "trysail-system";
/// The release's name.
pub(crate) const RELEASE: &str = "trysail";

/// Installs the chart, or upgrades it, and waits until its pods are ready.
pub(crate) fn install(cluster: &Cluster, settings: &[&str]) -> Result<()> {
    let mut helm = helm(cluster)?;
    helm.args(["upgrade", "--install", RELEASE]).arg(root().join("charts/trysail-workloads"));
    helm.args(["--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m"]);
    for setting in settings {
        helm.args(["--set", setting]);
    }
    helm.stdout(std::process::Stdio::null());
    run(helm)
}

/// helm as the cluster's administrator; it keeps its caches beside the cluster.
pub(crate) fn helm(cluster: &Cluster) -> Result<Command> {
    let mut helm = Command::new(setup::tool("helm")?);
    let home = cluster.layout().dir().join("helm");
    helm.env("KUBECONFIG", cluster.kubeconfig());
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(variable, &home);
    }
    Ok(helm)
}

/// Builds the images of those groups where needed and imports them into all nodes at once.
pub(crate) fn load_images(cluster: &Cluster, groups: &[ImageGroup], progress: &Progress) -> Result<()> {
    let mut archives = Vec::new();
    for group in groups {
        archives.extend(image::ensure_group(*group, progress)?);
    }
    let names: Vec<&str> = groups.iter().map(|group| group.name()).collect();
    progress.run(format!("images into the nodes ({})", names.join(", ")), || {
        thread::scope(|scope| {
            let jobs: Vec<_> = cluster
                .nodes()
                .into_iter()
                .map(|node| {
                    let archives = &archives;
                    scope
                        .spawn(move || archives.iter().try_for_each(|archive| node.load_image(&archive.path)))
                })
                .collect();
            jobs.into_iter()
                .try_for_each(|job| job.join().unwrap_or_else(|_| Err(anyhow!("an import panicked"))))
        })
    })
}
