//! The plugin under the name `loopback`: brings `lo` up. containerd wants one beside every network, so a node on
//! which no other plugin was ever installed works with ours.

use std::path::Path;

use serde_json::Value;

use crate::netlink::Netns;
use crate::node::Pod;
use crate::spec::{CniError, Code, Command, Environment, Interface, Ip, Result, SpecVersion, Success};

/// The interface, whatever CNI_IFNAME says: containerd says `lo`, others `eth0`.
const LO: &str = "lo";

pub(super) fn run(environment: &Environment, stdin: &[u8]) -> Result<Option<Value>> {
    let conf: Value = serde_json::from_slice(stdin).map_err(|error| {
        CniError::new(Code::Decode, format!("the network configuration is not JSON: {error}"))
    })?;
    let version = SpecVersion::parse(conf.get("cniVersion").and_then(Value::as_str))?;
    match environment.command {
        Command::Add => add(environment, &conf).map(|success| Some(success.to_json(version))),
        Command::Check => check(environment).map(|()| None),
        Command::Del => del(environment).map(|()| None),
        Command::Gc | Command::Status | Command::Version => Ok(None),
    }
}

fn netns(environment: &Environment) -> &Path {
    environment.netns.as_deref().unwrap_or_else(|| Path::new(""))
}

fn add(environment: &Environment, conf: &Value) -> Result<Success> {
    let path = netns(environment);
    let mut pod = Pod::open(path)?;
    pod.rtnl.set_up(LO, None, None)?;
    if let Some(previous) = conf.get("prevResult").filter(|value| !value.is_null()) {
        return Success::from_json(previous);
    }
    let addresses = pod.rtnl.addresses(LO)?;
    Ok(Success {
        interfaces: vec![Interface {
            name: LO.to_owned(),
            mac: "00:00:00:00:00:00".to_owned(),
            sandbox: path.to_string_lossy().into_owned(),
            ..Interface::default()
        }],
        ips: addresses.into_iter().map(|address| Ip { interface: Some(0), address, gateway: None }).collect(),
        ..Success::default()
    })
}

fn check(environment: &Environment) -> Result<()> {
    let link = Pod::open(netns(environment))?.rtnl.link(LO)?;
    if link.is_some_and(|link| link.up) {
        return Ok(());
    }
    Err(CniError::new(Code::CheckFailed, "the container's lo is down").details("the pod must be made again"))
}

/// A namespace that is gone took its `lo` with it.
fn del(environment: &Environment) -> Result<()> {
    let Some(path) = &environment.netns else { return Ok(()) };
    let Some(netns) = Netns::open(path).ok().flatten() else { return Ok(()) };
    Ok(netns.rtnl()?.set_down(LO)?)
}
