//! What is remembered of an attachment, and the events that a log is made of.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::conf::PortMapping;

/// Which attachment. One container may be in several networks, and may have several interfaces in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Name of the network.
    pub network: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}

/// How far an ADD came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Written before the kernel was touched. Without a process that holds the attachment's lock, nobody will finish
    /// it: it may be undone.
    Intent,
    /// ADD succeeded.
    Committed,
    /// It is being removed: whoever makes something anew from the records leaves it out.
    Removing,
}

/// An attachment, with everything that is needed to remove it without its namespace, its configuration or a
/// `prevResult`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which.
    #[serde(flatten)]
    pub key: Key,
    /// How far it came.
    pub phase: Phase,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether this store gave them out. A chained or delegated attachment only lists them.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub owns_ips: bool,
    /// Link on the host; empty if the link is somebody else's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host_link: String,
    /// Path of the namespace at the time of ADD.
    pub netns: PathBuf,
    /// Inode of the namespace: the path may have been reused.
    pub netns_inode: u64,
    /// `namespace/name` of the pod, for messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Host ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// Whether its traffic is masqueraded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masquerade: bool,
    /// Whether its source addresses are pinned to its link.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spoof_protection: bool,
    /// Device through which its traffic is shaped; made by ADD beside the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shaper: Option<String>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_yes(value: &bool) -> bool {
    *value
}

impl Record {
    /// How messages name it: the pod if known.
    pub fn owner(&self) -> String {
        match &self.pod {
            Some(pod) => format!("pod {pod}"),
            None => format!("container {}", self.key.container_id),
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// An attachment in the phase that it says; replaces an earlier record of the same key.
    Record(Box<Record>),
    /// The attachment is complete.
    Commit(Key),
    /// The attachment is gone; its addresses join the end of the quarantine.
    Release(Key),
    /// Addresses in quarantine, longest-freed first. Written by compaction only.
    Quarantine(Vec<IpAddr>),
}
