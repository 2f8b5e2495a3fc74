//! The tunnel between nodes: a VXLAN device, its neighbours and forwarding entries, and the routes that lead to it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol};
use nix::errno::Errno;

use super::channel::{NLM_F_CREATE, NLM_F_REPLACE, NetlinkError};
use super::conntrack::address;
use super::route::{PROTOCOL, RTM_GETROUTE, RTM_NEWNEIGH, Rtnl, body, family, neighbour_address};

const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const RTM_GETLINK: u16 = 18;

/// A VXLAN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// Its name.
    pub name: String,
    /// Network identifier; all nodes agree on it.
    pub vni: u32,
    /// UDP port; all nodes agree on it.
    pub port: u16,
    /// The node's address that packets carry.
    pub local: IpAddr,
    /// Hardware address inside the tunnel.
    pub mac: [u8; 6],
}

/// A route of ours through a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRoute {
    /// Destination.
    pub dst: IpNet,
    /// Next hop.
    pub via: IpAddr,
    /// Name of the link.
    pub link: String,
}

impl Rtnl {
    /// Makes the device. It learns nothing: where everybody is follows from the Node objects, and a packet cannot
    /// change it.
    pub fn create_vxlan(&mut self, vxlan: &Vxlan, mtu: u32) -> Result<(), NetlinkError> {
        let local = match vxlan.local {
            IpAddr::V4(ip) => InfoVxlan::Local(ip),
            IpAddr::V6(ip) => InfoVxlan::Local6(ip),
        };
        let options = vec![
            InfoVxlan::Id(vxlan.vni),
            local,
            InfoVxlan::Port(vxlan.port),
            InfoVxlan::Learning(false),
            // Over IPv6 a receiver drops packets without a checksum unless told otherwise, so they get one.
            InfoVxlan::UDPCsum(true),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(vxlan.name.clone()),
            LinkAttribute::Address(vxlan.mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(options)),
            ]),
        ];
        self.create(&format!("make the tunnel {}", vxlan.name), &message)
    }

    /// The VXLAN device of this name as it is; `None` if there is none, or it is of another kind.
    pub fn vxlan(&mut self, name: &str) -> Result<Option<Vxlan>, NetlinkError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.channel.request(&format!("look up link {name}"), (RTM_GETLINK, 0), &body(&request)) {
            Ok(answers) => {
                Ok(answers.unwrap_or_default().iter().find_map(|answer| parse_vxlan(&answer.body)))
            }
            Err(error) if error.errno == Errno::ENODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets a link's MTU.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.channel
            .request(&format!("set the MTU of {name}"), (super::route::RTM_NEWLINK, 0), &body(&message))
            .map(drop)
    }

    /// Says which node a hardware address of the tunnel is at.
    pub fn set_forwarding(&mut self, link: &str, mac: [u8; 6], to: IpAddr) -> Result<(), NetlinkError> {
        let message = self.forwarding_message(link, mac, to)?;
        let what = format!("send packets for {} of {link} to {to}", crate::effect::mac_text(&mac));
        self.channel.request(&what, (RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE), &body(&message)).map(drop)
    }

    /// Forgets it; what is gone is what was wanted.
    pub fn remove_forwarding(&mut self, link: &str, mac: [u8; 6], to: IpAddr) -> Result<(), NetlinkError> {
        let message = self.forwarding_message(link, mac, to)?;
        self.forget("remove a forwarding entry", &message)
    }

    /// Forgets where an address is; what is gone is what was wanted.
    pub fn remove_neighbour(&mut self, link: &str, ip: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = self.index(link)?;
        message.attributes = vec![NeighbourAttribute::Destination(neighbour_address(ip))];
        self.forget("remove a neighbour", &message)
    }

    fn forget(&mut self, what: &str, message: &NeighbourMessage) -> Result<(), NetlinkError> {
        match self.channel.request(what, (RTM_DELNEIGH, 0), &body(message)) {
            Err(error) if error.errno == Errno::ENOENT => Ok(()),
            other => other.map(drop),
        }
    }

    fn forwarding_message(
        &mut self,
        link: &str,
        mac: [u8; 6],
        to: IpAddr,
    ) -> Result<NeighbourMessage, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = self.index(link)?;
        message.header.state = NeighbourState::Permanent;
        message.header.flags = NeighbourFlags::Own;
        message.attributes = vec![
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
            NeighbourAttribute::Destination(neighbour_address(to)),
        ];
        Ok(message)
    }

    /// Addresses of a link that somebody said for good.
    pub fn neighbours(&mut self, link: &str) -> Result<Vec<(IpAddr, [u8; 6])>, NetlinkError> {
        let mut found = self.entries(link, AddressFamily::Inet)?;
        found.extend(self.entries(link, AddressFamily::Inet6)?);
        Ok(found)
    }

    /// Nodes behind the hardware addresses of a tunnel.
    pub fn forwardings(&mut self, link: &str) -> Result<Vec<(IpAddr, [u8; 6])>, NetlinkError> {
        self.entries(link, AddressFamily::Bridge)
    }

    fn entries(&mut self, link: &str, of: AddressFamily) -> Result<Vec<(IpAddr, [u8; 6])>, NetlinkError> {
        let index = self.index(link)?;
        let mut request = NeighbourMessage::default();
        request.header.family = of;
        request.header.ifindex = index;
        let answers = self.dump("list neighbours", RTM_GETNEIGH, &body(&request))?;
        Ok(answers.iter().filter_map(|bytes| parse_entry(bytes, index)).collect())
    }

    /// Our routes through a next hop, by the names of their links.
    pub fn gateway_routes(&mut self) -> Result<Vec<GatewayRoute>, NetlinkError> {
        let names: BTreeMap<u32, String> =
            self.links()?.into_iter().map(|link| (link.index, link.name)).collect();
        let mut found = Vec::new();
        for of in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = of;
            let answers = self.dump("list routes", RTM_GETROUTE, &body(&request))?;
            found.extend(answers.iter().filter_map(|bytes| parse_gateway_route(bytes, &names)));
        }
        Ok(found)
    }

    /// How the kernel would reach an address now: the link, and whether a router is between. `None`: not at all.
    pub fn route_to(&mut self, ip: IpAddr) -> Result<Option<(String, bool)>, NetlinkError> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(ip);
        request.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
        request.attributes.push(RouteAttribute::Destination(RouteAddress::from(ip)));
        let answers = match self.channel.request("look up a route", (RTM_GETROUTE, 0), &body(&request)) {
            Ok(answers) => answers.unwrap_or_default(),
            Err(error)
                if matches!(
                    error.errno,
                    Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL | Errno::EACCES
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Some(message) =
            answers.iter().find_map(|answer| RouteMessage::parse(answer.body.as_slice()).ok())
        else {
            return Ok(None);
        };
        let routed = message
            .attributes
            .iter()
            .any(|a| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)));
        let index = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        let Some(index) = index else { return Ok(None) };
        Ok(self.link_by_index(index)?.map(|link| (link.name, routed)))
    }
}

