//! The table: its sets, chains and rules. Constant; only elements come and go.

use super::expression::{Expression, Field, Meta, Reg, family};
use crate::names::LINK_PREFIX;

/// Its name, in family `inet`.
pub const TABLE: &str = "trysail-cni";

/// Numbers of nft's data types: what `nft list` shows keys as.
const IPV4: u32 = 7;
const IPV6: u32 = 8;
const PROTO: u32 = 12;
const SERVICE: u32 = 13;
const IFNAME: u32 = 41;
/// nft's shift for each further part of a key.
const TYPE_BITS: u32 = 6;

const RTN_LOCAL: u32 = 2;

/// A set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) name: &'static str,
    key: &'static [u32],
    /// None: a set.
    data: Option<&'static [u32]>,
    /// Whether elements are ranges.
    pub(super) interval: bool,
}

impl Set {
    const fn new(name: &'static str, key: &'static [u32]) -> Self {
        Self { name, key, data: None, interval: false }
    }

    const fn map(name: &'static str, key: &'static [u32], data: &'static [u32]) -> Self {
        Self { name, key, data: Some(data), interval: false }
    }

    const fn ranges(name: &'static str, key: &'static [u32]) -> Self {
        Self { name, key, data: None, interval: true }
    }

    pub(super) fn key_type(&self) -> (u32, u32) {
        type_and_length(self.key)
    }

    /// Names of links are no numbers, and nft prints them backwards unless told so.
    pub(super) fn is_host_order(&self) -> bool {
        self.key == [IFNAME]
    }

    pub(super) fn data_type(&self) -> Option<(u32, u32)> {
        self.data.map(type_and_length)
    }
}

fn type_and_length(parts: &[u32]) -> (u32, u32) {
    let length = |part: &u32| match *part {
        IPV4 => 4_u32,
        IPV6 | IFNAME => 16,
        PROTO => 1,
        _ => 2,
    };
    let kind = parts.iter().fold(0, |sum, part| sum << TYPE_BITS | part);
    let single = parts.len() == 1;
    let total = parts.iter().map(length).map(|n| if single { n } else { n.next_multiple_of(4) }).sum();
    (kind, total)
}

/// Addresses of pods whose traffic is masqueraded.
pub(super) const MASQUERADED: [Set; 2] =
    [Set::new("masqueraded4", &[IPV4]), Set::new("masqueraded6", &[IPV6])];
/// Destinations that see a pod's own address.
pub(super) const EXCLUDED: [Set; 2] = [Set::ranges("excluded4", &[IPV4]), Set::ranges("excluded6", &[IPV6])];
/// Links whose source addresses are pinned.
pub(super) const PINNED: Set = Set::new("pinned", &[IFNAME]);
/// What may come from them.
pub(super) const SOURCES: [Set; 2] =
    [Set::new("sources4", &[IFNAME, IPV4]), Set::new("sources6", &[IFNAME, IPV6])];
/// Pods with host ports, which may be their own clients.
pub(super) const HAIRPIN: [Set; 2] =
    [Set::new("hairpin4", &[IPV4, IPV4]), Set::new("hairpin6", &[IPV6, IPV6])];
/// Host ports of one address of the node.
pub(super) const HOSTPORTS_AT: [Set; 2] = [
    Set::map("hostports_at4", &[IPV4, PROTO, SERVICE], &[IPV4, SERVICE]),
    Set::map("hostports_at6", &[IPV6, PROTO, SERVICE], &[IPV6, SERVICE]),
];
/// Host ports of all addresses of the node.
pub(super) const HOSTPORTS: [Set; 2] = [
    Set::map("hostports4", &[PROTO, SERVICE], &[IPV4, SERVICE]),
    Set::map("hostports6", &[PROTO, SERVICE], &[IPV6, SERVICE]),
];

/// All sets, in the order in which they are made.
pub(super) fn sets() -> Vec<Set> {
    let pairs = [MASQUERADED, EXCLUDED, SOURCES, HAIRPIN, HOSTPORTS_AT, HOSTPORTS];
    [PINNED].into_iter().chain(pairs.into_iter().flatten()).collect()
}

/// The set of a family.
pub(super) fn of_family(pair: &[Set; 2], v4: bool) -> Set {
    if v4 { pair[0] } else { pair[1] }
}

/// Where the kernel enters a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) kind: &'static str,
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// A chain and its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// None: others jump to it.
    pub(super) hook: Option<Hook>,
    pub(super) rules: Vec<Vec<Expression>>,
}

const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
/// Before connection tracking sees the packet.
const RAW: i32 = -300;
/// Before kube-proxy and portmap, which translate at -100: a host port is the more specific wish.
const DSTNAT: i32 = -101;
/// Before the same at 100.
const SRCNAT: i32 = 99;

/// All chains; those that are jumped to come first.
pub(super) fn chains() -> Vec<Chain> {
    let hook = |kind, number, priority| Some(Hook { kind, number, priority });
    vec![
        Chain {
            name: "hostports",
            hook: None,
            rules: [true, false].into_iter().flat_map(host_ports).collect(),
        },
        Chain { name: "sources", hook: hook("filter", PREROUTING, RAW), rules: sources() },
        Chain { name: "dstnat", hook: hook("nat", PREROUTING, DSTNAT), rules: vec![to_local()] },
        Chain { name: "dstnat_local", hook: hook("nat", OUTPUT, DSTNAT), rules: vec![to_local()] },
        Chain { name: "srcnat", hook: hook("nat", POSTROUTING, SRCNAT), rules: srcnat() },
    ]
}

