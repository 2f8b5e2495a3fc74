//! The door to the kernel: carries out effects, and removes what a record says may exist.
//!
//! Nothing is decided here but how to deal with what is there already. Removal goes on after errors and lists them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use ipnet::IpNet;
use nix::errno::Errno;

use crate::effect::{Effect, Side, Sysctl};
use crate::names;
use crate::netlink::{Link, Netns, NewVeth, RouteSpec, Rtnl, Stale, forget_flows};
use crate::nft::{Element, Nft, all_elements_of, elements_of, udp_ports};
use crate::spec::{CniError, Code, Result};
use crate::store::{Key, Record, Store};

/// When the node has no default route to take an MTU from: that of Ethernet.
const FALLBACK_MTU: u32 = 1500;

/// The node's side of everything.
#[derive(Debug)]
pub struct Node {
    rtnl: Rtnl,
    nft: Option<Nft>,
    store: Store,
}

/// The pod's side.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace.
    pub netns: Netns,
    /// A socket in it.
    pub rtnl: Rtnl,
}

impl Pod {
    /// Enters by path; a path without a namespace is an error here.
    pub fn open(path: &Path) -> Result<Self> {
        let netns = Netns::open(path)?.ok_or_else(|| {
            CniError::new(Code::InvalidNetns, format!("CNI_NETNS {} does not exist", path.display()))
                .details("the container runtime makes it before it calls the plugin")
        })?;
        let rtnl = netns.rtnl()?;
        Ok(Self { netns, rtnl })
    }
}

impl Node {
    /// The node, seen from the calling thread's namespace.
    pub fn open(store: &Store) -> Result<Self> {
        Ok(Self { rtnl: Rtnl::open()?, nft: None, store: store.clone() })
    }

    /// The node's links, addresses and routes.
    pub fn rtnl(&mut self) -> &mut Rtnl {
        &mut self.rtnl
    }

    /// The node's nftables.
    pub fn nft(&mut self) -> Result<&mut Nft> {
        if self.nft.is_none() {
            self.nft = Some(Nft::open()?);
        }
        self.nft.as_mut().ok_or_else(|| CniError::new(Code::Io, "no connection to nf_tables"))
    }

    /// MTU of the device that the default route leads through.
    pub fn default_mtu(&mut self) -> Result<u32> {
        Ok(self.rtnl.default_link()?.map_or(FALLBACK_MTU, |link| link.mtu))
    }

    /// Carries out one step.
    pub fn apply(&mut self, pod: &mut Pod, effect: &Effect) -> Result<()> {
        match effect {
            Effect::Forward { v4 } => forward(*v4),
            Effect::Elements { elements, excluded } => self.add_elements(elements, excluded),
            Effect::Bridge { name, mac, mtu } => self.bridge(name, *mac, *mtu),
            Effect::Veth(veth) => self.veth(pod, veth),
            Effect::Sysctls(Side::Host, all) => all.iter().try_for_each(write_sysctl),
            Effect::Sysctls(Side::Pod, all) => pod.netns.run(|| all.iter().try_for_each(write_sysctl))?,
            Effect::Up { side, link, alias, master } => {
                Ok(self.side(pod, *side).set_up(link, alias.as_deref(), master.as_ref())?)
            }
            Effect::Address(side, link, address) => Ok(self.side(pod, *side).add_address(link, *address)?),
            Effect::Route(side, link, route) => add_route(self.side(pod, *side), link, route),
            Effect::Neighbour(side, link, ip, mac) => {
                Ok(self.side(pod, *side).add_neighbour(link, *ip, *mac)?)
            }
            Effect::ForgetFlows(ports) => Ok(forget_flows(ports, Stale::Elsewhere).map(drop)?),
            Effect::Shape { link, shape, mtu } => Ok(self.rtnl.shape(link, *shape, *mtu)?),
            Effect::ShapeReceived { link, through, shape, mtu } => {
                self.rtnl.create_ifb(through, *mtu)?;
                self.rtnl.set_up(through, None, None)?;
                self.rtnl.shape(through, *shape, *mtu)?;
                Ok(self.rtnl.redirect(link, through)?)
            }
        }
    }