fn parse_vxlan(bytes: &[u8]) -> Option<Vxlan> {
    let message = LinkMessage::parse(bytes).ok()?;
    let mut vxlan =
        Vxlan { name: String::new(), vni: 0, port: 0, local: IpAddr::from([0, 0, 0, 0]), mac: [0; 6] };
    let mut options = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => vxlan.name = name,
            LinkAttribute::Address(mac) => vxlan.mac = mac.try_into().ok()?,
            LinkAttribute::LinkInfo(infos) => {
                options = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Data(InfoData::Vxlan(options)) => Some(options),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    for option in options? {
        match option {
            InfoVxlan::Id(vni) => vxlan.vni = vni,
            InfoVxlan::Port(port) => vxlan.port = port,
            InfoVxlan::Local(ip) => vxlan.local = ip.into(),
            InfoVxlan::Local6(ip) => vxlan.local = ip.into(),
            _ => {}
        }
    }
    Some(vxlan)
}

fn parse_entry(bytes: &[u8], index: u32) -> Option<(IpAddr, [u8; 6])> {
    let message = NeighbourMessage::parse(bytes).ok()?;
    let permanent = message.header.state == NeighbourState::Permanent;
    (message.header.ifindex == index && permanent).then_some(())?;
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                ip = Some(IpAddr::V4(*address));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                ip = Some(IpAddr::V6(*address));
            }
            // A forwarding entry's family does not say how long the address is.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => ip = address(bytes),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some((ip?, mac?))
}

fn parse_gateway_route(bytes: &[u8], names: &BTreeMap<u32, String>) -> Option<GatewayRoute> {
    let message = RouteMessage::parse(bytes).ok()?;
    let header = &message.header;
    let ours =
        header.protocol == RouteProtocol::Other(PROTOCOL) && header.table == RouteHeader::RT_TABLE_MAIN;
    ours.then_some(())?;
    let (mut dst, mut via, mut link) = (None, None, None);
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::Oif(index) => link = names.get(index).cloned(),
            _ => {}
        }
    }
    let dst = IpNet::new(dst?, header.destination_prefix_length).ok()?;
    Some(GatewayRoute { dst, via: via?, link: link? })
}
