//! The wires of a cluster and its reference pod network.
//!
//! One switch (a bridge in a network namespace of its own) joins the nodes and, by one veth, the host: that link is
//! the only thing of ours in the host's own network. The switch routes nowhere else and says so, hence a packet
//! for the outside fails at once and never leaves the machine.
//!
//! Decided here: addresses, commands, CNI configuration, rules: text from data. Run here: the few commands that
//! touch the host or a live node.

use std::fmt::Write;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::{ClusterConfig, Cni, NodeName, POD_CIDR, address};
use crate::process::{command, run, run_with_input};

/// Candidate subnets are 198.18.N.0/24: the range reserved for tests of network devices, routed nowhere.
const SUBNETS: [u8; 2] = [198, 18];
const SWITCH_HOST: u8 = 1;
const HOST_HOST: u8 = 2;
/// The switch's end of the host's veth.
pub(crate) const HOST_PORT: &str = "host";

/// Name of the host's end of its veth. Link names hold 15 bytes, cluster names may be longer: so a digest.
pub fn host_link(cluster: &str) -> String {
    format!("trysail{}", &hex::encode(Sha256::digest(cluster))[..8])
}

/// The first candidate that neither the host's routes nor other clusters use.
pub(crate) fn choose_subnet(host_routes: &[(Ipv4Addr, u8)], in_use: &[Ipv4Addr]) -> Result<Ipv4Addr> {
    let [a, b] = SUBNETS;
    let candidates = (0..=255).map(|n| Ipv4Addr::new(a, b, n, 0));
    let free = |subnet: &Ipv4Addr| {
        !in_use.contains(subnet) && !host_routes.iter().any(|route| overlaps(*route, (*subnet, 24)))
    };
    let mut free = candidates.filter(free);
    free.next().with_context(|| format!("the host has routes to all of {a}.{b}.0.0/16: no subnet is free"))
}

fn overlaps(one: (Ipv4Addr, u8), other: (Ipv4Addr, u8)) -> bool {
    let bits = one.1.min(other.1);
    // A default route covers everything and claims nothing.
    bits > 0 && (u32::from(one.0) ^ u32::from(other.0)) >> (32 - u32::from(bits)) == 0
}

/// What the host routes at present.
pub(crate) fn host_routes() -> Result<Vec<(Ipv4Addr, u8)>> {
    let text = run(command("ip").args(["-4", "-j", "route", "show", "table", "all"]))?;
    let routes: Vec<Value> = serde_json::from_str(&text).context("cannot read the host's routes")?;
    Ok(routes.iter().filter_map(|route| parse_prefix(route["dst"].as_str()?)).collect())
}

fn parse_prefix(text: &str) -> Option<(Ipv4Addr, u8)> {
    match text.split_once('/') {
        Some((address, bits)) => Some((address.parse().ok()?, bits.parse().ok()?)),
        None => Some((text.parse().ok()?, 32)),
    }
}

/// Makes a bridge of the (new, current) network namespace.
pub(crate) fn switch_batch(subnet: Ipv4Addr) -> String {
    let gateway = address(subnet, SWITCH_HOST);
    format!(
        "link set lo up\n\
         link add br0 type bridge\n\
         link set br0 up\n\
         addr add {gateway}/24 dev br0\n"
    )
}

/// Run on the host: its veth into the switch.
pub(crate) fn host_batch(cluster: &str, subnet: Ipv4Addr, switch: i32) -> String {
    let (link, own) = (host_link(cluster), address(subnet, HOST_HOST));
    format!(
        "link add {link} type veth peer name {HOST_PORT} netns {switch}\n\
         link set dev {link} addrgenmode none\n\
         addr add {own}/24 dev {link}\n\
         link set {link} up\n"
    )
}

/// Run in a node's namespace: its veth into the switch.
pub(crate) fn node_batch(node: &NodeName, subnet: Ipv4Addr, switch: i32) -> String {
    let (own, gateway) = (address(subnet, node.host), address(subnet, SWITCH_HOST));
    format!(
        "link set lo up\n\
         link add eth0 type veth peer name {name} netns {switch}\n\
         addr add {own}/24 dev eth0\n\
         link set eth0 up\n\
         route add default via {gateway}\n",
        name = node.name,
    )
}

/// Run in the switch: plugs in one end.
pub(crate) fn plug_batch(port: &str) -> String {
    format!("link set {port} master br0 up\n")
}

/// One rule per node: what leaves the cluster carries the node's address, because nobody outside can answer a pod.
/// Traffic between pods, and from pods to nodes, keeps its source.
pub(crate) fn masquerade(config: &ClusterConfig, subnet: Ipv4Addr) -> String {
    let nodes: Vec<String> =
        config.nodes().iter().map(|node| address(subnet, node.host).to_string()).collect();
    format!(
        "table ip trysail {{\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat; policy accept;\n\
         \x20   ip saddr {POD_CIDR} ip daddr != {{ {POD_CIDR}, {} }} masquerade\n\
         \x20 }}\n\
         }}\n",
        nodes.join(", ")
    )
}

/// nftables rules of a node. Our plugin masquerades by itself.
pub(crate) fn node_rules(config: &ClusterConfig, subnet: Ipv4Addr) -> String {
    match config.cni {
        Cni::Reference | Cni::None => masquerade(config, subnet),
        Cni::Trysail => String::new(),
    }
}