    fn side<'a>(&'a mut self, pod: &'a mut Pod, side: Side) -> &'a mut Rtnl {
        match side {
            Side::Host => &mut self.rtnl,
            Side::Pod => &mut pod.rtnl,
        }
    }

    fn veth(&mut self, pod: &Pod, veth: &NewVeth) -> Result<()> {
        let created = self.rtnl.create_veth(veth, &pod.netns);
        match created {
            Err(error) if error.errno == Errno::EEXIST => Err(CniError::new(
                Code::ForeignObject,
                format!("{error}: the node has a link {} or the container a link {}", veth.host, veth.peer),
            )
            .details("remove the one that is not the plugin's")),
            other => Ok(other?),
        }
    }

    /// One bridge for all pods: whoever comes first makes it.
    fn bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> Result<()> {
        match self.rtnl.create_bridge(name, mac, mtu) {
            Err(error) if error.errno == Errno::EEXIST => {}
            other => return Ok(other?),
        }
        let found = self.rtnl.link(name)?;
        let ours = |link: &Link| link.kind.as_deref() == Some("bridge") && link.mac == mac;
        if found.as_ref().is_some_and(ours) {
            return Ok(());
        }
        let kind = found.and_then(|link| link.kind).unwrap_or_else(|| "link".to_owned());
        Err(CniError::new(
            Code::ForeignObject,
            format!("the node has a {kind} {name} that is not the plugin's"),
        )
        .details("remove it, or choose another name with `bridge` in the network configuration"))
    }

    /// Adds elements to the table, which is made again from the store when it is not there or not as it should be.
    fn add_elements(&mut self, elements: &[Element], excluded: &[IpNet]) -> Result<()> {
        let nft = self.nft()?;
        let intact = match nft.excludes(excluded)? {
            Some(true) => nft.add(elements),
            Some(false) => nft.replace_excluded(excluded).and_then(|()| nft.add(elements)),
            None => Ok(false),
        };
        match intact {
            Ok(true) => Ok(()),
            // A leftover of another pod under our key: the store knows better.
            Err(error) if !matches!(error.errno, Errno::EEXIST | Errno::EBUSY | Errno::ENOENT) => {
                Err(error.into())
            }
            Ok(false) | Err(_) => self.rebuild_table(excluded),
        }
    }

    /// Under the store's lock: a pod that comes or goes meanwhile does so after.
    pub fn rebuild_table(&mut self, excluded: &[IpNet]) -> Result<()> {
        let store = self.store.clone();
        let locked = store.lock()?;
        let all: Vec<Element> = locked.state().records().flat_map(elements_of).collect();
        Ok(self.nft()?.rebuild(&all, excluded)?)
    }

    /// Removes everything that the record says may exist. What is gone already is no error.
    pub fn remove(&mut self, record: &Record) -> Vec<CniError> {
        let mut errors = Vec::new();
        let elements = all_elements_of(record);
        if !elements.is_empty() {
            errors.extend(self.nft().and_then(|nft| Ok(nft.remove(&elements)?)).err());
        }
        let ports = udp_ports(record);
        if !ports.is_empty() {
            errors.extend(forget_flows(&ports, Stale::ToPod).err().map(CniError::from));
        }
        if let Some(shaper) = &record.shaper {
            errors.extend(self.remove_link(shaper, None).err());
        }
        if !record.host_link.is_empty() {
            errors.extend(self.remove_link(&record.host_link, Some(&record.key)).err());
            errors.extend(remove_pod_link(record).err());
        }
        errors
    }

