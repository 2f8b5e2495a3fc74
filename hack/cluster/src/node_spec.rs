//! Instructions for the processes that make and run a node: plain data, written by `up`, followed by `node-launch`
//! and `node-init` without a choice of their own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::Hierarchies;

/// Everything about one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The cluster it belongs to.
    pub cluster: String,
    /// Its name, which becomes its host name.
    pub node: String,
    /// Directory on the host that becomes `/`.
    pub rootfs: PathBuf,
    /// Directory on the host for the writable layer over the host's /etc.
    pub etc: PathBuf,
    /// File on the host that receives the init's identity.
    pub pid_file: PathBuf,
    /// Control groups of the host.
    pub hierarchies: Hierarchies,
    /// How it is wired.
    pub link: Link,
    /// Host paths that appear in the node.
    pub binds: Vec<Bind>,
    /// Node paths that live in memory.
    pub tmpfs: Vec<PathBuf>,
    /// Files written before anything starts.
    pub files: Vec<NodeFile>,
    /// Per-namespace kernel settings.
    pub sysctls: Vec<(String, String)>,
    /// What the init keeps running, in the order of their start.
    pub components: Vec<ComponentSpec>,
}

/// The wire between a node and the cluster's switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Process (host number) in whose network namespace the switch is.
    pub switch: i32,
    /// `ip -batch` commands for the node's namespace.
    pub node_batch: String,
    /// `ip -batch` commands for the switch, run after the node's.
    pub switch_batch: String,
    /// nftables rules for the node's namespace.
    pub nft: String,
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the node.
    pub target: PathBuf,
    /// Whether the node may write.
    pub writable: bool,
}

/// A file in the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    /// Path in the node.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Its text.
    pub content: String,
}

/// A program that the init starts and starts again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentSpec {
    /// Its name: that of its log file too.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// What must be true before it starts, the first time and after each death.
    pub after: Vec<Condition>,
}

/// Something to wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// This path exists.
    Exists(PathBuf),
    /// Something accepts connections here (`address:port`).
    Accepts(String),
}

impl NodeFile {
    pub(crate) fn new(path: &str, content: impl Into<String>) -> Self {
        Self { path: PathBuf::from(path), mode: 0o644, content: content.into() }
    }
}