/// Kernel settings of a node's own network namespace.
pub(crate) fn node_sysctls() -> Vec<(String, String)> {
    [
        ("net.ipv4.ip_forward", "1"),
        // Replies of a pod may come back through another link than its request: kube-proxy rewrites both.
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// The reference chain for one node. Masquerading is left to our own rule: the bridge plugin's would also hide the
/// source of traffic between pods of different nodes.
pub(crate) fn conflist(pod_cidr: &str) -> String {
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "reference",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "mtu": 1500,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": pod_cidr }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    format!("{list:#}\n")
}

/// Our plugin for one node. containerd 1.6 refuses to load a list whose `cniVersion` is 1.1.0, newer ones take the
/// highest of `cniVersions`.
pub(crate) fn own_conflist(pod_cidr: &str, subnet: Ipv4Addr) -> String {
    let list = json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "trysail",
        "plugins": [{
            "type": "trysail-cni",
            "mtu": 1500,
            "ipam": { "ranges": [[{ "subnet": pod_cidr }]] },
            // Pods of other nodes, and the nodes, see a pod's own address.
            "masquerade": { "exclude": [POD_CIDR, format!("{subnet}/24")] },
            "capabilities": { "portMappings": true, "bandwidth": true },
        }],
    });
    format!("{list:#}\n")
}

/// A node whose pod addresses are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeRoute {
    pub(crate) node: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) pod_cidr: String,
}

/// Routes of `node` to the pods of all others.
pub(crate) fn routes_batch(node: &str, all: &[NodeRoute]) -> String {
    let mut batch = String::new();
    for other in all.iter().filter(|other| other.node != node) {
        let _ = writeln!(batch, "route replace {} via {}", other.pod_cidr, other.address);
    }
    batch
}

/// Runs `ip -batch` in the network namespace of a process, or here.
pub(crate) fn ip_batch(namespace_of: Option<i32>, batch: &str) -> Result<()> {
    let mut ip = in_namespace(namespace_of, "ip");
    run_with_input(ip.args(["-batch", "-"]), batch).map(drop)
}

/// Loads nftables rules in the network namespace of a process, or here.
pub(crate) fn nft(namespace_of: Option<i32>, rules: &str) -> Result<()> {
    let mut nft = in_namespace(namespace_of, "nft");
    run_with_input(nft.args(["-f", "-"]), rules).map(drop)
}

fn in_namespace(namespace_of: Option<i32>, program: &str) -> std::process::Command {
    let Some(pid) = namespace_of else { return command(program) };
    let mut nsenter = command("nsenter");
    nsenter.arg(format!("--net=/proc/{pid}/ns/net")).arg(program);
    nsenter
}

/// Removes the host's end of the veth; it may have gone with the switch already.
pub(crate) fn remove_host_link(cluster: &str) -> Result<()> {
    let link = host_link(cluster);
    let path = std::path::Path::new("/sys/class/net").join(&link);
    if !path.exists() {
        return Ok(());
    }
    let removed = run(command("ip").args(["link", "delete", &link]));
    if path.exists() {
        removed?;
        bail!("the link {link} is still there after `ip link delete`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBNET: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 0);

    /// A subnet that the host already reaches elsewhere would cut that off.
    #[test]
    fn the_subnet_avoids_routes_and_other_clusters() {
        let route = |text| parse_prefix(text).unwrap();
        let routes = [route("0.0.0.0/0"), route("198.18.0.0/23"), route("198.18.2.9")];
        assert_eq!(choose_subnet(&routes, &[]).unwrap(), Ipv4Addr::new(198, 18, 3, 0));
        let used = [Ipv4Addr::new(198, 18, 3, 0)];
        assert_eq!(choose_subnet(&routes, &used).unwrap(), Ipv4Addr::new(198, 18, 4, 0));
        let error = choose_subnet(&[route("198.0.0.0/8")], &[]).unwrap_err();
        assert!(error.to_string().contains("198.18.0.0/16"), "{error}");
    }

    #[test]
    fn link_names_fit_the_kernel_whatever_the_cluster_is_called() {
        assert!(host_link("a-name-that-has-thirty-letters").len() <= 15);
        assert_ne!(host_link("one"), host_link("two"));
    }

    #[test]
    fn only_off_cluster_traffic_is_masqueraded() {
        insta::assert_snapshot!(masquerade(&ClusterConfig::default(), SUBNET), @r"
        table ip trysail {
          chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 198.18.7.10, 198.18.7.11, 198.18.7.12 } masquerade
          }
        }
        ");
    }

    #[test]
    fn pod_addresses_follow_the_nodes_own_range() {
        insta::assert_snapshot!(conflist("10.244.9.0/24"));
        insta::assert_snapshot!(own_conflist("10.244.9.0/24", SUBNET), @r#"
        {
          "cniVersion": "1.0.0",
          "cniVersions": [
            "1.0.0",
            "1.1.0"
          ],
          "name": "trysail",
          "plugins": [
            {
              "capabilities": {
                "bandwidth": true,
                "portMappings": true
              },
              "ipam": {
                "ranges": [
                  [
                    {
                      "subnet": "10.244.9.0/24"
                    }
                  ]
                ]
              },
              "masquerade": {
                "exclude": [
                  "10.244.0.0/16",
                  "198.18.7.0/24"
                ]
              },
              "mtu": 1500,
              "type": "trysail-cni"
            }
          ]
        }
        "#);
    }

    #[test]
    fn every_node_reaches_the_pods_of_all_others() {
        let at = |node: &str, host, pod_cidr: &str| NodeRoute {
            node: node.into(),
            address: address(SUBNET, host),
            pod_cidr: pod_cidr.into(),
        };
        let all =
            [at("cp", 10, "10.244.2.0/24"), at("w1", 11, "10.244.0.0/24"), at("w2", 12, "10.244.1.0/24")];
        insta::assert_snapshot!(routes_batch("w1", &all), @r"
        route replace 10.244.2.0/24 via 198.18.7.10
        route replace 10.244.1.0/24 via 198.18.7.12
        ");
    }
}
