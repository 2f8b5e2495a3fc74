//! What the user says on the command line, and nothing that is derived from it.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use trysail_core::Face;

/// Kubernetes' workload controllers: for the kinds of apps.trysail.dev, or for the native kinds.
#[derive(Parser, Debug, Clone)]
#[command(name = "trysail-manager", version)]
pub(crate) struct Cli {
    /// What to do; runs the controllers when nothing is said.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// How to run.
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

/// Everything but running.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Command {
    /// Checks that the API server answers, the kinds are served and every permission is there; then exits.
    Check(CheckOptions),
    /// Prints the RBAC objects that `--api` and `--controllers` need, as JSON.
    Rbac(RbacOptions),
    /// Removes the finalizers from pods of our Jobs once no manager leads any more: the last act of an uninstall.
    /// Those still to be counted are marked, and a manager that is installed again goes on counting.
    LeavePods,
}

/// Which kinds are reconciled.
#[derive(Args, Debug, Clone)]
pub(crate) struct Selection {
    /// Which face of the kinds: our CRDs, the native kinds (kube-controller-manager must run without those
    /// controllers), or both.
    #[arg(long, value_enum, default_value = "crd", global = true, env = "TRYSAIL_API")]
    pub(crate) api: Api,

    /// Which controllers run, separated by commas.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "deployment,replicaset,replicationcontroller,statefulset,daemonset,job,cronjob,ttl-after-finished",
        global = true,
        env = "TRYSAIL_CONTROLLERS"
    )]
    pub(crate) controllers: Vec<ControllerName>,

    /// Set the scheduler's default topology spread constraints on pods of our ReplicaSets, ReplicationControllers and
    /// StatefulSets whose template has none: by itself it spreads only pods of the native kinds.
    #[arg(
        long,
        default_value_t = true,
        action = clap::ArgAction::Set,
        global = true,
        env = "TRYSAIL_DEFAULT_TOPOLOGY_SPREAD"
    )]
    pub(crate) default_topology_spread: bool,
}

/// Options of a run.
#[derive(Args, Debug, Clone)]
pub(crate) struct RunOptions {
    /// Which kinds.
    #[command(flatten)]
    pub(crate) selection: Selection,

    /// Credentials; without it KUBECONFIG, then the pod's service account.
    #[arg(long, global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// Address of `/healthz`, `/readyz` and `/metrics`.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub(crate) bind_address: SocketAddr,

    /// Run only while holding the Lease; without it, the only manager there is.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) leader_elect: bool,

    /// Namespace of the Lease; the pod's own by default, else trysail-system.
    #[arg(long, global = true)]
    pub(crate) leader_elect_namespace: Option<String>,

    /// Name of the Lease.
    #[arg(long, default_value = LEASE, global = true)]
    pub(crate) leader_elect_name: String,

    /// Keys reconciled at the same time, per controller.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,

    /// Start though kube-controller-manager might run the same controllers (native kinds only).
    #[arg(long)]
    pub(crate) skip_native_check: bool,

    /// Verbosity, 0 to 9; RUST_LOG overrides it.
    #[arg(long = "v", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=9), global = true)]
    pub(crate) verbosity: u8,

    /// Form of the log.
    #[arg(long, value_enum, default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,
}

/// Options of `check`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CheckOptions {
    /// Also asks this address for `/readyz`, e.g. `trysail-workloads.trysail-system:8080`.
    #[arg(long)]
    pub(crate) ready_address: Option<String>,
}

/// Options of `rbac`.
#[derive(Args, Debug, Clone)]
pub(crate) struct RbacOptions {
    /// Bind to this user.
    #[arg(long, conflicts_with = "service_account")]
    pub(crate) user: Option<String>,
    /// Bind to this service account, `NAMESPACE/NAME`.
    #[arg(long)]
    pub(crate) service_account: Option<String>,
    /// Namespace of the Lease.
    #[arg(long, default_value = "trysail-system")]
    pub(crate) lease_namespace: String,
}

/// Name of the Lease.
pub(crate) const LEASE: &str = "trysail-manager";

/// Which faces are served.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// The kinds of apps.trysail.dev.
    Crd,
    /// Kubernetes' own kinds.
    Native,
    /// Both.
    Both,
}

impl Api {
    /// The faces in the order they are started.
    pub(crate) fn faces(self) -> &'static [Face] {
        match self {
            Api::Crd => &[Face::Crd],
            Api::Native => &[Face::Native],
            Api::Both => &[Face::Crd, Face::Native],
        }
    }
}

/// A controller, by the name that `--controllers` takes.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[value(rename_all = "lowercase")]
pub(crate) enum ControllerName {
    /// Deployments.
    Deployment,
    /// ReplicaSets.
    ReplicaSet,
    /// ReplicationControllers.
    ReplicationController,
    /// StatefulSets.
    StatefulSet,
    /// DaemonSets.
    DaemonSet,
    /// Jobs.
    Job,
    /// CronJobs.
    CronJob,
    /// Deletion of finished Jobs by `spec.ttlSecondsAfterFinished`.
    #[value(name = "ttl-after-finished")]
    TtlAfterFinished,
}

impl ControllerName {
    /// Whether the scheduler spreads pods of the native kind by itself.
    pub(crate) fn spreads_pods(self) -> bool {
        match self {
            ControllerName::ReplicaSet
            | ControllerName::ReplicationController
            | ControllerName::StatefulSet => true,
            ControllerName::Deployment
            | ControllerName::DaemonSet
            | ControllerName::Job
            | ControllerName::CronJob
            | ControllerName::TtlAfterFinished => false,
        }
    }

    /// As `--controllers` has it: kube-controller-manager's name without `-controller`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ControllerName::Deployment => "deployment",
            ControllerName::ReplicaSet => "replicaset",
            ControllerName::ReplicationController => "replicationcontroller",
            ControllerName::StatefulSet => "statefulset",
            ControllerName::DaemonSet => "daemonset",
            ControllerName::Job => "job",
            ControllerName::CronJob => "cronjob",
            ControllerName::TtlAfterFinished => "ttl-after-finished",
        }
    }
}

/// Form of the log.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_controller_is_named_with_the_choices() {
        let error =
            Cli::try_parse_from(["trysail-manager", "--controllers", "deployment,deploymnt"]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("deploymnt") && text.contains("replicationcontroller"), "{text}");
    }

    #[test]
    fn the_defaults_are_the_crd_face_and_every_controller() {
        let cli = Cli::try_parse_from(["trysail-manager"]).unwrap();
        assert_eq!(cli.run.selection.api.faces(), [Face::Crd]);
        assert_eq!(cli.run.selection.controllers, ControllerName::value_variants());
        for controller in ControllerName::value_variants() {
            assert_eq!(controller.to_possible_value().unwrap().get_name(), controller.as_str());
        }
    }
}
