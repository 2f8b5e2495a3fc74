//! The nf_tables expressions that our rules use, and no others.
//!
//! Data in packets are in network order, data that the kernel computes (`meta`, `fib`) in the machine's. A key of
//! several parts is loaded into neighbouring 32-bit registers, each part padded to four bytes.

use crate::netlink::Writer;

/// A 32-bit register. Eight to twenty-three in the kernel's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reg(pub(super) u32);

const NFT_REG32_00: u32 = 8;
const NFT_REG_VERDICT: u32 = 0;
const NF_DROP: i32 = 0;
const NFT_JUMP: i32 = -3;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
const NFT_LOOKUP_F_INV: u32 = 1;
const NFT_NAT_DNAT: u32 = 1;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 0x10;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// What `meta` loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Meta {
    Iifname = 6,
    Oifname = 7,
    Nfproto = 15,
    L4proto = 16,
}

/// A field of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Source4,
    SourceFirst4,
    Destination4,
    DestinationFirst4,
    Source6,
    Destination6,
    DestinationPort,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Meta(Meta, Reg),
    Load(Field, Reg),
    /// Keeps the bits of the mask.
    Mask(Reg, Vec<u8>),
    Equal(Reg, Vec<u8>),
    NotEqual(Reg, Vec<u8>),
    /// Type of the destination address, as the routing tables see it.
    FibDestinationType(Reg),
    In(&'static str, Reg),
    NotIn(&'static str, Reg),
    Map(&'static str, Reg, Reg),
    Dnat {
        v4: bool,
        address: Reg,
        port: Reg,
    },
    Masquerade,
    Drop,
    Jump(&'static str),
}

impl Field {
    /// Base, offset, length.
    fn place(self) -> (u32, u32, u32) {
        match self {
            Self::Source4 => (NFT_PAYLOAD_NETWORK_HEADER, 12, 4),
            Self::SourceFirst4 => (NFT_PAYLOAD_NETWORK_HEADER, 12, 1),
            Self::Destination4 => (NFT_PAYLOAD_NETWORK_HEADER, 16, 4),
            Self::DestinationFirst4 => (NFT_PAYLOAD_NETWORK_HEADER, 16, 1),
            Self::Source6 => (NFT_PAYLOAD_NETWORK_HEADER, 8, 16),
            Self::Destination6 => (NFT_PAYLOAD_NETWORK_HEADER, 24, 16),
            Self::DestinationPort => (NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2),
        }
    }
}

/// The packet is of this family.
pub(super) fn family(v4: bool) -> Vec<Expression> {
    let number = if v4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
    vec![Expression::Meta(Meta::Nfproto, Reg(0)), Expression::Equal(Reg(0), vec![number])]
}

impl Expression {
    /// As an element of a rule's list.
    pub(super) fn encode(&self) -> Writer {
        let (name, data) = self.parts();
        Writer::default().text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, |_| data)
    }

    fn parts(&self) -> (&'static str, Writer) {
        let empty = Writer::default();
        let reg = |reg: Reg| NFT_REG32_00 + reg.0;
        match self {
            Self::Meta(key, to) => ("meta", empty.be32(2, *key as u32).be32(1, reg(*to))),
            Self::Load(field, to) => {
                let (base, offset, length) = field.place();
                ("payload", empty.be32(1, reg(*to)).be32(2, base).be32(3, offset).be32(4, length))
            }
            Self::Mask(at, mask) => {
                let zero = vec![0; mask.len()];
                let data = empty.be32(1, reg(*at)).be32(2, reg(*at)).be32(3, mask.len() as u32);
                ("bitwise", data.nest(4, |w| value(w, mask)).nest(5, |w| value(w, &zero)))
            }
            Self::Equal(at, bytes) => {
                ("cmp", empty.be32(1, reg(*at)).be32(2, 0).nest(3, |w| value(w, bytes)))
            }
            Self::NotEqual(at, bytes) => {
                ("cmp", empty.be32(1, reg(*at)).be32(2, 1).nest(3, |w| value(w, bytes)))
            }
            Self::FibDestinationType(to) => {
                ("fib", empty.be32(1, reg(*to)).be32(2, NFT_FIB_RESULT_ADDRTYPE).be32(3, NFTA_FIB_F_DADDR))
            }
            Self::In(set, key) => ("lookup", empty.text(1, set).be32(2, reg(*key))),
            Self::NotIn(set, key) => {
                ("lookup", empty.text(1, set).be32(2, reg(*key)).be32(5, NFT_LOOKUP_F_INV))
            }
            Self::Map(map, key, to) => ("lookup", empty.text(1, map).be32(2, reg(*key)).be32(3, reg(*to))),
            Self::Dnat { v4, address, port } => {
                let family = u32::from(if *v4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 });
                let data = empty.be32(1, NFT_NAT_DNAT).be32(2, family).be32(3, reg(*address));
                ("nat", data.be32(5, reg(*port)))
            }
            Self::Masquerade => ("masq", empty.be32(1, NF_NAT_RANGE_PROTO_RANDOM_FULLY)),
            Self::Drop => ("immediate", verdict(empty, NF_DROP, None)),
            Self::Jump(chain) => ("immediate", verdict(empty, NFT_JUMP, Some(chain))),
        }
    }
}

fn value(writer: Writer, bytes: &[u8]) -> Writer {
    writer.bytes(NFTA_DATA_VALUE, bytes)
}

fn verdict(writer: Writer, code: i32, chain: Option<&str>) -> Writer {
    writer.be32(1, NFT_REG_VERDICT).nest(2, |data| {
        data.nest(NFTA_DATA_VERDICT, |verdict| {
            let verdict = verdict.be32(1, code as u32);
            chain.map_or(verdict.clone(), |chain| verdict.text(2, chain))
        })
    })
}
