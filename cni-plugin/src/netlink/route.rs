//! Links, addresses, routes and neighbours, by name and without dumps where ADD and DEL are concerned.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use nix::errno::Errno;

use super::channel::{Channel, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NetlinkError, ROUTE};
use super::netns::Netns;

pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEIGH: u16 = 28;

/// Marks routes as ours: `ip route` shows it as `proto 252`, and nobody else may remove or be removed by it.
pub(super) const PROTOCOL: u8 = 252;
/// Addresses for documentation (RFC 5737, RFC 3849): nobody routes them specially.
const FAR4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const FAR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// A dump that was interrupted so often is not going to succeed.
const DUMP_TRIES: usize = 20;

/// What is known of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Hardware address.
    pub mac: Vec<u8>,
    /// MTU.
    pub mtu: u32,
    /// Alias.
    pub alias: Option<String>,
    /// Number of the bridge it is a port of.
    pub master: Option<u32>,
    /// `veth`, `bridge`, …
    pub kind: Option<String>,
    /// Whether it was brought up.
    pub up: bool,
}

/// A pair of links to make, the far end in another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVeth {
    /// Name of the near end.
    pub host: String,
    /// Its hardware address.
    pub host_mac: [u8; 6],
    /// Name of the far end.
    pub peer: String,
    /// Its hardware address.
    pub peer_mac: [u8; 6],
    /// MTU of both.
    pub mtu: u32,
}

/// What bringing a link into service sets besides the flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Master {
    /// Name of the bridge.
    pub bridge: String,
    /// Whether ports may not talk to each other.
    pub isolated: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; none: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the next hop is taken to be on the link although no address says so.
    pub onlink: bool,
    /// MTU of the route.
    pub mtu: Option<u32>,
    /// Maximum segment size to announce.
    pub advmss: Option<u32>,
    /// Metric.
    pub priority: Option<u32>,
    /// Table; main if absent.
    pub table: Option<u32>,
    /// Scope; that of the next hop if absent.
    pub scope: Option<u8>,
}

impl RouteSpec {
    /// The destination is on the link itself.
    pub fn on_link(dst: IpNet) -> Self {
        Self {
            dst,
            gateway: None,
            onlink: false,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

/// An rtnetlink socket.
#[derive(Debug)]
pub struct Rtnl {
    pub(super) channel: Channel,
    indexes: BTreeMap<String, u32>,
}

pub(super) fn body(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

impl Rtnl {
    /// A socket in the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self::new(Channel::open(ROUTE)?))
    }

    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, indexes: BTreeMap::new() }
    }

    /// The link of this name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.channel.request(&format!("look up link {name}"), (RTM_GETLINK, 0), &body(&message)) {
            Ok(answers) => {
                let link = answers.unwrap_or_default().iter().find_map(|answer| parse_link(&answer.body));
                if let Some(link) = &link {
                    self.indexes.insert(name.to_owned(), link.index);
                }
                Ok(link)
            }
            Err(error) if error.errno == Errno::ENODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links, or those of one kind.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let answers = self.dump("list links", RTM_GETLINK, &body(&LinkMessage::default()))?;
        Ok(answers.iter().filter_map(|bytes| parse_link(bytes)).collect())
    }

