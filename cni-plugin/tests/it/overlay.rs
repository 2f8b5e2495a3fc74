//! Pods of different nodes, through a tunnel and directly, on wires of our own.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use trysail_cni::netlink::{Rtnl, Vxlan};
use trysail_cni::overlay::{Options, Peer, Reach, Transport, Tunnel, desired, overhead, sync, vtep_mac};

use crate::attach::talk;
use crate::sandbox::{Namespace, Node, ip};

const TUNNEL: &str = "trysail.1";

/// A node of a cluster: number 1 and 2 are on one wire, 3 is behind a router.
struct Member {
    node: Node,
    number: u8,
    address: IpAddr,
}

struct Cluster {
    members: Vec<Member>,
    _router: Namespace,
}

fn cidrs(number: u8) -> Vec<IpNet> {
    [format!("10.244.{number}.0/24"), format!("fd00:{number}::/64")].map(|net| net.parse().unwrap()).to_vec()
}

fn conf(member: &Member) -> Value {
    let mut conf = member.node.conf();
    let [v4, v6] = [0, 1].map(|index| cidrs(member.number)[index].to_string());
    conf["ipam"] = json!({ "ranges": [[{ "subnet": v4 }], [{ "subnet": v6 }]] });
    conf["masquerade"] = json!({ "exclude": ["10.244.0.0/16", "fd00::/16"] });
    conf
}

fn cluster() -> Cluster {
    let router = Namespace::new();
    router.sh(
        "ip link add br1 type bridge && ip link set br1 up && ip addr add 192.168.1.254/24 dev br1 && \
         ip link add br2 type bridge && ip link set br2 up && ip addr add 192.168.2.254/24 dev br2 && \
         sysctl -qw net.ipv4.ip_forward=1",
    );
    let members = [(1, 1), (2, 1), (3, 2)].map(|(number, wire)| {
        let node = Node::new();
        let address = format!("192.168.{wire}.{number}");
        node.net.sh(&format!("ip link add eth0 type veth peer name n{number} netns {}", router.pid()));
        router.sh(&format!("ip link set n{number} master br{wire} up"));
        node.net.sh(&format!(
            "ip addr add {address}/24 dev eth0 && ip link set eth0 up && ip route add default via 192.168.{wire}.254"
        ));
        Member { node, number, address: address.parse().unwrap() }
    });
    Cluster { members: members.into(), _router: router }
}

impl Cluster {
    /// What the agent of one node does when it sees these nodes.
    fn agent(&self, index: usize, seen: &[usize], transport: Transport) -> usize {
        let own = &self.members[index];
        let peers: Vec<Peer> = seen
            .iter()
            .filter(|other| **other != index)
            .map(|other| &self.members[*other])
            .map(|member| Peer {
                name: format!("n{}", member.number),
                uid: format!("uid-{}", member.number),
                addresses: vec![member.address],
                pod_cidrs: cidrs(member.number),
            })
            .collect();
        own.node.net.run(|| {
            let mut rtnl = Rtnl::open().unwrap();
            let options = Options { transport, tunnel: TUNNEL.into(), outer_v4: true };
            let reach: std::collections::BTreeMap<IpAddr, Reach> = peers
                .iter()
                .flat_map(|peer| peer.addresses.clone())
                .map(|ip| match rtnl.route_to(ip).unwrap() {
                    Some((link, false)) => (ip, Reach::OnLink(link)),
                    _ => (ip, Reach::Routed),
                })
                .collect();
            let wanted = desired(("own", &cidrs(own.number)), &peers, &options, |ip| reach[&ip].clone());
            let uid = format!("uid-{}", own.number);
            let vxlan =
                Vxlan { name: TUNNEL.into(), vni: 1, port: 8472, local: own.address, mac: vtep_mac(&uid) };
            let tunnel = Tunnel { vxlan, mtu: 1500 - overhead(true), own: cidrs(own.number) };
            let (changes, errors) = sync(&mut rtnl, &tunnel, &wanted).unwrap();
            assert_eq!(errors, []);
            changes
        })
    }

