//! The manager as a running program: client, election, controllers, one after the other.

use anyhow::{Context, Result};
use trysail_core::{Face, plan::Planner};
use trysail_sdk::{
    client::{Client, Fence, Options},
    controller::PlanController,
    election::ElectionConfig,
    logging,
    manager::{self, Builder, Manager},
};

use crate::{
    native_check,
    options::{Api, ControllerName, LogFormat, RunOptions},
    wiring::{cronjob, daemonset, deployment, job, replicas, statefulset},
};

/// Where the Lease lives when nothing else is said and the pod's namespace is unknown.
const NAMESPACE: &str = "trysail-system";

/// Runs until SIGTERM, or until the lease is lost.
pub(crate) async fn run(options: &RunOptions) -> Result<()> {
    let format = match options.log_format {
        LogFormat::Text => logging::LogFormat::Text,
        LogFormat::Json => logging::LogFormat::Json,
    };
    logging::init(options.verbosity, format)?;
    // Before anything that waits: as a container's first process, this one has no default for SIGTERM.
    let stop = manager::signals()?;
    tokio::pin!(stop);
    let config = config(options).await?;
    tracing::info!(server = %config.cluster_url, "connecting");
    if options.selection.api.faces().contains(&Face::Native) && !options.skip_native_check {
        let client = kube::Client::try_from(config.clone()).context("the credentials cannot be used")?;
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = native_check::reachable(&client) => {}
        }
        // Not cut short: its canary would stay.
        let namespace = lease_namespace(options);
        native_check::nobody_else_acts(client, &namespace, &controllers(options)).await?;
    }
    let fence = if options.leader_elect { Fence::closed() } else { Fence::always_open() };
    let client = Client::new(&config, Options { fence, ..Options::default() })?;
    let mut builder = Manager::builder("trysail-manager").client(client).listen(options.bind_address);
    if options.leader_elect {
        let election = ElectionConfig::new(lease_namespace(options), options.leader_elect_name.as_str());
        builder = builder.election(election);
    }
    for face in options.selection.api.faces() {
        builder = with_controllers(builder, *face, options);
    }
    builder.build().await?.run_until(stop).await?;
    Ok(())
}

/// The selected controllers, each once.
fn controllers(options: &RunOptions) -> Vec<ControllerName> {
    let mut controllers = options.selection.controllers.clone();
    controllers.sort_unstable();
    controllers.dedup();
    controllers
}

fn with_controllers(mut manager: Builder, face: Face, options: &RunOptions) -> Builder {
    let workers = usize::from(options.workers);
    let spread = options.selection.default_topology_spread;
    // Beside the native kinds, whose controllers have upstream's names, ours need names of their own.
    let beside = options.selection.api == Api::Both && face == Face::Crd;
    for controller in controllers(options) {
        manager = match controller {
            ControllerName::Deployment => {
                let controller = deployment::deployments(face, workers);
                manager.controller(named(controller, "trysail-deployment-controller", beside))
            }
            ControllerName::ReplicaSet => {
                let controller = replicas::replica_sets(face, workers, spread);
                manager.controller(named(controller, "trysail-replicaset-controller", beside))
            }
            ControllerName::ReplicationController => {
                let controller = replicas::replication_controllers(face, workers, spread);
                manager.controller(named(controller, "trysail-replication-controller", beside))
            }
            ControllerName::StatefulSet => {
                let controller = statefulset::stateful_sets(face, workers, spread);
                manager.controller(named(controller, "trysail-statefulset-controller", beside))
            }
            ControllerName::DaemonSet => {
                let controller = daemonset::daemon_sets(face, workers);
                manager.controller(named(controller, "trysail-daemonset-controller", beside))
            }
            ControllerName::Job => {
                let (jobs, pods) = (job::jobs(face, workers), job::orphan_pods(face, workers));
                manager.controller(named(jobs, "trysail-job-controller", beside)).controller(named(
                    pods,
                    "trysail-job-orphan-pod-controller",
                    beside,
                ))
            }
            ControllerName::CronJob => {
                let controller = cronjob::cron_jobs(face, workers);
                manager.controller(named(controller, "trysail-cronjob-controller", beside))
            }
            ControllerName::TtlAfterFinished => {
                let controller = job::finished_jobs(face, workers);
                manager.controller(named(controller, "trysail-ttl-after-finished-controller", beside))
            }
        };
    }
    manager
}

fn named<P: Planner>(controller: PlanController<P>, name: &'static str, beside: bool) -> PlanController<P> {
    if beside { controller.named(name) } else { controller }
}

/// Credentials: the file that was named, else KUBECONFIG, else the pod's service account.
pub(crate) async fn config(options: &RunOptions) -> Result<kube::Config> {
    let Some(path) = &options.kubeconfig else {
        return kube::Config::infer()
            .await
            .context("no way to the API server: say --kubeconfig FILE, set KUBECONFIG, or run in a pod");
    };
    let kubeconfig = kube::config::Kubeconfig::read_from(path)
        .with_context(|| format!("--kubeconfig {} cannot be read", path.display()))?;
    let choice = kube::config::KubeConfigOptions::default();
    kube::Config::from_custom_kubeconfig(kubeconfig, &choice)
        .await
        .with_context(|| format!("--kubeconfig {} cannot be used", path.display()))
}

/// Namespace of the Lease.
pub(crate) fn lease_namespace(options: &RunOptions) -> String {
    let own = || std::env::var("POD_NAMESPACE").ok().filter(|namespace| !namespace.is_empty());
    options.leader_elect_namespace.clone().or_else(own).unwrap_or_else(|| NAMESPACE.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Cli;

    /// Both faces in one process: a manager refuses controllers of one name.
    #[tokio::test]
    async fn both_faces_run_side_by_side() {
        let cli = Cli::try_parse_from(["trysail-manager", "--api=both"]).unwrap();
        let nowhere = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
        let client = Client::new(&nowhere, Options::default()).unwrap();
        let mut manager = Manager::builder("test").client(client);
        for face in cli.run.selection.api.faces() {
            manager = with_controllers(manager, *face, &cli.run);
        }
        manager.build().await.unwrap();
    }
}
