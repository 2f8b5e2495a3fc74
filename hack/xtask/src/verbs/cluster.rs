//! `cargo xtask cluster …`: real clusters on this machine.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use trysail_cluster::config::{self, ClusterConfig, Cni, ProxyMode};
use trysail_cluster::image;
use trysail_cluster::progress::Progress;
use trysail_cluster::{Cluster, Node, down, up};

use super::{logs, status};

/// Arguments of `cluster`.
#[derive(Args, Debug)]
pub(crate) struct ClusterArgs {
    /// Which cluster of this machine.
    #[arg(long, global = true, default_value = config::DEFAULT_NAME, env = "TRYSAIL_CLUSTER")]
    name: String,
    #[command(subcommand)]
    verb: ClusterVerb,
}

#[derive(Subcommand, Debug)]
enum ClusterVerb {
    /// Bring a cluster up, or repair it.
    Up(UpArgs),
    /// Remove a cluster and every trace of it.
    Down,
    /// Show nodes and components.
    Status,
    /// Show the log of a component.
    Logs(logs::LogsArgs),
    /// Import an image (an archive, or the name of an image of this project) into every node.
    Load {
        /// Path of an OCI archive, or an image's name.
        image: String,
    },
    /// Run kubectl as the administrator.
    Kubectl {
        /// kubectl's arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a command inside a node.
    Exec {
        /// The node: cp, w1, w2, …
        node: String,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

/// Options of `cluster up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpArgs {
    /// Number of worker nodes beside the control plane.
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// The pod network.
    #[arg(long, value_enum, default_value_t = CniArg::Reference)]
    cni: CniArg,
    /// kube-proxy's mode.
    #[arg(long, value_enum, default_value_t = ProxyModeArg::Nftables)]
    proxy_mode: ProxyModeArg,
    /// kube-controller-manager's --controllers, e.g. '*,-deployment-controller'.
    #[arg(long, allow_hyphen_values = true)]
    kcm_controllers: Option<String>,
    /// Run trysail-manager as a static pod in the place of kube-controller-manager's workload controllers.
    #[arg(long)]
    native_manager: bool,
    /// Feature gates of every component, e.g. 'A=true,B=false'.
    #[arg(long, default_value = "")]
    feature_gates: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CniArg {
    Reference,
    Trysail,
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProxyModeArg {
    Nftables,
    Iptables,
}

/// Runs the verb.
pub(crate) fn run(args: &ClusterArgs) -> Result<()> {
    let name = &args.name;
    match &args.verb {
        ClusterVerb::Up(options) => bring_up(name, options).map(drop),
        ClusterVerb::Down => down(name, &Progress::new()),
        ClusterVerb::Status => status::run(name),
        ClusterVerb::Logs(options) => logs::run(name, options),
        ClusterVerb::Load { image } => load(&Cluster::open(name)?, image),
        ClusterVerb::Kubectl { args } => replace_by(Cluster::open(name)?.kubectl().args(args)),
        ClusterVerb::Exec { node, command } => exec(&Cluster::open(name)?, node, command),
    }
}

/// Brings the cluster up and says how to use it.
pub(crate) fn bring_up(name: &str, options: &UpArgs) -> Result<Cluster> {
    let progress = Progress::new();
    let cluster = up(&options.config(name), &progress)?;
    progress.note(&format!(
        "ready; use it with `cargo xtask cluster kubectl -- …` or KUBECONFIG={}",
        cluster.kubeconfig().display()
    ));
    Ok(cluster)
}

impl UpArgs {
    fn config(&self, name: &str) -> ClusterConfig {
        let default =
            || if self.native_manager { config::controllers_without_native() } else { "*".to_owned() };
        ClusterConfig {
            name: name.to_owned(),
            workers: self.nodes,
            cni: match self.cni {
                CniArg::Reference => Cni::Reference,
                CniArg::Trysail => Cni::Trysail,
                CniArg::None => Cni::None,
            },
            proxy_mode: match self.proxy_mode {
                ProxyModeArg::Nftables => ProxyMode::Nftables,
                ProxyModeArg::Iptables => ProxyMode::Iptables,
            },
            kcm_controllers: self.kcm_controllers.clone().unwrap_or_else(default),
            native_manager: self.native_manager,
            feature_gates: self.feature_gates.clone(),
        }
    }
}

fn load(cluster: &Cluster, image: &str) -> Result<()> {
    let progress = Progress::new();
    let archives = if Path::new(image).is_file() {
        vec![Path::new(image).to_path_buf()]
    } else if image::known_references().contains(&image) {
        image::ensure_images(&[image], &progress)?.into_iter().map(|archive| archive.path).collect()
    } else {
        bail!("{image:?} is neither a file nor an image of this project; `cargo xtask image` lists them");
    };
    let load_into = |node: Node| {
        progress.run(format!("{image} into node {}", node.name()), || {
            archives.iter().try_for_each(|archive| node.load_image(archive))
        })
    };
    std::thread::scope(|scope| {
        let jobs: Vec<_> = cluster.nodes().into_iter().map(|node| scope.spawn(|| load_into(node))).collect();
        jobs.into_iter()
            .try_for_each(|job| job.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn exec(cluster: &Cluster, node: &str, command: &[String]) -> Result<()> {
    let (program, args) = command.split_first().context("no command given")?;
    replace_by(cluster.node(node)?.command(program)?.args(args))
}

/// Becomes the command, so that its terminal, signals and exit code are the caller's.
fn replace_by(command: &mut std::process::Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    // The library keeps its helpers away from the terminal; this one belongs to it.
    let mut plain = std::process::Command::new(command.get_program());
    plain.args(command.get_args());
    plain.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let error = plain.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().display()))
}
