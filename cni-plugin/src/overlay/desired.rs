//! What the kernel of one node should have, so that its pods reach those of every other.
//!
//! Decided per peer and address family: a peer that is on a common link is reached by a plain route through its address,
//! any other through a VXLAN tunnel, and without a tunnel not at all, which is a problem that is said and not hidden.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

/// Whether peers are reached directly, through the tunnel, or as their place demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Direct where the peer is on a common link, else the tunnel.
    #[default]
    Auto,
    /// Always the tunnel.
    Vxlan,
    /// Never the tunnel.
    Direct,
}

/// What an administrator may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How peers are reached.
    pub transport: Transport,
    /// Name of the tunnel's device.
    pub tunnel: String,
    /// Whether tunnelled packets travel between nodes over IPv4; they carry both families either way.
    pub outer_v4: bool,
}

/// Another node, as its Node object tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Uid of the Node object: a node that was made anew is another one.
    pub uid: String,
    /// InternalIP addresses, in the order of the Node object.
    pub addresses: Vec<IpAddr>,
    /// spec.podCIDRs.
    pub pod_cidrs: Vec<IpNet>,
}

/// How the kernel would reach an address of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Through this link, without a router between.
    OnLink(String),
    /// Through a router.
    Routed,
}

/// How packets get to a range of pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Through the peer's own address on a common link.
    Direct {
        /// The peer's address.
        via: IpAddr,
        /// The link.
        link: String,
    },
    /// Through the tunnel.
    Tunnel {
        /// Next hop inside the tunnel.
        via: IpAddr,
        /// The tunnel's device.
        link: String,
    },
}

/// An address inside the tunnel and where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// Next hop of the peer's pods.
    pub ip: IpAddr,
    /// The peer's hardware address in the tunnel.
    pub mac: [u8; 6],
}

/// A hardware address inside the tunnel, and the node behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forwarding {
    /// The peer's hardware address in the tunnel.
    pub mac: [u8; 6],
    /// Address of the peer that packets are sent to.
    pub to: IpAddr,
}

/// One thing that the kernel should have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// Where an address of the tunnel is.
    Neighbour(Neighbour),
    /// Which node a hardware address is at.
    Forwarding(Forwarding),
    /// How a range of pods is reached.
    Route(IpNet, Path),
}

/// Something that keeps pods apart, in words for the Node's condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The peer has pods of a family and no address to reach them by.
    NoAddress {
        /// The peer.
        peer: String,
        /// Its range of pods.
        pods: IpNet,
    },
    /// The peer is behind a router and the tunnel is forbidden.
    NotOnLink {
        /// The peer.
        peer: String,
        /// Its address.
        address: IpAddr,
    },
    /// Two nodes have ranges with a common address: the one that comes first by name keeps it.
    Overlap {
        /// The peer whose range is left out.
        peer: String,
        /// Its range.
        pods: IpNet,
        /// Who has it.
        with: String,
    },
}

/// What the kernel should have, and what stands against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Everything, once.
    pub entries: BTreeSet<Entry>,
    /// Whether any peer is reached through the tunnel.
    pub tunnel: bool,
    /// Peers that are not reached as they should be.
    pub problems: BTreeSet<Problem>,
}

/// Bytes that the tunnel adds to a packet, by the family of the nodes' addresses: outer IP, UDP, VXLAN, inner Ethernet.
pub fn overhead(outer_v4: bool) -> u32 {
    let ip = if outer_v4 { 20 } else { 40 };
    ip + 8 + 8 + 14
}

/// The hardware address of a node in the tunnel: a function of its uid, so that nobody has to publish it, and another
/// when the node is made anew, so that nothing stale is ever right by chance.
pub fn vtep_mac(uid: &str) -> [u8; 6] {
    let digest = Sha256::digest(uid);
    [0x0e, digest[0], digest[1], digest[2], digest[3], digest[4]]
}

/// The whole function. `own` are the pod ranges of this node; `reach` says how the kernel reaches an address now.
pub fn desired(
    own: (&str, &[IpNet]),
    peers: &[Peer],
    options: &Options,
    reach: impl Fn(IpAddr) -> Reach,
) -> Desired {
    let mut all: Vec<&Peer> = peers.iter().collect();
    all.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
    let mut taken: BTreeMap<IpNet, &str> = own.1.iter().map(|net| (net.trunc(), own.0)).collect();
    let mut result = Desired::default();
    for peer in all {
        for pods in peer.pod_cidrs.iter().map(IpNet::trunc) {
            if let Some(with) = overlapping(&taken, &pods) {
                let problem = Problem::Overlap { peer: peer.name.clone(), pods, with: with.to_owned() };
                result.problems.insert(problem);
                continue;
            }
            taken.insert(pods, &peer.name);
            reach_pods(peer, pods, options, &reach, &mut result);
        }
    }
    result
}

