//! Connection tracking: flows that were decided before a host port changed hands.
//!
//! The kernel translates a flow as its first packet was, for as long as packets keep coming. A client that talks UDP to a
//! host port without a pause would never reach the pod that took the port over. TCP starts anew by itself.

use std::net::IpAddr;

use nix::errno::Errno;

use super::attribute::Writer;
use super::channel::{Attributes, Channel, NETFILTER, NLM_F_DUMP, NetlinkError};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const NLA_F_NESTED: u16 = 1 << 15;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;

const UDP: u8 = 17;

/// UDP flows to a port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpPort {
    /// Only to this address.
    pub at: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The pod that the port leads to.
    pub pod: IpAddr,
}

/// Which flows of the port are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Those that do not lead to the pod: it has just got the port.
    Elsewhere,
    /// Those that do: it is about to go.
    ToPod,
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: u8,
    destination_port: u16,
}

/// Forgets stale flows of these ports; the number of them.
pub fn forget_flows(ports: &[UdpPort], stale: Stale) -> Result<usize, NetlinkError> {
    let mut forgotten = 0;
    for v4 in [true, false] {
        let of_family: Vec<&UdpPort> = ports.iter().filter(|port| port.pod.is_ipv4() == v4).collect();
        if !of_family.is_empty() {
            forgotten += forget_family(&of_family, stale, if v4 { AF_INET } else { AF_INET6 })?;
        }
    }
    Ok(forgotten)
}

fn forget_family(ports: &[&UdpPort], stale: Stale, family: u8) -> Result<usize, NetlinkError> {
    let mut channel = Channel::open(NETFILTER)?;
    let header = [family, 0, 0, 0];
    let kind = |message: u16| NFNL_SUBSYS_CTNETLINK << 8 | message;
    // An interrupted dump has shown what was there all along; flows that began meanwhile are not stale.
    let answers = match channel.request("list connections", (kind(IPCTNL_MSG_CT_GET), NLM_F_DUMP), &header) {
        Ok(answers) => answers.unwrap_or_default(),
        // No connection tracking: nothing was decided.
        Err(error) if matches!(error.errno, Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOENT) => {
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    let mut forgotten = 0;
    for answer in &answers {
        let attributes = answer.body.get(4..).unwrap_or_default();
        if !ports.iter().any(|port| is_stale(attributes, port, stale)) {
            continue;
        }
        let named = Attributes(attributes).filter(|(kind, _)| matches!(*kind, CTA_TUPLE_ORIG | CTA_ZONE));
        let request = named.fold(Writer::default(), |request, (kind, value)| {
            request.bytes(if kind == CTA_TUPLE_ORIG { kind | NLA_F_NESTED } else { kind }, value)
        });
        let body = [&header[..], &request.0].concat();
        match channel.request("forget a connection", (kind(IPCTNL_MSG_CT_DELETE), 0), &body) {
            Err(error) if error.errno != Errno::ENOENT => return Err(error),
            _ => forgotten += 1,
        }
    }
    Ok(forgotten)
}

fn is_stale(attributes: &[u8], port: &UdpPort, stale: Stale) -> bool {
    let original = tuple(attributes, CTA_TUPLE_ORIG);
    let reply = tuple(attributes, CTA_TUPLE_REPLY);
    let of_port = original.protocol == UDP
        && original.destination_port == port.port
        && port.at.is_none_or(|at| original.destination == Some(at));
    let leads_to_pod = reply.source == Some(port.pod);
    of_port && leads_to_pod == (stale == Stale::ToPod)
}

fn tuple(attributes: &[u8], which: u16) -> Tuple {
    let mut tuple = Tuple::default();
    let Some((_, parts)) = Attributes(attributes).find(|(kind, _)| *kind == which) else { return tuple };
    for (part, values) in Attributes(parts) {
        for (kind, value) in Attributes(values) {
            match (part, kind) {
                (1, 1 | 3) => tuple.source = address(value),
                (1, 2 | 4) => tuple.destination = address(value),
                (2, 1) => tuple.protocol = value.first().copied().unwrap_or_default(),
                (2, 3) => {
                    let port = value.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
                    tuple.destination_port = port;
                }
                _ => {}
            }
        }
    }
    tuple
}

/// Four or sixteen bytes.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(destination: [u8; 4], port: u16, protocol: u8, replier: [u8; 4]) -> Vec<u8> {
        let direction = |writer: Writer, kind, source: [u8; 4], destination: [u8; 4], port: u16| {
            writer.nest(kind, |tuple| {
                tuple.nest(1, |ip| ip.bytes(1, &source).bytes(2, &destination)).nest(2, |proto| {
                    proto.bytes(1, &[protocol]).bytes(2, &[1, 1]).bytes(3, &port.to_be_bytes())
                })
            })
        };
        let client = [192, 168, 7, 2];
        let writer = direction(Writer::default(), CTA_TUPLE_ORIG, client, destination, port);
        direction(writer, CTA_TUPLE_REPLY, replier, client, 257).0
    }

    /// A flow too many that is forgotten is a lost packet; one too few is a client that is cut off.
    #[test]
    fn only_flows_of_the_port_that_lead_wrong_are_stale() {
        let pod = [10, 244, 1, 2];
        let port = UdpPort { at: None, port: 53, pod: IpAddr::from(pod) };
        let bound = UdpPort { at: Some(IpAddr::from([10, 0, 0, 1])), ..port };
        let node = [10, 0, 0, 1];
        let (right, wrong) = (flow(node, 53, UDP, pod), flow(node, 53, UDP, node));
        assert!(is_stale(&wrong, &port, Stale::Elsewhere) && !is_stale(&right, &port, Stale::Elsewhere));
        assert!(!is_stale(&wrong, &port, Stale::ToPod) && is_stale(&right, &port, Stale::ToPod));
        assert!(is_stale(&wrong, &bound, Stale::Elsewhere));
        for other in [flow(node, 54, UDP, node), flow(node, 53, 6, node)] {
            assert!(!is_stale(&other, &port, Stale::Elsewhere));
        }
        assert!(!is_stale(&flow([10, 0, 0, 9], 53, UDP, node), &bound, Stale::Elsewhere));
    }
}