    pub(super) fn dump(
        &mut self,
        what: &str,
        kind: u16,
        request: &[u8],
    ) -> Result<Vec<Vec<u8>>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            if let Some(answers) = self.channel.request(what, (kind, NLM_F_DUMP), request)? {
                return Ok(answers.into_iter().map(|answer| answer.body).collect());
            }
        }
        Err(NetlinkError::new(what, Errno::EINTR))
    }

    pub(super) fn index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        if let Some(index) = self.indexes.get(name) {
            return Ok(*index);
        }
        let link = self.link(name)?;
        link.map(|link| link.index)
            .ok_or_else(|| NetlinkError::new(format!("find link {name}"), Errno::ENODEV))
    }

    /// Makes a pair of links with one message: neither end is ever seen under another name or in another namespace.
    pub fn create_veth(&mut self, veth: &NewVeth, netns: &Netns) -> Result<(), NetlinkError> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(veth.peer.clone()),
            LinkAttribute::Address(veth.peer_mac.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::NetNsFd(netns.raw()),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(veth.host.clone()),
            LinkAttribute::Address(veth.host_mac.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.create(&format!("make the links {} and {}", veth.host, veth.peer), &message)
    }

    /// Makes a bridge with an address of its own: a bridge that takes its ports' changes it, and cuts off everybody.
    pub fn create_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
            ]),
        ];
        self.create(&format!("make the bridge {name}"), &message)
    }

    /// Makes an intermediate functional block: the device through which received traffic is shaped.
    pub fn create_ifb(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
        ];
        self.create(&format!("make the shaping device {name}"), &message)
    }

    pub(super) fn create(&mut self, what: &str, message: &LinkMessage) -> Result<(), NetlinkError> {
        self.channel.request(what, (RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL), &body(message)).map(drop)
    }

    /// Brings a link up, and sets what goes with it.
    pub fn set_up(
        &mut self,
        name: &str,
        alias: Option<&str>,
        master: Option<&Master>,
    ) -> Result<(), NetlinkError> {
        let mut message = self.change(name)?;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.extend(alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())));
        if let Some(master) = master {
            message.attributes.push(LinkAttribute::Controller(self.index(&master.bridge)?));
        }
        self.channel.request(&format!("bring up link {name}"), (RTM_NEWLINK, 0), &body(&message))?;
        master.map_or(Ok(()), |master| self.set_port(name, master.isolated))
    }

    /// Takes a link down.
    pub fn set_down(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = self.change(name)?;
        message.header.change_mask = LinkFlags::Up;
        self.channel.request(&format!("take down link {name}"), (RTM_NEWLINK, 0), &body(&message)).map(drop)
    }

    /// Options of a bridge's port. Hairpin: a pod that calls itself through a service or host port gets its packet
    /// back through the port it came from.
    fn set_port(&mut self, name: &str, isolated: bool) -> Result<(), NetlinkError> {
        let mut message = self.change(name)?;
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::HairpinMode(true),
                InfoBridgePort::Isolated(isolated),
            ])),
        ])];
        self.channel.request(&format!("set up port {name}"), (RTM_NEWLINK, 0), &body(&message)).map(drop)
    }

    fn change(&mut self, name: &str) -> Result<LinkMessage, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        Ok(message)
    }

    /// Deletes a link by its number. One that is gone is what was wanted.
    pub fn delete_link(&mut self, link: &Link) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        self.indexes.remove(&link.name);
        let deleted =
            self.channel.request(&format!("delete link {}", link.name), (RTM_DELLINK, 0), &body(&message));
        match deleted {
            Err(error) if error.errno == Errno::ENODEV => Ok(()),
            other => other.map(drop),
        }
    }

    /// Adds an address; one that is there already is what was wanted.
    pub fn add_address(&mut self, link: &str, address: IpNet) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        let ip = address.addr();
        message.header.family = family(ip);
        message.header.prefix_len = address.prefix_len();
        message.header.index = self.index(link)?;
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        match address {
            // Without a broadcast address nothing is broadcast, and a pod with a /32 has nobody to hear it.
            IpNet::V4(net) if net.prefix_len() < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
            IpNet::V4(_) => {}
            // Nobody else can have it: waiting for duplicate detection would cost each pod a second.
            IpNet::V6(net) => {
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
                if net.addr().is_unicast_link_local() {
                    message.header.scope = AddressScope::Link;
                }
            }
        }
        let added = self.channel.request(
            &format!("add address {address} to link {link}"),
            (RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL),
            &body(&message),
        );
        match added {
            Err(error) if error.errno == Errno::EEXIST => Ok(()),
            other => other.map(drop),
        }
    }

    /// Addresses of a link.
    pub fn addresses(&mut self, link: &str) -> Result<Vec<IpNet>, NetlinkError> {
        let index = self.index(link)?;
        let answers = self.dump("list addresses", RTM_GETADDR, &body(&AddressMessage::default()))?;
        let parse = |bytes: &Vec<u8>| {
            let message = AddressMessage::parse(bytes.as_slice()).ok().filter(|m| m.header.index == index)?;
            let of =
                |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
            // On IPv4 the own address is `Local`; on IPv6 it is `Address` where there is no peer.
            let local =
                of(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
            let address =
                of(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None });
            IpNet::new(local.or(address)?, message.header.prefix_len).ok()
        };
        Ok(answers.iter().filter_map(parse).collect())
    }

    /// Adds a route. One that is there already is an error, because it leads to somebody else.
    pub fn add_route(&mut self, link: &str, route: &RouteSpec) -> Result<(), NetlinkError> {
        let message = self.route_message(link, route)?;
        let what = format!("add a route to {} through {link}", route.dst);
        self.channel.request(&what, (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL), &body(&message)).map(drop)
    }

    /// Adds a route, or puts it in place of one with the same destination and metric.
    pub fn replace_route(&mut self, link: &str, route: &RouteSpec) -> Result<(), NetlinkError> {
        let message = self.route_message(link, route)?;
        let what = format!("set the route to {} through {link}", route.dst);
        self.channel.request(&what, (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE), &body(&message)).map(drop)
    }

    /// Removes a route; one that is gone is what was wanted.
    pub fn delete_route(&mut self, link: &str, route: &RouteSpec) -> Result<(), NetlinkError> {
        let message = self.route_message(link, route)?;
        let what = format!("remove the route to {} through {link}", route.dst);
        match self.channel.request(&what, (RTM_DELROUTE, 0), &body(&message)) {
            Err(error) if error.errno == Errno::ESRCH => Ok(()),
            other => other.map(drop),
        }
    }

    fn route_message(&mut self, link: &str, route: &RouteSpec) -> Result<RouteMessage, NetlinkError> {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(route.dst.addr());
        header.destination_prefix_length = route.dst.prefix_len();
        header.protocol = RouteProtocol::Other(PROTOCOL);
        header.kind = RouteType::Unicast;
        header.table = RouteHeader::RT_TABLE_MAIN;
        header.scope = match (route.scope, route.gateway) {
            (Some(scope), _) => RouteScope::from(scope),
            (None, Some(_)) => RouteScope::Universe,
            (None, None) => RouteScope::Link,
        };
        if route.onlink {
            header.flags = RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        if route.dst.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(RouteAddress::from(route.dst.addr())));
        }
        attributes.push(RouteAttribute::Oif(self.index(link)?));
        attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(RouteAddress::from(ip))));
        attributes.extend(route.priority.map(RouteAttribute::Priority));
        if let Some(table) = route.table {
            message.header.table = RouteHeader::RT_TABLE_UNSPEC;
            attributes.push(RouteAttribute::Table(table));
        }
        let metrics: Vec<RouteMetric> = route
            .mtu
            .map(RouteMetric::Mtu)
            .into_iter()
            .chain(route.advmss.map(RouteMetric::Advmss))
            .collect();
        if !metrics.is_empty() {
            attributes.push(RouteAttribute::Metrics(metrics));
        }
        Ok(message)
    }

    /// Destinations of the main table's routes through a link.
    pub fn routes(&mut self, link: &str) -> Result<Vec<IpNet>, NetlinkError> {
        let index = self.index(link)?;
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let answers = self.dump("list routes", RTM_GETROUTE, &body(&request))?;
            found.extend(
                answers.iter().filter_map(|bytes| parse_route(bytes)).filter(|r| r.0 == index).map(|r| r.1),
            );
        }
        Ok(found)
    }

    /// The link that traffic out of the cluster takes, IPv4 first. Asks for one route instead of listing all: a node may
    /// have a million.
    pub fn default_link(&mut self) -> Result<Option<Link>, NetlinkError> {
        for far in [FAR4, FAR6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family(far);
            request.header.destination_prefix_length = if far.is_ipv4() { 32 } else { 128 };
            request.attributes.push(RouteAttribute::Destination(RouteAddress::from(far)));
            match self.channel.request("find the default route", (RTM_GETROUTE, 0), &body(&request)) {
                Ok(answers) => {
                    let answers = answers.unwrap_or_default();
                    if let Some((index, _)) = answers.iter().find_map(|answer| parse_route(&answer.body)) {
                        return self.link_by_index(index);
                    }
                }
                Err(error) if error.errno == Errno::EPERM => return Err(error),
                // No such route, or no such family.
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// Whether each port of a bridge is isolated.
    pub fn isolation(&mut self, bridge: u32) -> Result<Vec<bool>, NetlinkError> {
        let answers = self.dump("list links", RTM_GETLINK, &body(&LinkMessage::default()))?;
        Ok(answers.iter().filter_map(|bytes| parse_port(bytes, bridge)).collect())
    }

    pub(super) fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.channel.request(&format!("look up link {index}"), (RTM_GETLINK, 0), &body(&message)) {
            Ok(answers) => Ok(answers.unwrap_or_default().iter().find_map(|answer| parse_link(&answer.body))),
            Err(error) if error.errno == Errno::ENODEV => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says for good where an address is on a link: nobody has to ask, and nobody can lie.
    pub fn add_neighbour(&mut self, link: &str, ip: IpAddr, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = self.index(link)?;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        let destination = neighbour_address(ip);
        message.attributes = vec![
            NeighbourAttribute::Destination(destination),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        let what = format!("add neighbour {ip} on link {link}");
        self.channel.request(&what, (RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE), &body(&message)).map(drop)
    }
}

pub(super) fn neighbour_address(ip: IpAddr) -> NeighbourAddress {
    match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }
}

fn parse_link(bytes: &[u8]) -> Option<Link> {
    let message = LinkMessage::parse(bytes).ok()?;
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::LinkInfo(info) => {
                link.kind = info.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}

/// Whether a port of this bridge is isolated.
fn parse_port(bytes: &[u8], bridge: u32) -> Option<bool> {
    let message = LinkMessage::parse(bytes).ok()?;
    message.attributes.contains(&LinkAttribute::Controller(bridge)).then_some(())?;
    let infos = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    infos.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(options)) => {
            options.iter().find_map(|option| match option {
                InfoBridgePort::Isolated(isolated) => Some(*isolated),
                _ => None,
            })
        }
        _ => None,
    })
}

/// Link and destination of a route of the main table.
fn parse_route(bytes: &[u8]) -> Option<(u32, IpNet)> {
    let message = RouteMessage::parse(bytes).ok()?;
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let mut index = None;
    let mut dst = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => dst = IpAddr::V4(*ip),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => dst = IpAddr::V6(*ip),
            _ => {}
        }
    }
    Some((index?, IpNet::new(dst, header.destination_prefix_length).ok()?))
}