    fn agents(&self, transport: Transport) -> usize {
        (0..3).map(|index| self.agent(index, &[0, 1, 2], transport)).sum()
    }

    fn routes(&self, index: usize) -> String {
        self.members[index].node.net.sh("ip route show proto 252; ip -6 route show proto 252")
    }
}

/// Neighbours directly, the one behind the router through the tunnel, everybody with its own address, in both
/// families although the nodes have only one; and again with everything tunnelled.
#[test]
fn pods_of_all_nodes_reach_each_other() {
    let cluster = cluster();
    let pods: Vec<Namespace> = (0..3).map(|_| Namespace::new()).collect();
    let results: Vec<Value> =
        (0..3).map(|i| cluster.members[i].node.add("c1", &pods[i], &conf(&cluster.members[i]))).collect();
    for transport in [Transport::Auto, Transport::Vxlan, Transport::Auto] {
        assert!(cluster.agents(transport) > 0);
        assert_eq!(cluster.agents(transport), 0, "nothing is left to do");
        for (from, to) in [(0, 1), (0, 2), (2, 0), (1, 2)] {
            let v4 = format!("{}:80", ip(&results[to], 0));
            let seen = talk((&pods[to], "0.0.0.0:80"), (&pods[from], &v4));
            assert_eq!(seen, Some(ip(&results[from], 0)), "{transport:?} {from} to {to}");
            let v6 = format!("[{}]:80", ip(&results[to], 1));
            let seen = talk((&pods[to], "[::]:80"), (&pods[from], &v6));
            assert_eq!(seen, Some(ip(&results[from], 1)), "{transport:?} {from} to {to}");
        }
        let v4 = format!("{}:80", ip(&results[2], 0));
        assert!(
            talk((&pods[2], "0.0.0.0:80"), (&cluster.members[0].node.net, &v4)).is_some(),
            "a node to a pod"
        );
    }
}

/// What somebody removes comes back; what somebody else made stays; a node that left is forgotten, even when nobody
/// was there to see it go.
#[test]
fn the_kernel_is_brought_back() {
    let cluster = cluster();
    cluster.agents(Transport::Vxlan);
    let net = &cluster.members[0].node.net;
    let whole = cluster.routes(0);
    net.sh("ip route add 10.99.0.0/16 via 192.168.1.254");
    net.sh("ip route del 10.244.2.0/24; ip neigh del 10.244.3.0 dev trysail.1; bridge fdb flush dev trysail.1 2>/dev/null \
            || bridge fdb show dev trysail.1 | awk '{ print $1, $4 }' | while read m d; do bridge fdb del $m dev trysail.1 dst $d; done");
    assert!(cluster.agent(0, &[0, 1, 2], Transport::Vxlan) >= 3);
    assert_eq!(cluster.routes(0), whole);
    net.sh("ip link del trysail.1");
    assert!(cluster.agent(0, &[0, 1, 2], Transport::Vxlan) >= 6);
    assert_eq!(cluster.routes(0), whole);
    cluster.agent(0, &[0, 1], Transport::Vxlan);
    assert!(!cluster.routes(0).contains("10.244.3.0"));
    assert!(!net.sh("bridge fdb show dev trysail.1").contains("192.168.2.3"));
    assert!(net.sh("ip route show 10.99.0.0/16").contains("192.168.1.254"));
    // A foreign link under the tunnel's name is said, not taken.
    let foreign = Namespace::new();
    foreign.sh("ip link add trysail.1 type bridge");
    let error = foreign.run(|| {
        let vxlan = Vxlan {
            name: TUNNEL.into(),
            vni: 1,
            port: 8472,
            local: "127.0.0.1".parse().unwrap(),
            mac: vtep_mac("x"),
        };
        let tunnel = Tunnel { vxlan, mtu: 1450, own: vec![] };
        trysail_cni::overlay::ensure_tunnel(&mut Rtnl::open().unwrap(), &tunnel).unwrap_err()
    });
    assert!(error.to_string().contains("a bridge trysail.1, which is no tunnel"), "{error}");
}
