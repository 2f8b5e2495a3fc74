//! How a pod is wired: from what was asked for to the steps that make it, and the result that says so.
//!
//! Pure. The order matters: what restricts a pod is in place before its link is, settings before a link comes up, and
//! the host's routes last, when the pod can answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::conf::{Bandwidth, Mode, NetConf, RangeSet};
use crate::effect::{Effect, Side, Sysctl, mac_text};
use crate::names;
use crate::netlink::{Master, NewVeth, RouteSpec, Shape};
use crate::nft::{elements_of, udp_ports};
use crate::spec::{Interface, Ip, Route, Success};
use crate::store::Record;

/// Next hop of every routed pod: it exists on no link, and pods are told its hardware address. One address for all,
/// so that pods need none of the node's.
pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// An address that a pod gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub ip: IpAddr,
    /// Prefix of its subnet.
    pub prefix_len: u8,
    /// The subnet's gateway, for bridge mode.
    pub gateway: IpAddr,
}

/// Everything that the wiring of one pod depends on.
#[derive(Clone, Debug)]
pub struct Wiring<'a> {
    /// The configuration.
    pub conf: &'a NetConf,
    /// What the store remembers.
    pub record: &'a Record,
    /// Addresses.
    pub addresses: &'a [Assigned],
    /// Routes in the pod.
    pub routes: &'a [Route],
    /// MTU.
    pub mtu: u32,
    /// Wanted hardware address of the pod.
    pub mac: Option<[u8; 6]>,
    /// Path of the pod's namespace, as the runtime calls it.
    pub sandbox: &'a str,
    /// Whether the kernel shows bridged packets to iptables (`bridge-nf-call-iptables`).
    pub bridge_netfilter: bool,
}

/// The steps, and the result once they are done.
pub fn wire(wiring: &Wiring<'_>) -> (Vec<Effect>, Success) {
    let key = &wiring.record.key;
    let (host_mac, own_mac) = names::macs(key);
    let ends = NewVeth {
        host: wiring.record.host_link.clone(),
        host_mac,
        peer: key.ifname.clone(),
        peer_mac: wiring.mac.unwrap_or(own_mac),
        mtu: wiring.mtu,
    };
    let mut effects = vec![];
    for v4 in [true, false] {
        if wiring.has(v4) {
            effects.push(Effect::Forward { v4 });
        }
    }
    effects.extend(protection(wiring.conf, wiring.record));
    match wiring.conf.mode {
        Mode::Routed => routed(wiring, &ends, &mut effects),
        Mode::Bridge => bridged(wiring, &ends, &mut effects),
    }
    effects.extend(shaping(wiring));
    effects.extend(takeover(wiring.record));
    (effects, wiring.result(&ends))
}

/// What the table must know of a pod.
pub(crate) fn protection(conf: &NetConf, record: &Record) -> Option<Effect> {
    let elements = elements_of(record);
    (!elements.is_empty()).then(|| Effect::Elements { elements, excluded: excluded(conf) })
}

/// Last, when the pod can answer: what a client sends from now on finds it.
pub(crate) fn takeover(record: &Record) -> Option<Effect> {
    let ports = udp_ports(record);
    (!ports.is_empty()).then_some(Effect::ForgetFlows(ports))
}

