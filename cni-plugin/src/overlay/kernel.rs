//! The kernel's side: what it has of ours, and one change at a time.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::delta::{Change, delta};
use super::desired::{Desired, Entry, Forwarding, Neighbour, Path};
use crate::netlink::{NetlinkError, RouteSpec, Rtnl, Vxlan};
use crate::spec::{CniError, Code, Result};

/// The tunnel that this node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its device.
    pub vxlan: Vxlan,
    /// MTU of the device.
    pub mtu: u32,
    /// Pod ranges of this node: the first address of each is the node's own in the tunnel.
    pub own: Vec<IpNet>,
}

/// Makes the device, or makes it anew when it is not as it should be. `true`: it was made now, and is empty.
pub fn ensure_tunnel(rtnl: &mut Rtnl, tunnel: &Tunnel) -> Result<bool> {
    let name = &tunnel.vxlan.name;
    let found = rtnl.vxlan(name)?;
    if found.as_ref() == Some(&tunnel.vxlan) {
        let link = rtnl.link(name)?;
        if link.is_some_and(|link| link.mtu != tunnel.mtu) {
            rtnl.set_mtu(name, tunnel.mtu)?;
        }
        return configure(rtnl, tunnel).map(|()| false);
    }
    if let Some(link) = rtnl.link(name)? {
        if found.is_none() {
            let kind = link.kind.unwrap_or_else(|| "link".to_owned());
            return Err(CniError::new(
                Code::ForeignObject,
                format!("the node has a {kind} {name}, which is no tunnel"),
            )
            .details("remove it, or give the tunnel another name"));
        }
        rtnl.delete_link(&link)?;
    }
    rtnl.create_vxlan(&tunnel.vxlan, tunnel.mtu).map_err(|error| explain(error, tunnel))?;
    configure(rtnl, tunnel).map(|()| true)
}

fn explain(error: NetlinkError, tunnel: &Tunnel) -> CniError {
    let taken = matches!(error.errno, nix::errno::Errno::EEXIST | nix::errno::Errno::EADDRINUSE);
    let error = CniError::from(error);
    if !taken {
        return error;
    }
    let Vxlan { vni, port, .. } = &tunnel.vxlan;
    error.details(format!(
        "another device of the node has VNI {vni} on UDP port {port}: choose another port or VNI"
    ))
}

fn configure(rtnl: &mut Rtnl, tunnel: &Tunnel) -> Result<()> {
    let name = &tunnel.vxlan.name;
    crate::node::quiet_link(name)?;
    rtnl.set_up(name, None, None)?;
    for net in &tunnel.own {
        rtnl.add_address(name, IpNet::from(net.network()))?;
    }
    Ok(())
}

/// What the kernel has of ours. Pods' own routes have no next hop, and are not looked at here.
pub fn read(rtnl: &mut Rtnl, tunnel: &str) -> Result<BTreeSet<Entry>> {
    let mut entries = BTreeSet::new();
    for route in rtnl.gateway_routes()? {
        let path = if route.link == tunnel {
            Path::Tunnel { via: route.via, link: route.link }
        } else {
            Path::Direct { via: route.via, link: route.link }
        };
        entries.insert(Entry::Route(route.dst, path));
    }
    if rtnl.link(tunnel)?.is_some() {
        let neighbour = |(ip, mac): (IpAddr, [u8; 6])| Entry::Neighbour(Neighbour { ip, mac });
        entries.extend(rtnl.neighbours(tunnel)?.into_iter().map(neighbour));
        let forwarding = |(to, mac): (IpAddr, [u8; 6])| Entry::Forwarding(Forwarding { mac, to });
        entries.extend(rtnl.forwardings(tunnel)?.into_iter().map(forwarding));
    }
    Ok(entries)
}

/// Carries out one change.
pub fn apply(rtnl: &mut Rtnl, tunnel: &str, change: &Change) -> Result<()> {
    let route = |dst: IpNet, via: IpAddr, onlink: bool| RouteSpec {
        gateway: Some(via),
        onlink,
        ..RouteSpec::on_link(dst)
    };
    match change {
        Change::Set(Entry::Neighbour(Neighbour { ip, mac })) => rtnl.add_neighbour(tunnel, *ip, *mac)?,
        Change::Remove(Entry::Neighbour(Neighbour { ip, .. })) => rtnl.remove_neighbour(tunnel, *ip)?,
        Change::Set(Entry::Forwarding(Forwarding { mac, to })) => rtnl.set_forwarding(tunnel, *mac, *to)?,
        Change::Remove(Entry::Forwarding(Forwarding { mac, to })) => {
            rtnl.remove_forwarding(tunnel, *mac, *to)?;
        }
        Change::Set(Entry::Route(pods, Path::Direct { via, link })) => {
            rtnl.replace_route(link, &route(*pods, *via, false))?;
        }
        Change::Set(Entry::Route(pods, Path::Tunnel { via, link })) => {
            rtnl.replace_route(link, &route(*pods, *via, true))?;
        }
        Change::Remove(Entry::Route(pods, Path::Direct { via, link })) => {
            rtnl.delete_route(link, &route(*pods, *via, false))?;
        }
        Change::Remove(Entry::Route(pods, Path::Tunnel { via, link })) => {
            rtnl.delete_route(link, &route(*pods, *via, true))?;
        }
    }
    Ok(())
}

/// Brings the kernel where it should be. Goes on after errors; the number of changes, and what could not be done.
pub fn sync(rtnl: &mut Rtnl, tunnel: &Tunnel, desired: &Desired) -> Result<(usize, Vec<CniError>)> {
    if desired.tunnel {
        ensure_tunnel(rtnl, tunnel)?;
    }
    let name = &tunnel.vxlan.name;
    let changes = delta(&read(rtnl, name)?, &desired.entries);
    let errors = changes.iter().filter_map(|change| apply(rtnl, name, change).err()).collect();
    Ok((changes.len(), errors))
}