    /// Removes a link by name, unless its alias says that it is another attachment's.
    pub fn remove_link(&mut self, name: &str, key: Option<&Key>) -> Result<()> {
        let Some(link) = self.rtnl.link(name)? else { return Ok(()) };
        let named = link.alias.as_deref().and_then(names::parse_alias);
        if let (Some(named), Some(key)) = (&named, key)
            && named != key
        {
            return Ok(());
        }
        Ok(self.rtnl.delete_link(&link)?)
    }
}

/// The node's end takes the pod's with it. Should somebody have renamed it, the pod's end still leads to both; it is
/// looked for only in the very namespace that ADD wired.
fn remove_pod_link(record: &Record) -> Result<()> {
    // Whatever the path names by now, it is not ours to judge.
    let found = Netns::open(&record.netns).ok().flatten();
    let Some(netns) = found.filter(|netns| netns.inode() == record.netns_inode) else { return Ok(()) };
    let mut rtnl = netns.rtnl()?;
    match rtnl.link(&record.key.ifname)? {
        Some(link) if link.kind.as_deref() == Some("veth") => Ok(rtnl.delete_link(&link)?),
        _ => Ok(()),
    }
}

/// A route of the node to a pod's address that exists already means that somebody else has the address.
fn add_route(rtnl: &mut Rtnl, link: &str, route: &RouteSpec) -> Result<()> {
    match rtnl.add_route(link, route) {
        Err(error) if error.errno == Errno::EEXIST => Err(CniError::new(
            Code::TryAgainLater,
            format!("{error}: the address is in use outside of the store"),
        )
        .details("the next attempt takes another address; `ip route get` shows who has this one")),
        other => Ok(other?),
    }
}

fn write_sysctl(sysctl: &Sysctl) -> Result<()> {
    let path = Path::new("/proc/sys").join(&sysctl.path);
    match fs::write(&path, sysctl.value) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && !sysctl.required => Ok(()),
        Err(error) => {
            let msg = format!("failed to set {} to {}: {error}", path.display(), sysctl.value);
            let code =
                if error.kind() == ErrorKind::PermissionDenied { Code::NotPermitted } else { Code::Kernel };
            Err(CniError::new(code, msg)
                .details("the plugin needs a writable /proc/sys, and IPv6 for IPv6 pods"))
        }
    }
}

/// A link of ours that takes no part in IPv6's self-configuration.
pub(crate) fn quiet_link(link: &str) -> Result<()> {
    for (name, value) in
        [("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0"), ("addr_gen_mode", "1")]
    {
        write_sysctl(&Sysctl { path: format!("net/ipv6/conf/{link}/{name}"), value, required: false })?;
    }
    Ok(())
}

fn read_sysctl(path: &str) -> Option<String> {
    Some(fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().to_owned())
}

/// Whether the kernel shows bridged packets to iptables. Without the module it does not.
pub fn bridge_netfilter() -> bool {
    read_sysctl("net/bridge/bridge-nf-call-iptables").as_deref() == Some("1")
}

/// Forwarding is on already on nearly every node.
fn forward(v4: bool) -> Result<()> {
    let path = if v4 { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" };
    if read_sysctl(path).as_deref() == Some("1") {
        return Ok(());
    }
    if !v4 {
        keep_router_advertisements()?;
    }
    write_sysctl(&Sysctl { path: path.to_owned(), value: "1", required: true })
}

/// A node that forwards ignores router advertisements unless told otherwise, and would lose its own address and
/// default route when the ones it has expire.
fn keep_router_advertisements() -> Result<()> {
    let Ok(links) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return Ok(()) };
    for link in links.flatten() {
        let name = link.file_name().to_string_lossy().into_owned();
        let path = format!("net/ipv6/conf/{name}/accept_ra");
        if !matches!(name.as_str(), "all" | "lo") && read_sysctl(&path).as_deref() == Some("1") {
            write_sysctl(&Sysctl { path, value: "2", required: false })?;
        }
    }
    Ok(())
}
