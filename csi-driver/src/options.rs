//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use trysail_csi::model::PoolSettings;
use trysail_csi::service::DRIVER_NAME;
use trysail_csi::store::PoolConfig;

/// CSI driver for node-local volumes that do not lose data.
#[derive(Parser, Debug)]
#[command(version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Serve the volumes of this node.
    Node(Box<NodeArgs>),
    /// Show what is in a pool, and what a start of the driver would repair.
    Inspect(InspectArgs),
    /// Do what a start of the driver would do about a pool.
    Repair(RepairArgs),
}

#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    /// The socket of this driver.
    #[arg(long, env = "CSI_ENDPOINT", default_value = "unix:///csi/csi.sock")]
    pub(crate) endpoint: String,
    /// The name of the node in Kubernetes.
    #[arg(long, env = "NODE_NAME", value_parser = node_name)]
    pub(crate) node_name: String,
    /// The name of the driver in Kubernetes.
    #[arg(long, default_value = DRIVER_NAME)]
    pub(crate) driver_name: String,
    /// A pool: NAME=DIRECTORY[,overcommit=RATIO][,reserve=PERCENT][,create]. The first is the default. May be repeated.
    #[arg(long = "pool", required = true, value_parser = pool)]
    pub(crate) pools: Vec<PoolConfig>,
    /// Directory below which the kubelet names paths. May be repeated.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_root: Vec<PathBuf>,
    /// Directory in which the kubelet looks for plugins; without it, somebody else registers the driver.
    #[arg(long)]
    pub(crate) registration_dir: Option<PathBuf>,
    /// The socket of this driver as the kubelet sees it.
    #[arg(long, requires = "registration_dir")]
    pub(crate) kubelet_endpoint: Option<PathBuf>,
    /// Address of /healthz and /metrics.
    #[arg(long)]
    pub(crate) health_address: Option<SocketAddr>,
    /// How many volumes the scheduler may place on this node; 0 says nothing about it.
    #[arg(long, default_value_t = 0)]
    pub(crate) max_volumes: u32,
    /// Serve an external attacher, which records in the API where a volume may be used. Local volumes need none.
    #[arg(long)]
    pub(crate) attach: bool,
    /// What to log.
    #[arg(long, env = "TRYSAIL_LOG", default_value = "info")]
    pub(crate) log: String,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The directory of the pool.
    pub(crate) directory: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// The directory of the pool. No driver may be serving it.
    pub(crate) directory: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

fn node_name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a node has a name".to_owned()),
        // CSI gives 256 bytes; node names of Kubernetes end at 253.
        _ if text.len() > 253 => Err("a node's name has 253 characters at most".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn pool(text: &str) -> Result<PoolConfig, String> {
    let mut words = text.split(',');
    let (name, directory) = words
        .next()
        .and_then(|word| word.split_once('='))
        .filter(|(name, directory)| !name.is_empty() && directory.starts_with('/'))
        .ok_or("say NAME=DIRECTORY, with an absolute directory")?;
    let mut config = PoolConfig {
        name: name.to_owned(),
        directory: directory.into(),
        settings: PoolSettings::default(),
        create: false,
    };
    for word in words {
        match word.split_once('=') {
            None if word == "create" => config.create = true,
            Some(("overcommit", value)) => {
                config.settings.overcommit =
                    number(value, "overcommit", |ratio: &f64| ratio.is_finite() && *ratio > 0.0)?;
            }
            Some(("reserve", value)) => {
                config.settings.reserve_percent = number(value, "reserve", |percent: &u8| *percent < 100)?;
            }
            _ => return Err(format!("{word:?} is unknown; known are overcommit=, reserve= and create")),
        }
    }
    Ok(config)
}

fn number<T: FromStr>(text: &str, what: &str, valid: impl Fn(&T) -> bool) -> Result<T, String> {
    text.parse().ok().filter(valid).ok_or_else(|| format!("{what}: {text:?} is no sensible number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn pools() {
        let parsed = pool("fast=/pool,overcommit=2.5,reserve=0,create").unwrap();
        assert_eq!(
            (parsed.settings.overcommit, parsed.settings.reserve_percent, parsed.create),
            (2.5, 0, true)
        );
        for bad in
            ["", "a", "=/a", "a=b", "a=/b,x", "a=/b,overcommit=-1", "a=/b,overcommit=nan", "a=/b,reserve=100"]
        {
            assert!(pool(bad).is_err(), "{bad}");
        }
    }
}