fn overlapping<'a>(taken: &BTreeMap<IpNet, &'a str>, pods: &IpNet) -> Option<&'a str> {
    taken.iter().find(|(net, _)| net.contains(pods) || pods.contains(*net)).map(|(_, who)| *who)
}

fn reach_pods(
    peer: &Peer,
    pods: IpNet,
    options: &Options,
    reach: &impl Fn(IpAddr) -> Reach,
    result: &mut Desired,
) {
    let v4 = pods.addr().is_ipv4();
    let same_family = peer.addresses.iter().find(|ip| ip.is_ipv4() == v4).copied();
    let outer = peer.addresses.iter().find(|ip| ip.is_ipv4() == options.outer_v4).copied();
    if options.transport != Transport::Vxlan
        && let Some(via) = same_family
        && let Reach::OnLink(link) = reach(via)
    {
        result.entries.insert(Entry::Route(pods, Path::Direct { via, link }));
        return;
    }
    match (options.transport, same_family, outer) {
        (Transport::Direct, Some(address), _) => {
            result.problems.insert(Problem::NotOnLink { peer: peer.name.clone(), address });
        }
        (Transport::Direct, None, _) | (_, _, None) => {
            result.problems.insert(Problem::NoAddress { peer: peer.name.clone(), pods });
        }
        (Transport::Auto | Transport::Vxlan, _, Some(to)) => through_tunnel(peer, pods, to, options, result),
    }
}

