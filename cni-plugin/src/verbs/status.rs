//! STATUS: could ADD succeed now? Runtimes ask every few seconds, so it reads a few small files and takes no lock.

use std::fs;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::conf::{Ipam, Mode, NetConf};
use crate::netlink::Rtnl;
use crate::node::bridge_netfilter;
use crate::spec::{CniError, Code, Result};
use crate::store::{self, State};
use crate::verbs::{Call, delegate};

/// The agent writes its state every 5 s; three of these may be late on a busy node.
const AGENT_SILENT_AFTER: Duration = Duration::from_secs(20);

/// What the node agent says of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AgentState {
    /// Whether the routes to other nodes are as they should be.
    #[serde(default)]
    synced: bool,
    /// Why not.
    #[serde(default)]
    message: String,
}

pub(super) fn status(call: &Call<'_>) -> Result<()> {
    let state = call.store.read().map_err(|error| not_available(CniError::from(error).to_string()))?;
    pools(call.conf, &state)?;
    if call.conf.mode == Mode::Bridge {
        bridge(call.conf)?;
    }
    agent(call.conf)?;
    match &call.conf.ipam {
        Ipam::Delegated(plugin) => delegate::status(call, plugin),
        Ipam::Own { .. } | Ipam::Absent => Ok(()),
    }
}

fn not_available(msg: impl Into<String>) -> CniError {
    CniError::new(Code::NotAvailable, msg)
}

fn pools(conf: &NetConf, state: &State) -> Result<()> {
    let full = conf.range_sets().iter().find(|set| store::free(state, set) == 0);
    let Some(set) = full else { return Ok(()) };
    let names: Vec<String> = set.ranges().iter().map(ToString::to_string).collect();
    Err(not_available(format!("no free address in {}", names.join(", ")))
        .details("give the node another podCIDR, or lower maxPods"))
}

/// Pods of a bridge were wired for the setting as it was. With the other one, a pod cannot reach a service whose
/// endpoint is its neighbour.
fn bridge(conf: &NetConf) -> Result<()> {
    let mut rtnl = Rtnl::open()?;
    let Some(bridge) = rtnl.link(&conf.bridge)? else { return Ok(()) };
    let ports = rtnl.isolation(bridge.index)?;
    let isolated = !bridge_netfilter();
    if ports.iter().all(|port| *port == isolated) {
        return Ok(());
    }
    let now = u8::from(!isolated);
    Err(CniError::new(
        Code::NotAvailable,
        format!(
            "net.bridge.bridge-nf-call-iptables is {now} and ports of {} were made for {}",
            conf.bridge,
            1 - now
        ),
    )
    .details("set it back, or drain the node and let its pods be made again"))
}

fn agent(conf: &NetConf) -> Result<()> {
    let Some(path) = &conf.agent_state else { return Ok(()) };
    let silent = |why: String| {
        not_available(format!("the node agent has not said that the network is ready: {why}"))
            .details("look at the trysail-cni-agent pod of this node")
    };
    let read = fs::read(path).and_then(|bytes| Ok((bytes, fs::metadata(path)?.modified()?)));
    let (bytes, written) = read.map_err(|error| silent(format!("{}: {error}", path.display())))?;
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    if age > AGENT_SILENT_AFTER {
        return Err(silent(format!("it last spoke {} s ago", age.as_secs())));
    }
    let state: AgentState = serde_json::from_slice(&bytes).map_err(|error| silent(error.to_string()))?;
    if state.synced {
        return Ok(());
    }
    Err(CniError::new(
        Code::LimitedConnectivity,
        format!("the node is not connected to others: {}", state.message),
    )
    .details("look at the trysail-cni-agent pod of this node"))
}
