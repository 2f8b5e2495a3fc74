//! What is done to the kernel, as data: one step each, safe to repeat, printable.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::{Master, NewVeth, RouteSpec, Shape, UdpPort};
use crate::nft::Element;

/// Which network namespace a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The node's.
    Host,
    /// The pod's.
    Pod,
}

/// A kernel setting below /proc/sys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Path, with `/`.
    pub path: String,
    /// Value.
    pub value: &'static str,
    /// Whether its absence is an error. A kernel without IPv6 has none of its settings, and needs none.
    pub required: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The node forwards this family.
    Forward {
        /// IPv4, else IPv6.
        v4: bool,
    },
    /// Elements of the nftables table, and which destinations it leaves alone.
    Elements {
        /// Elements.
        elements: Vec<Element>,
        /// Destinations that are not masqueraded.
        excluded: Vec<IpNet>,
    },
    /// A bridge.
    Bridge {
        /// Its name.
        name: String,
        /// Its hardware address.
        mac: [u8; 6],
        /// MTU.
        mtu: u32,
    },
    /// A pair of links, one end in the pod.
    Veth(NewVeth),
    /// Settings.
    Sysctls(Side, Vec<Sysctl>),
    /// A link is brought up.
    Up {
        /// Where.
        side: Side,
        /// Which.
        link: String,
        /// Whose it is.
        alias: Option<String>,
        /// What it is a port of.
        master: Option<Master>,
    },
    /// An address.
    Address(Side, String, IpNet),
    /// A route.
    Route(Side, String, RouteSpec),
    /// Where an address is on a link.
    Neighbour(Side, String, IpAddr, [u8; 6]),
    /// Flows to host ports of the pod that lead elsewhere are forgotten.
    ForgetFlows(Vec<UdpPort>),
    /// A limit on what leaves through a link of the node.
    Shape {
        /// Which.
        link: String,
        /// How much.
        shape: Shape,
        /// MTU of the link.
        mtu: u32,
    },
    /// A limit on what arrives through a link of the node.
    ShapeReceived {
        /// Which.
        link: String,
        /// The device that it goes through.
        through: String,
        /// How much.
        shape: Shape,
        /// MTU of the link.
        mtu: u32,
    },
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Pod => "pod",
        })
    }
}

/// Six pairs of digits.
pub(crate) fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward { v4 } => write!(f, "host: forward IPv{}", if *v4 { 4 } else { 6 }),
            Self::Elements { elements, excluded } => {
                write!(f, "host: nft add {elements:?}")?;
                let nets: Vec<String> = excluded.iter().map(ToString::to_string).collect();
                if nets.is_empty() { Ok(()) } else { write!(f, " excluded {}", nets.join(" ")) }
            }
            Self::Bridge { name, mac, mtu } => write!(f, "host: bridge {name} {} mtu {mtu}", mac_text(mac)),
            Self::Veth(NewVeth { host, host_mac, peer, peer_mac, mtu }) => {
                write!(f, "veth {host} {} - pod {peer} {} mtu {mtu}", mac_text(host_mac), mac_text(peer_mac))
            }
            Self::Sysctls(side, all) => {
                let text: Vec<String> = all.iter().map(|one| format!("{}={}", one.path, one.value)).collect();
                write!(f, "{side}: {}", text.join(" "))
            }
            Self::Up { side, link, alias, master } => {
                write!(f, "{side}: up {link}")?;
                if let Some(alias) = alias {
                    write!(f, " alias {alias:?}")?;
                }
                match master {
                    Some(Master { bridge, isolated }) => write!(f, " port of {bridge} isolated={isolated}"),
                    None => Ok(()),
                }
            }
            Self::Address(side, link, address) => write!(f, "{side}: address {address} on {link}"),
            Self::Route(side, link, route) => {
                write!(f, "{side}: route {} on {link}", route.dst)?;
                if let Some(gateway) = route.gateway {
                    write!(f, " via {gateway}{}", if route.onlink { " onlink" } else { "" })?;
                }
                Ok(())
            }
            Self::Neighbour(side, link, ip, mac) => {
                write!(f, "{side}: neighbour {ip} {} on {link}", mac_text(mac))
            }
            Self::ForgetFlows(ports) => {
                let ports: Vec<String> =
                    ports.iter().map(|port| format!("{} to {}", port.port, port.pod)).collect();
                write!(f, "host: forget UDP flows that do not follow {}", ports.join(", "))
            }
            Self::Shape { link, shape, mtu: _ } => write!(f, "host: shape {link} {} bit/s", shape.rate),
            Self::ShapeReceived { link, through, shape, mtu: _ } => {
                write!(f, "host: shape received {link} through {through} {} bit/s", shape.rate)
            }
        }
    }
}