/// Pods of this node are reached directly whatever is configured.
pub(crate) fn excluded(conf: &NetConf) -> Vec<IpNet> {
    let own = conf.range_sets().iter().flat_map(RangeSet::ranges).map(|range| range.subnet);
    let configured = conf.masquerade.iter().flat_map(|masquerade| masquerade.exclude.iter().copied());
    let mut all: Vec<IpNet> = own.chain(configured).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Every packet of a pod is routed by the node: no shared segment, no ARP, nothing that depends on br_netfilter.
fn routed(wiring: &Wiring<'_>, ends: &NewVeth, effects: &mut Vec<Effect>) {
    let NewVeth { host, host_mac, peer, peer_mac, mtu: _ } = ends;
    effects.push(Effect::Veth(ends.clone()));
    effects.push(Effect::Sysctls(Side::Host, wiring.host_settings(host)));
    effects.extend(wiring.pod_settings(peer));
    let alias = Some(names::alias(&wiring.record.key));
    effects.push(Effect::Up { side: Side::Host, link: host.clone(), alias, master: None });
    effects.extend(pod_up(peer));
    for v4 in wiring.families() {
        let gateway = if v4 { IpAddr::V4(GATEWAY4) } else { IpAddr::V6(GATEWAY6) };
        for address in wiring.of_family(v4) {
            effects.push(Effect::Address(Side::Pod, peer.clone(), IpNet::from(address.ip)));
        }
        effects.push(Effect::Neighbour(Side::Pod, peer.clone(), gateway, *host_mac));
        if v4 {
            let on_link = RouteSpec::on_link(IpNet::from(gateway));
            effects.push(Effect::Route(Side::Pod, peer.clone(), on_link));
        }
        effects.extend(wiring.pod_routes(peer, v4, |_| gateway));
        if !v4 {
            let net = ipnet::Ipv6Net::new_assert(GATEWAY6, 64);
            effects.push(Effect::Address(Side::Host, host.clone(), IpNet::V6(net)));
        }
        for address in wiring.of_family(v4) {
            effects.push(Effect::Neighbour(Side::Host, host.clone(), address.ip, *peer_mac));
            effects.push(Effect::Route(
                Side::Host,
                host.clone(),
                RouteSpec::on_link(IpNet::from(address.ip)),
            ));
        }
    }
}

/// Pods are ports of a bridge. Where the kernel shows bridged packets to iptables, a plain bridge does; where it does
/// not, a reply from a pod to its neighbour would pass the bridge without having its address translated back, so
/// ports are isolated and pods send everything to the gateway.
fn bridged(wiring: &Wiring<'_>, ends: &NewVeth, effects: &mut Vec<Effect>) {
    let NewVeth { host, host_mac: _, peer, peer_mac: _, mtu } = ends;
    let bridge = &wiring.conf.bridge;
    let isolated = !wiring.bridge_netfilter;
    let mac = names::bridge_mac(bridge);
    effects.push(Effect::Bridge { name: bridge.clone(), mac, mtu: *mtu });
    effects.push(Effect::Sysctls(Side::Host, wiring.bridge_settings(bridge)));
    effects.push(Effect::Up { side: Side::Host, link: bridge.clone(), alias: None, master: None });
    for address in wiring.addresses {
        let net = IpNet::new(address.gateway, address.prefix_len).unwrap_or_else(|_| address.gateway.into());
        effects.push(Effect::Address(Side::Host, bridge.clone(), net));
    }
    effects.push(Effect::Veth(ends.clone()));
    // A port has no business with IPv6 of its own.
    let quiet = Sysctl { path: format!("net/ipv6/conf/{host}/disable_ipv6"), value: "1", required: false };
    effects.push(Effect::Sysctls(Side::Host, vec![quiet]));
    effects.extend(wiring.pod_settings(peer));
    effects.push(Effect::Up {
        side: Side::Host,
        link: host.clone(),
        alias: Some(names::alias(&wiring.record.key)),
        master: Some(Master { bridge: bridge.clone(), isolated }),
    });
    effects.extend(pod_up(peer));
    for v4 in wiring.families() {
        for address in wiring.of_family(v4) {
            let own = if isolated {
                IpNet::from(address.ip)
            } else {
                IpNet::new(address.ip, address.prefix_len).unwrap_or_else(|_| address.ip.into())
            };
            effects.push(Effect::Address(Side::Pod, peer.clone(), own));
            if isolated {
                let on_link = RouteSpec::on_link(IpNet::from(address.gateway));
                effects.push(Effect::Route(Side::Pod, peer.clone(), on_link));
            }
        }
        let first = wiring.of_family(v4).next().map(|address| address.gateway);
        effects.extend(first.into_iter().flat_map(|gateway| wiring.pod_routes(peer, v4, move |_| gateway)));
    }
}

fn shaping(wiring: &Wiring<'_>) -> Vec<Effect> {
    let Some(Bandwidth { ingress_rate, ingress_burst, egress_rate, egress_burst }) =
        wiring.conf.runtime.bandwidth
    else {
        return Vec::new();
    };
    let (link, mtu) = (&wiring.record.host_link, wiring.mtu);
    let mut effects = Vec::new();
    if ingress_rate > 0 {
        let shape = Shape { rate: ingress_rate, burst: ingress_burst };
        effects.push(Effect::Shape { link: link.clone(), shape, mtu });
    }
    if let Some(through) = wiring.record.shaper.clone().filter(|_| egress_rate > 0) {
        let shape = Shape { rate: egress_rate, burst: egress_burst };
        effects.push(Effect::ShapeReceived { link: link.clone(), through, shape, mtu });
    }
    effects
}

/// Runtimes bring lo up in parallel, or leave it to us: both is harmless.
fn pod_up(link: &str) -> [Effect; 2] {
    ["lo", link].map(|link| Effect::Up { side: Side::Pod, link: link.to_owned(), alias: None, master: None })
}

impl Wiring<'_> {
    fn has(&self, v4: bool) -> bool {
        self.of_family(v4).next().is_some()
    }

    fn families(&self) -> impl Iterator<Item = bool> {
        [true, false].into_iter().filter(|v4| self.has(*v4))
    }

    fn of_family(&self, v4: bool) -> impl Iterator<Item = &Assigned> {
        self.addresses.iter().filter(move |address| address.ip.is_ipv4() == v4)
    }

    /// The node's end. It speaks no IPv6 of its own unless the pod has an address: every link with IPv6 costs the node
    /// multicast memberships and a timer.
    fn host_settings(&self, link: &str) -> Vec<Sysctl> {
        let v6 = self.has(false);
        let setting = |path: String, value, required| Sysctl { path, value, required };
        let of6 = |name: &str, value| setting(format!("net/ipv6/conf/{link}/{name}"), value, v6);
        let mut all = if v6 {
            vec![
                of6("disable_ipv6", "0"),
                of6("accept_dad", "0"),
                of6("accept_ra", "0"),
                of6("addr_gen_mode", "1"),
            ]
        } else {
            vec![of6("disable_ipv6", "1")]
        };
        // What comes from 127.0.0.1 may leave to a pod, and its reply come back, only for pods with host ports.
        if self.has(true) && self.record.ports.iter().any(|port| port.serves(true)) {
            all.push(setting(format!("net/ipv4/conf/{link}/route_localnet"), "1", true));
        }
        all
    }

    fn bridge_settings(&self, bridge: &str) -> Vec<Sysctl> {
        let v6 = self.has(false);
        let of4 = |name: &str, value| Sysctl {
            path: format!("net/ipv4/conf/{bridge}/{name}"),
            value,
            required: self.has(true),
        };
        let of6 = |name: &str, value| Sysctl {
            path: format!("net/ipv6/conf/{bridge}/{name}"),
            value,
            required: v6,
        };
        let mut all = vec![of4("send_redirects", "0"), of6("accept_dad", "0"), of6("accept_ra", "0")];
        if self.record.ports.iter().any(|port| port.serves(true)) {
            all.push(of4("route_localnet", "1"));
        }
        all
    }

    /// The pod's end. Some runtimes switch IPv6 off in every namespace, which is right only for pods without it.
    fn pod_settings(&self, link: &str) -> Option<Effect> {
        if !self.has(false) {
            return None;
        }
        let of6 = |link: &str, name: &str, value| Sysctl {
            path: format!("net/ipv6/conf/{link}/{name}"),
            value,
            required: true,
        };
        let all = vec![
            of6("lo", "disable_ipv6", "0"),
            of6(link, "disable_ipv6", "0"),
            of6(link, "accept_dad", "0"),
            of6(link, "accept_ra", "0"),
            of6(link, "accept_redirects", "0"),
        ];
        Some(Effect::Sysctls(Side::Pod, all))
    }

    fn pod_routes(&self, link: &str, v4: bool, gateway: impl Fn(&Route) -> IpAddr) -> Vec<Effect> {
        let of_family = self.routes.iter().filter(|route| route.dst.addr().is_ipv4() == v4);
        let spec = |route: &Route| {
            let Route { dst, gw, mtu, advmss, priority, table, scope } = route.clone();
            // A route with link scope has no next hop.
            let link_scope = scope == Some(253);
            let via = (!link_scope).then(|| gw.unwrap_or_else(|| gateway(route)));
            RouteSpec { dst, gateway: via, onlink: via.is_some(), mtu, advmss, priority, table, scope }
        };
        of_family.map(|route| Effect::Route(Side::Pod, link.to_owned(), spec(route))).collect()
    }

    fn result(&self, ends: &NewVeth) -> Success {
        let mtu = Some(ends.mtu);
        let link = |name: &str, mac: &[u8; 6], sandbox: &str| Interface {
            name: name.to_owned(),
            mac: mac_text(mac),
            mtu,
            sandbox: sandbox.to_owned(),
            ..Interface::default()
        };
        let mut interfaces = Vec::new();
        let bridge = self.conf.mode == Mode::Bridge;
        if bridge {
            interfaces.push(link(&self.conf.bridge, &names::bridge_mac(&self.conf.bridge), ""));
        }
        interfaces.push(link(&ends.host, &ends.host_mac, ""));
        interfaces.push(link(&ends.peer, &ends.peer_mac, self.sandbox));
        let pod = interfaces.len() - 1;
        let narrow = !bridge || !self.bridge_netfilter;
        let ip = |address: &Assigned| {
            let gateway = match (bridge, address.ip) {
                (true, _) => address.gateway,
                (false, IpAddr::V4(_)) => GATEWAY4.into(),
                (false, IpAddr::V6(_)) => GATEWAY6.into(),
            };
            let whole = IpNet::new(address.ip, address.prefix_len).unwrap_or_else(|_| address.ip.into());
            let own = if narrow { IpNet::from(address.ip) } else { whole };
            Ip { interface: Some(pod), address: own, gateway: Some(gateway) }
        };
        Success {
            ips: self.addresses.iter().map(ip).collect(),
            interfaces,
            routes: self.routes.to_vec(),
            dns: self.conf.dns.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::{Command, SpecVersion};
    use crate::store::{Key, Phase};

    fn plan(extra: &[(&str, Value)], ips: &[&str], bridge_netfilter: bool) -> String {
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "trysail-cni", "spoofProtection": false,
            "ipam": { "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }]] },
        });
        for (key, value) in extra {
            conf[*key] = value.clone();
        }
        let conf = NetConf::read(conf.to_string().as_bytes(), Command::Add).unwrap();
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let key = Key { network: "pods".into(), container_id: "c1".into(), ifname: "eth0".into() };
        let record = Record {
            phase: Phase::Intent,
            ips: ips.clone(),
            owns_ips: true,
            host_link: names::host_link(&key),
            netns: "/run/netns/p".into(),
            netns_inode: 1,
            pod: None,
            ports: conf.runtime.ports(),
            masquerade: conf.masquerade.is_some(),
            spoof_protection: conf.spoof_protection,
            shaper: Some(names::shaper(&key)),
            key,
        };
        let addresses: Vec<Assigned> = ips
            .iter()
            .map(|ip| {
                let range = conf.range_sets().iter().find_map(|set| set.range_of(*ip)).unwrap();
                Assigned { ip: *ip, prefix_len: range.prefix_len(), gateway: range.gateway() }
            })
            .collect();
        let wiring = Wiring {
            conf: &conf,
            record: &record,
            addresses: &addresses,
            routes: &conf.routes_for(&ips),
            mtu: 1450,
            mac: None,
            sandbox: "/run/netns/p",
            bridge_netfilter,
        };
        let (effects, success) = wire(&wiring);
        let result = success.to_json(SpecVersion::V1_1_0).to_string();
        effects.iter().map(ToString::to_string).chain([result]).collect::<Vec<_>>().join("\n")
    }

    /// The default: IPv4, nothing special.
    #[test]
    fn a_routed_pod() {
        insta::assert_snapshot!(plan(&[], &["10.244.1.2"], true), @r#"
        host: forward IPv4
        veth tsvhgtrtectyzic 0a:39:a7:19:90:52 - pod eth0 0a:39:a7:19:90:53 mtu 1450
        host: net/ipv6/conf/tsvhgtrtectyzic/disable_ipv6=1
        host: up tsvhgtrtectyzic alias "tsv pods/c1/eth0"
        pod: up lo
        pod: up eth0
        pod: address 10.244.1.2/32 on eth0
        pod: neighbour 169.254.1.1 0a:39:a7:19:90:52 on eth0
        pod: route 169.254.1.1/32 on eth0
        pod: route 0.0.0.0/0 on eth0 via 169.254.1.1 onlink
        host: neighbour 10.244.1.2 0a:39:a7:19:90:53 on tsvhgtrtectyzic
        host: route 10.244.1.2/32 on tsvhgtrtectyzic
        {"cniVersion":"1.1.0","interfaces":[{"mac":"0a:39:a7:19:90:52","mtu":1450,"name":"tsvhgtrtectyzic"},{"mac":"0a:39:a7:19:90:53","mtu":1450,"name":"eth0","sandbox":"/run/netns/p"}],"ips":[{"address":"10.244.1.2/32","gateway":"169.254.1.1","interface":1}],"routes":[{"dst":"0.0.0.0/0"}]}
        "#);
    }

    /// Both families, everything asked for.
    #[test]
    fn a_routed_pod_with_everything() {
        let extra = [
            ("masquerade", json!({ "exclude": ["10.244.0.0/16", "fd00::/16"] })),
            ("spoofProtection", json!(true)),
            (
                "runtimeConfig",
                json!({
                    "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }],
                    "bandwidth": { "ingressRate": 1_000_000, "ingressBurst": 8_000_000,
                                   "egressRate": 2_000_000, "egressBurst": 8_000_000 },
                }),
            ),
        ];
        insta::assert_snapshot!(plan(&extra, &["10.244.1.2", "fd00:1::2"], true), @r#"
        host: forward IPv4
        host: forward IPv6
        host: nft add [Source("tsvhgtrtectyzic", 10.244.1.2), Source("tsvhgtrtectyzic", fd00:1::2), Pinned("tsvhgtrtectyzic"), Masqueraded(10.244.1.2), Masqueraded(fd00:1::2), Hairpin(10.244.1.2), HostPort { at: None, protocol: Tcp, port: 8080, to: 10.244.1.2, to_port: 80 }, Hairpin(fd00:1::2), HostPort { at: None, protocol: Tcp, port: 8080, to: fd00:1::2, to_port: 80 }] excluded 10.244.0.0/16 10.244.1.0/24 fd00::/16 fd00:1::/64
        veth tsvhgtrtectyzic 0a:39:a7:19:90:52 - pod eth0 0a:39:a7:19:90:53 mtu 1450
        host: net/ipv6/conf/tsvhgtrtectyzic/disable_ipv6=0 net/ipv6/conf/tsvhgtrtectyzic/accept_dad=0 net/ipv6/conf/tsvhgtrtectyzic/accept_ra=0 net/ipv6/conf/tsvhgtrtectyzic/addr_gen_mode=1 net/ipv4/conf/tsvhgtrtectyzic/route_localnet=1
        pod: net/ipv6/conf/lo/disable_ipv6=0 net/ipv6/conf/eth0/disable_ipv6=0 net/ipv6/conf/eth0/accept_dad=0 net/ipv6/conf/eth0/accept_ra=0 net/ipv6/conf/eth0/accept_redirects=0
        host: up tsvhgtrtectyzic alias "tsv pods/c1/eth0"
        pod: up lo
        pod: up eth0
        pod: address 10.244.1.2/32 on eth0
        pod: neighbour 169.254.1.1 0a:39:a7:19:90:52 on eth0
        pod: route 169.254.1.1/32 on eth0
        pod: route 0.0.0.0/0 on eth0 via 169.254.1.1 onlink
        host: neighbour 10.244.1.2 0a:39:a7:19:90:53 on tsvhgtrtectyzic
        host: route 10.244.1.2/32 on tsvhgtrtectyzic
        pod: address fd00:1::2/128 on eth0
        pod: neighbour fe80::1 0a:39:a7:19:90:52 on eth0
        pod: route ::/0 on eth0 via fe80::1 onlink
        host: address fe80::1/64 on tsvhgtrtectyzic
        host: neighbour fd00:1::2 0a:39:a7:19:90:53 on tsvhgtrtectyzic
        host: route fd00:1::2/128 on tsvhgtrtectyzic
        host: shape tsvhgtrtectyzic 1000000 bit/s
        host: shape received tsvhgtrtectyzic through tsihgtrtectyzic 2000000 bit/s
        {"cniVersion":"1.1.0","interfaces":[{"mac":"0a:39:a7:19:90:52","mtu":1450,"name":"tsvhgtrtectyzic"},{"mac":"0a:39:a7:19:90:53","mtu":1450,"name":"eth0","sandbox":"/run/netns/p"}],"ips":[{"address":"10.244.1.2/32","gateway":"169.254.1.1","interface":1},{"address":"fd00:1::2/128","gateway":"fe80::1","interface":1}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}
        "#);
    }

    /// Plain where iptables sees bridged packets, isolated where it does not.
    #[test]
    fn a_bridged_pod_follows_the_sysctl() {
        let mode = [("mode", json!("bridge"))];
        insta::assert_snapshot!(plan(&mode, &["10.244.1.2"], true), @r#"
        host: forward IPv4
        host: bridge trysail0 0a:71:92:17:bd:c3 mtu 1450
        host: net/ipv4/conf/trysail0/send_redirects=0 net/ipv6/conf/trysail0/accept_dad=0 net/ipv6/conf/trysail0/accept_ra=0
        host: up trysail0
        host: address 10.244.1.1/24 on trysail0
        veth tsvhgtrtectyzic 0a:39:a7:19:90:52 - pod eth0 0a:39:a7:19:90:53 mtu 1450
        host: net/ipv6/conf/tsvhgtrtectyzic/disable_ipv6=1
        host: up tsvhgtrtectyzic alias "tsv pods/c1/eth0" port of trysail0 isolated=false
        pod: up lo
        pod: up eth0
        pod: address 10.244.1.2/24 on eth0
        pod: route 0.0.0.0/0 on eth0 via 10.244.1.1 onlink
        {"cniVersion":"1.1.0","interfaces":[{"mac":"0a:71:92:17:bd:c3","mtu":1450,"name":"trysail0"},{"mac":"0a:39:a7:19:90:52","mtu":1450,"name":"tsvhgtrtectyzic"},{"mac":"0a:39:a7:19:90:53","mtu":1450,"name":"eth0","sandbox":"/run/netns/p"}],"ips":[{"address":"10.244.1.2/24","gateway":"10.244.1.1","interface":2}],"routes":[{"dst":"0.0.0.0/0"}]}
        "#);
        insta::assert_snapshot!(plan(&mode, &["10.244.1.2", "fd00:1::2"], false), @r#"
        host: forward IPv4
        host: forward IPv6
        host: bridge trysail0 0a:71:92:17:bd:c3 mtu 1450
        host: net/ipv4/conf/trysail0/send_redirects=0 net/ipv6/conf/trysail0/accept_dad=0 net/ipv6/conf/trysail0/accept_ra=0
        host: up trysail0
        host: address 10.244.1.1/24 on trysail0
        host: address fd00:1::1/64 on trysail0
        veth tsvhgtrtectyzic 0a:39:a7:19:90:52 - pod eth0 0a:39:a7:19:90:53 mtu 1450
        host: net/ipv6/conf/tsvhgtrtectyzic/disable_ipv6=1
        pod: net/ipv6/conf/lo/disable_ipv6=0 net/ipv6/conf/eth0/disable_ipv6=0 net/ipv6/conf/eth0/accept_dad=0 net/ipv6/conf/eth0/accept_ra=0 net/ipv6/conf/eth0/accept_redirects=0
        host: up tsvhgtrtectyzic alias "tsv pods/c1/eth0" port of trysail0 isolated=true
        pod: up lo
        pod: up eth0
        pod: address 10.244.1.2/32 on eth0
        pod: route 10.244.1.1/32 on eth0
        pod: route 0.0.0.0/0 on eth0 via 10.244.1.1 onlink
        pod: address fd00:1::2/128 on eth0
        pod: route fd00:1::1/128 on eth0
        pod: route ::/0 on eth0 via fd00:1::1 onlink
        {"cniVersion":"1.1.0","interfaces":[{"mac":"0a:71:92:17:bd:c3","mtu":1450,"name":"trysail0"},{"mac":"0a:39:a7:19:90:52","mtu":1450,"name":"tsvhgtrtectyzic"},{"mac":"0a:39:a7:19:90:53","mtu":1450,"name":"eth0","sandbox":"/run/netns/p"}],"ips":[{"address":"10.244.1.2/32","gateway":"10.244.1.1","interface":2},{"address":"fd00:1::2/128","gateway":"fd00:1::1","interface":2}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}
        "#);
    }

    /// Whatever is restricted, is before the pod's link exists; links come up after their settings.
    #[test]
    fn restrictions_come_first() {
        for mode in ["routed", "bridge"] {
            let extra = [
                ("mode", json!(mode)),
                ("spoofProtection", json!(mode == "routed")),
                ("masquerade", json!({})),
            ];
            let text = plan(&extra, &["10.244.1.2", "fd00:1::2"], true);
            let at = |what: &str| text.lines().position(|line| line.contains(what)).expect(what);
            assert!(at("nft add") < at("veth tsv"), "{mode}");
            assert!(at("accept_dad") < at("pod: up eth0"), "{mode}");
            assert!(at("disable_ipv6") < at("host: up tsv"), "{mode}");
        }
    }
}