/// Only what is addressed to the node itself may be a host port: matching the port alone would catch traffic of pods to
/// the same port elsewhere (CVE-2025-67499 of portmap).
fn to_local() -> Vec<Expression> {
    vec![
        Expression::FibDestinationType(Reg(0)),
        Expression::Equal(Reg(0), RTN_LOCAL.to_ne_bytes().to_vec()),
        Expression::Jump("hostports"),
    ]
}

/// The more specific map first.
fn host_ports(v4: bool) -> Vec<Vec<Expression>> {
    let (destination, width) = if v4 { (Field::Destination4, 1) } else { (Field::Destination6, 4) };
    let finish = |mut rule: Vec<Expression>, map: Set| {
        rule.push(Expression::Map(map.name, Reg(0), Reg(0)));
        rule.push(Expression::Dnat { v4, address: Reg(0), port: Reg(width) });
        rule
    };
    let port = |at: u32| {
        [Expression::Meta(Meta::L4proto, Reg(at)), Expression::Load(Field::DestinationPort, Reg(at + 1))]
    };
    let mut at = family(v4);
    at.push(Expression::Load(destination, Reg(0)));
    at.extend(port(width));
    let mut any = family(v4);
    any.extend(port(0));
    vec![finish(at, of_family(&HOSTPORTS_AT, v4)), finish(any, of_family(&HOSTPORTS, v4))]
}

/// 127.0.0.0/8 is told by its first byte.
fn loopback4(first_byte: Field) -> [Expression; 2] {
    [Expression::Load(first_byte, Reg(0)), Expression::Equal(Reg(0), vec![127])]
}

/// Whose packets are refused: pods that would reach the node's loopback services through a link on which
/// `route_localnet` lets replies of local host ports in (CVE-2020-8558), and pods with another's address.
fn sources() -> Vec<Vec<Expression>> {
    let mut to_loopback = vec![
        Expression::Meta(Meta::Iifname, Reg(0)),
        Expression::Equal(Reg(0), LINK_PREFIX.as_bytes().to_vec()),
    ];
    to_loopback.extend(family(true));
    to_loopback.extend(loopback4(Field::DestinationFirst4));
    to_loopback.push(Expression::Drop);
    let pinned = || vec![Expression::Meta(Meta::Iifname, Reg(0)), Expression::In(PINNED.name, Reg(0))];
    let key = |field| [Expression::Meta(Meta::Iifname, Reg(0)), Expression::Load(field, Reg(4))];
    let mut v4 = pinned();
    v4.extend(family(true));
    v4.extend(key(Field::Source4));
    v4.extend([Expression::NotIn(SOURCES[0].name, Reg(0)), Expression::Drop]);
    let mut v6 = pinned();
    v6.extend(family(false));
    // Neighbour discovery speaks from link-local addresses, and before there is one, from none.
    let mut link_local = vec![0; 16];
    link_local[0] = 0xfe;
    link_local[1] = 0x80;
    let mut mask = vec![0; 16];
    mask[0] = 0xff;
    mask[1] = 0xc0;
    v6.extend([
        Expression::Load(Field::Source6, Reg(0)),
        Expression::NotEqual(Reg(0), vec![0; 16]),
        Expression::Load(Field::Source6, Reg(0)),
        Expression::Mask(Reg(0), mask),
        Expression::NotEqual(Reg(0), link_local),
    ]);
    v6.extend(key(Field::Source6));
    v6.extend([Expression::NotIn(SOURCES[1].name, Reg(0)), Expression::Drop]);
    vec![to_loopback, v4, v6]
}

/// What leaves with the node's address: a pod's traffic to its own host port, the node's own loopback traffic to one,
/// and what pods send out of the cluster.
fn srcnat() -> Vec<Vec<Expression>> {
    let mut rules = Vec::new();
    for v4 in [true, false] {
        let (source, destination, width) = if v4 {
            (Field::Source4, Field::Destination4, 1)
        } else {
            (Field::Source6, Field::Destination6, 4)
        };
        let mut hairpin = family(v4);
        hairpin.extend([
            Expression::Load(source, Reg(0)),
            Expression::Load(destination, Reg(width)),
            Expression::In(of_family(&HAIRPIN, v4).name, Reg(0)),
            Expression::Masquerade,
        ]);
        rules.push(hairpin);
    }
    let mut local = family(true);
    local.extend(loopback4(Field::SourceFirst4));
    let mut name = b"lo".to_vec();
    name.resize(16, 0);
    local.extend([
        Expression::Meta(Meta::Oifname, Reg(0)),
        Expression::NotEqual(Reg(0), name),
        Expression::Masquerade,
    ]);
    rules.push(local);
    rules.extend([true, false].map(masquerade));
    rules
}

fn masquerade(v4: bool) -> Vec<Expression> {
    let (source, destination) =
        if v4 { (Field::Source4, Field::Destination4) } else { (Field::Source6, Field::Destination6) };
    // Multicast has no reply that could be translated back.
    let (mask, multicast) = if v4 { (vec![0xf0, 0, 0, 0], 0xe0) } else { (vec![0xff; 1], 0xff) };
    let resize = |mut bytes: Vec<u8>| {
        bytes.resize(if v4 { 4 } else { 16 }, 0);
        bytes
    };
    let mut rule = family(v4);
    rule.extend([
        Expression::Load(source, Reg(0)),
        Expression::In(of_family(&MASQUERADED, v4).name, Reg(0)),
        Expression::Load(destination, Reg(0)),
        Expression::NotIn(of_family(&EXCLUDED, v4).name, Reg(0)),
        Expression::Load(destination, Reg(0)),
        Expression::Mask(Reg(0), resize(mask)),
        Expression::NotEqual(Reg(0), resize(vec![multicast])),
        Expression::Masquerade,
    ]);
    rule
}