/// The first address of a peer's range is its next hop in the tunnel: it is no pod's, and needs no agreement.
fn through_tunnel(peer: &Peer, pods: IpNet, to: IpAddr, options: &Options, result: &mut Desired) {
    let mac = vtep_mac(&peer.uid);
    let via = pods.network();
    result.tunnel = true;
    result.entries.insert(Entry::Neighbour(Neighbour { ip: via, mac }));
    result.entries.insert(Entry::Forwarding(Forwarding { mac, to }));
    result.entries.insert(Entry::Route(pods, Path::Tunnel { via, link: options.tunnel.clone() }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(transport: Transport) -> Options {
        Options { transport, tunnel: "trysail.1".into(), outer_v4: true }
    }

    fn peer(number: u8, addresses: &[&str], pods: &[&str]) -> Peer {
        Peer {
            name: format!("node-{number}"),
            uid: format!("uid-{number}"),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            pod_cidrs: pods.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    /// 192.168.1.0/24 and fd01::/16 are on our link, everything else is behind a router.
    fn reach(ip: IpAddr) -> Reach {
        let near: [IpNet; 2] = ["192.168.1.0/24".parse().unwrap(), "fd01::/16".parse().unwrap()];
        if near.iter().any(|net| net.contains(&ip)) { Reach::OnLink("eth0".into()) } else { Reach::Routed }
    }

    fn own() -> Vec<IpNet> {
        vec!["10.244.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]
    }

    fn text(peers: &[Peer], transport: Transport) -> String {
        let result = desired(("own", &own()), peers, &options(transport), reach);
        let entries = result.entries.iter().map(|entry| format!("{entry:?}\n"));
        entries.chain(result.problems.iter().map(|problem| format!("{problem:?}\n"))).collect()
    }

    /// Near and far, one family and two.
    #[test]
    fn each_peer_is_reached_as_its_place_demands() {
        let peers = [
            peer(1, &["192.168.1.1", "fd01::1"], &["10.244.1.0/24", "fd00:0:0:1::/64"]),
            peer(2, &["192.168.2.2"], &["10.244.2.0/24", "fd00:0:0:2::/64"]),
            peer(3, &[], &["10.244.3.0/24"]),
        ];
        insta::assert_snapshot!(text(&peers, Transport::Auto), @r#"
        Neighbour(Neighbour { ip: 10.244.2.0, mac: [14, 175, 174, 194, 213, 188] })
        Neighbour(Neighbour { ip: fd00:0:0:2::, mac: [14, 175, 174, 194, 213, 188] })
        Forwarding(Forwarding { mac: [14, 175, 174, 194, 213, 188], to: 192.168.2.2 })
        Route(10.244.1.0/24, Direct { via: 192.168.1.1, link: "eth0" })
        Route(10.244.2.0/24, Tunnel { via: 10.244.2.0, link: "trysail.1" })
        Route(fd00:0:0:1::/64, Direct { via: fd01::1, link: "eth0" })
        Route(fd00:0:0:2::/64, Tunnel { via: fd00:0:0:2::, link: "trysail.1" })
        NoAddress { peer: "node-3", pods: 10.244.3.0/24 }
        "#);
        insta::assert_snapshot!(text(&peers, Transport::Direct), @r#"
        Route(10.244.1.0/24, Direct { via: 192.168.1.1, link: "eth0" })
        Route(fd00:0:0:1::/64, Direct { via: fd01::1, link: "eth0" })
        NoAddress { peer: "node-2", pods: fd00:0:0:2::/64 }
        NoAddress { peer: "node-3", pods: 10.244.3.0/24 }
        NotOnLink { peer: "node-2", address: 192.168.2.2 }
        "#);
        let tunnelled = text(&peers[..1], Transport::Vxlan);
        assert!(!tunnelled.contains("Direct") && tunnelled.matches("Tunnel").count() == 2, "{tunnelled}");
    }

    /// Two nodes with one range would swallow each other's packets.
    #[test]
    fn an_overlap_is_told_and_does_not_flap() {
        let peers = [
            peer(2, &["192.168.1.2"], &["10.244.1.0/25"]),
            peer(1, &["192.168.1.1"], &["10.244.1.0/24"]),
            peer(3, &["192.168.1.3"], &["10.244.0.128/25"]),
        ];
        let forward = text(&peers, Transport::Auto);
        let mut turned = peers.to_vec();
        turned.reverse();
        assert_eq!(text(&turned, Transport::Auto), forward);
        insta::assert_snapshot!(forward, @r#"
        Route(10.244.1.0/24, Direct { via: 192.168.1.1, link: "eth0" })
        Overlap { peer: "node-2", pods: 10.244.1.0/25, with: "node-1" }
        Overlap { peer: "node-3", pods: 10.244.0.128/25, with: "own" }
        "#);
    }

    /// The usual numbers: 50 bytes over IPv4, 70 over IPv6.
    #[test]
    fn the_overhead_follows_the_outer_family() {
        assert_eq!((overhead(true), overhead(false)), (50, 70));
    }

    fn peers() -> impl Strategy<Value = Vec<Peer>> {
        let one =
            (1_u8..30, 0_u8..4, proptest::bool::ANY, 1_u8..30).prop_map(|(number, subnet, v6, pods)| {
                let mut addresses = vec![format!("192.168.{subnet}.{number}")];
                if v6 {
                    addresses.push(format!("fd0{subnet}::{number:x}"));
                }
                let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
                peer(number, &texts, &[&format!("10.244.{pods}.0/24"), &format!("fd00:0:0:{pods:x}::/64")])
            });
        proptest::collection::vec(one, 0..12)
    }

    proptest! {
        /// Each range has one way or one problem; every tunnel route has its neighbour and forwarding entry; the order
        /// of the peers is irrelevant; our own range is never routed away.
        #[test]
        fn every_range_has_one_way(peers in peers(), transport in 0..3) {
            let transport = [Transport::Auto, Transport::Vxlan, Transport::Direct][transport as usize];
            let mut unique = std::collections::BTreeMap::new();
            for peer in peers {
                unique.insert(peer.name.clone(), peer);
            }
            let peers: Vec<Peer> = unique.into_values().collect();
            let result = desired(("own", &own()), &peers, &options(transport), reach);
            let mut shuffled = peers.clone();
            shuffled.reverse();
            prop_assert_eq!(&desired(("own", &own()), &shuffled, &options(transport), reach), &result);
            let mut ranges = BTreeSet::new();
            for entry in &result.entries {
                let Entry::Route(pods, path) = entry else { continue };
                prop_assert!(ranges.insert(*pods), "two ways to {}", pods);
                prop_assert!(!own().contains(pods));
                if let Path::Tunnel { via, .. } = path {
                    let neighbour = result.entries.iter().find_map(|entry| match entry {
                        Entry::Neighbour(n) if n.ip == *via => Some(n.mac),
                        _ => None,
                    });
                    let mac = neighbour.expect("a next hop that nobody knows");
                    let places = result.entries.iter().filter(|e| matches!(e, Entry::Forwarding(f) if f.mac == mac));
                    prop_assert_eq!(places.count(), 1, "a hardware address with several places");
                    prop_assert!(transport != Transport::Direct && result.tunnel);
                }
            }
            for peer in &peers {
                for pods in &peer.pod_cidrs {
                    let told = result.problems.iter().any(|problem| match problem {
                        Problem::NoAddress { peer: name, pods: range }
                        | Problem::Overlap { peer: name, pods: range, .. } => *name == peer.name && range == pods,
                        Problem::NotOnLink { peer: name, .. } => *name == peer.name,
                    });
                    prop_assert!(ranges.contains(pods) || told, "nobody knows about {}", pods);
                }
            }
        }
    }
}
