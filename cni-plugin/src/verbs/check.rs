//! CHECK: is the attachment as ADD left it? Only what this plugin made is looked at; a later plugin of the chain may
//! have added to it.

use ipnet::IpNet;

use crate::conf::Ipam;
use crate::effect::mac_text;
use crate::nft::elements_of;
use crate::node::{Node, Pod};
use crate::spec::{CniError, Code, Interface, Result, Success};
use crate::store::{Phase, Record};
use crate::verbs::{Call, delegate};

pub(super) fn check(call: &Call<'_>) -> Result<()> {
    let Some(result) = &call.conf.prev_result else {
        return Err(CniError::new(Code::InvalidNetworkConfig, "CHECK needs the prevResult of ADD")
            .details("the runtime passes the cached result of the attachment"));
    };
    let record = call.store.read()?.get(&call.key).cloned();
    let record = record.filter(|record| record.phase == Phase::Committed);
    let record = record.ok_or_else(|| missing(format!("the store has no attachment {}", call.key)))?;
    let path = call.environment.netns.as_deref().unwrap_or_else(|| std::path::Path::new(""));
    let mut pod = Pod::open(path)?;
    let mut node = Node::open(&call.store)?;
    check_interface(call, &mut pod, result)?;
    if !record.host_link.is_empty() {
        check_node(&mut node, &record, call)?;
    }
    let elements = elements_of(&record);
    if !elements.is_empty() && !node.nft()?.contains(&elements)? {
        return Err(missing("elements of the nftables table inet trysail-cni are missing"));
    }
    match &call.conf.ipam {
        Ipam::Delegated(plugin) => delegate::check(call, plugin),
        Ipam::Own { .. } | Ipam::Absent => Ok(()),
    }
}

fn missing(msg: impl Into<String>) -> CniError {
    CniError::new(Code::CheckFailed, msg).details("the pod must be made again")
}

fn check_interface(call: &Call<'_>, pod: &mut Pod, result: &Success) -> Result<()> {
    let ifname = &call.key.ifname;
    let in_pod = |interface: &Interface| !interface.sandbox.is_empty() && interface.name == *ifname;
    let Some(index) = result.interfaces.iter().position(in_pod) else {
        return Err(missing(format!("prevResult has no interface {ifname} in the container")));
    };
    let expected = &result.interfaces[index];
    let link =
        pod.rtnl.link(ifname)?.ok_or_else(|| missing(format!("the container has no interface {ifname}")))?;
    if !expected.mac.is_empty() && !expected.mac.eq_ignore_ascii_case(&mac_text(&link.mac)) {
        let found = mac_text(&link.mac);
        return Err(missing(format!("interface {ifname} has the address {found} and not {}", expected.mac)));
    }
    if !link.up {
        return Err(missing(format!("interface {ifname} is down")));
    }
    let addresses = pod.rtnl.addresses(ifname)?;
    let lacking = result.ips.iter().filter(|ip| ip.interface.is_none_or(|at| at == index));
    if let Some(ip) = lacking.map(|ip| ip.address).find(|address| !addresses.contains(address)) {
        return Err(missing(format!("interface {ifname} has no address {ip}")));
    }
    let routes: Vec<IpNet> = pod.rtnl.routes(ifname)?;
    let own = result.routes.iter().filter(|route| route.table.is_none());
    match own.map(|route| route.dst).find(|dst| !routes.contains(dst)) {
        Some(dst) => Err(missing(format!("the container has no route to {dst} through {ifname}"))),
        None => Ok(()),
    }
}

fn check_node(node: &mut Node, record: &Record, call: &Call<'_>) -> Result<()> {
    let name = &record.host_link;
    let link = node.rtnl().link(name)?.ok_or_else(|| missing(format!("the node has no link {name}")))?;
    if !link.up {
        return Err(missing(format!("the node's link {name} is down")));
    }
    if link.master.is_none() {
        let routes = node.rtnl().routes(name)?;
        let lost = record.ips.iter().map(|ip| IpNet::from(*ip)).find(|ip| !routes.contains(ip));
        if let Some(ip) = lost {
            return Err(missing(format!("the node has no route to {ip} through {name}")));
        }
    }
    let ingress = call.conf.runtime.bandwidth.is_some_and(|bandwidth| bandwidth.ingress_rate > 0);
    if ingress && node.rtnl().root_qdisc(name)?.as_deref() != Some("tbf") {
        return Err(missing(format!("traffic to the pod through {name} is not limited")));
    }
    match &record.shaper {
        Some(shaper) if node.rtnl().root_qdisc(shaper)?.as_deref() != Some("tbf") => {
            Err(missing(format!("traffic of the pod through {shaper} is not limited")))
        }
        _ => Ok(()),
    }
}
