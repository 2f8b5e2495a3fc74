//! What a pod adds to the sets and maps of the table: a function of its record.

use std::net::IpAddr;

use ipnet::IpNet;

use super::table::{self, Set, of_family};
use crate::conf::Protocol;
use crate::netlink::UdpPort;
use crate::store::{Phase, Record};

/// IFNAMSIZ.
const NAME: usize = 16;

/// One element of one set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// Traffic from this address is masqueraded.
    Masqueraded(IpAddr),
    /// Only listed sources may come from this link.
    Pinned(String),
    /// This one may.
    Source(String, IpAddr),
    /// This address may be its own client through a host port.
    Hairpin(IpAddr),
    /// A host port leads to a pod.
    HostPort {
        /// Only on this address of the node.
        at: Option<IpAddr>,
        /// Protocol.
        protocol: Protocol,
        /// The node's port.
        port: u16,
        /// The pod's address.
        to: IpAddr,
        /// The pod's port.
        to_port: u16,
    },
}

/// Elements of an attachment. One that is being removed has none, so that a table which is made again while it goes
/// does not bring them back.
pub fn elements_of(record: &Record) -> Vec<Element> {
    if record.phase == Phase::Removing { Vec::new() } else { all_elements_of(record) }
}

/// Elements that an attachment may have, in whatever phase it is.
pub(crate) fn all_elements_of(record: &Record) -> Vec<Element> {
    let mut elements = Vec::new();
    if record.spoof_protection && !record.host_link.is_empty() {
        elements.extend(record.ips.iter().map(|ip| Element::Source(record.host_link.clone(), *ip)));
        // Last, so that the link is never pinned before its addresses are known.
        elements.push(Element::Pinned(record.host_link.clone()));
    }
    if record.masquerade {
        elements.extend(record.ips.iter().map(|ip| Element::Masqueraded(*ip)));
    }
    // A host port leads to the first address of each family, as in the reference plugin.
    for v4 in [true, false] {
        let Some(to) = record.ips.iter().find(|ip| ip.is_ipv4() == v4).copied() else { continue };
        let ports: Vec<_> = record.ports.iter().filter(|port| port.serves(v4)).collect();
        if !ports.is_empty() {
            elements.push(Element::Hairpin(to));
        }
        elements.extend(ports.into_iter().map(|port| Element::HostPort {
            at: port.bound_to(),
            protocol: port.protocol,
            port: port.host_port,
            to,
            to_port: port.container_port,
        }));
    }
    elements
}

/// Host ports whose flows outlive them.
pub(crate) fn udp_ports(record: &Record) -> Vec<UdpPort> {
    let of_udp = |element: Element| match element {
        Element::HostPort { at, protocol: Protocol::Udp, port, to, to_port: _ } => {
            Some(UdpPort { at, port, pod: to })
        }
        _ => None,
    };
    all_elements_of(record).into_iter().filter_map(of_udp).collect()
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn name(link: &str) -> Vec<u8> {
    let mut bytes = link.as_bytes().to_vec();
    bytes.resize(NAME, 0);
    bytes
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

impl Element {
    /// The set it belongs to.
    pub(super) fn set(&self) -> Set {
        match self {
            Self::Masqueraded(ip) => of_family(&table::MASQUERADED, ip.is_ipv4()),
            Self::Pinned(_) => table::PINNED,
            Self::Source(_, ip) => of_family(&table::SOURCES, ip.is_ipv4()),
            Self::Hairpin(ip) => of_family(&table::HAIRPIN, ip.is_ipv4()),
            Self::HostPort { at: Some(_), to, .. } => of_family(&table::HOSTPORTS_AT, to.is_ipv4()),
            Self::HostPort { at: None, to, .. } => of_family(&table::HOSTPORTS, to.is_ipv4()),
        }
    }

    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Masqueraded(ip) => octets(*ip),
            Self::Pinned(link) => name(link),
            Self::Source(link, ip) => [name(link), octets(*ip)].concat(),
            Self::Hairpin(ip) => [octets(*ip), octets(*ip)].concat(),
            Self::HostPort { at, protocol, port, .. } => {
                let at = at.map(octets).unwrap_or_default();
                [at, padded(&[protocol.number()]), padded(&port.to_be_bytes())].concat()
            }
        }
    }

    pub(super) fn data(&self) -> Option<Vec<u8>> {
        match self {
            Self::HostPort { to, to_port, .. } => {
                Some([octets(*to), padded(&to_port.to_be_bytes())].concat())
            }
            Self::Masqueraded(_) | Self::Pinned(_) | Self::Source(..) | Self::Hairpin(_) => None,
        }
    }
}

/// Keys of an interval set that covers these subnets: starts, and ends marked as such.
pub(super) fn intervals(nets: &[IpNet], v4: bool) -> Vec<(Vec<u8>, bool)> {
    let of_family: Vec<IpNet> = nets.iter().filter(|net| net.addr().is_ipv4() == v4).copied().collect();
    let mut keys = Vec::new();
    // Overlapping and adjoining subnets become one: the kernel refuses the former and merges the latter.
    for net in merged(&of_family) {
        keys.push((octets(net.0), false));
        if let Some(end) = net.1 {
            keys.push((octets(end), true));
        }
    }
    keys
}

/// First addresses and first addresses behind; none when the range reaches the end of the address space.
fn merged(nets: &[IpNet]) -> Vec<(IpAddr, Option<IpAddr>)> {
    let mut ranges: Vec<(u128, u128, bool)> = IpNet::aggregate(&nets.to_vec())
        .into_iter()
        .map(|net| {
            (crate::conf::number(net.network()), crate::conf::number(net.broadcast()), net.addr().is_ipv4())
        })
        .collect();
    ranges.sort_unstable();
    let mut joined: Vec<(u128, u128, bool)> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.1.checked_add(1) == Some(range.0) => last.1 = range.1,
            _ => joined.push(range),
        }
    }
    let behind = |(_, last, v4): (u128, u128, bool)| {
        let end = last.checked_add(1)?;
        let fits = !v4 || end <= u128::from(u32::MAX);
        fits.then(|| crate::conf::from_number(v4, end))
    };
    joined.into_iter().map(|range| (crate::conf::from_number(range.2, range.0), behind(range))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(nets: &[&str]) -> String {
        let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
        let show = |(start, end): &(IpAddr, Option<IpAddr>)| match end {
            Some(end) => format!("{start}..{end}"),
            None => format!("{start}.."),
        };
        merged(&nets).iter().map(show).collect::<Vec<_>>().join(" ")
    }

    /// The kernel refuses a whole transaction for two intervals that overlap.
    #[test]
    fn subnets_become_disjoint_intervals() {
        assert_eq!(
            text(&["10.244.0.0/16", "10.244.7.0/24", "10.0.0.0/24"]),
            "10.0.0.0..10.0.1.0 10.244.0.0..10.245.0.0"
        );
        assert_eq!(text(&["10.0.1.0/24", "10.0.2.0/24"]), "10.0.1.0..10.0.3.0");
        assert_eq!(text(&["240.0.0.0/4"]), "240.0.0.0..");
        assert_eq!(text(&["fd00::/8", "ff00::/8"]), "fd00::..fe00:: ff00::..");
        assert_eq!(text(&["0.0.0.0/0"]), "0.0.0.0..");
    }
}
