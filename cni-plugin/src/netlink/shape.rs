//! Traffic shaping: a token bucket on a link, and a redirection that lets received traffic be shaped too.
//!
//! Traffic towards a pod leaves the host through the pod's link, where a bucket holds it back. Traffic from the pod
//! arrives there, and what arrives cannot be held back; so it is redirected through a device of its own. That device
//! is on the host, where a pod that may change its own queues cannot remove it.

use super::attribute::Writer;
use super::channel::{NLM_F_CREATE, NLM_F_REPLACE, NetlinkError};
use super::route::Rtnl;

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

const TC_H_ROOT: u32 = 0xffff_ffff;
const TC_H_INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
const ETH_P_ALL: u16 = 3;
/// With a link layer the kernel computes transmission times itself, and needs no table.
const TC_LINKLAYER_ETHERNET: u8 = 1;
const TC_U32_TERMINAL: u8 = 1;
const TC_ACT_STOLEN: i32 = 4;
const TCA_EGRESS_REDIR: i32 = 1;
/// How long a packet may wait in the queue; the reference plugin's choice.
const LATENCY_MS: u64 = 25;

/// A rate and a burst, in bits per second and bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bits per second.
    pub rate: u64,
    /// Bits.
    pub burst: u64,
}

impl Shape {
    /// The options of the bucket for a link of this MTU.
    fn options(self, mtu: u32) -> Vec<u8> {
        let rate = (self.rate / 8).max(1);
        // A bucket that does not hold one packet lets none through.
        let burst = (self.burst / 8).clamp(u64::from(mtu) * 2, u64::from(u32::MAX)) as u32;
        let limit =
            (rate / 1000 * LATENCY_MS).saturating_add(u64::from(burst)).min(u64::from(u32::MAX)) as u32;
        let mut parms = vec![0, TC_LINKLAYER_ETHERNET];
        parms.extend([0; 6]);
        parms.extend((rate.min(u64::from(u32::MAX)) as u32).to_ne_bytes());
        // No peak rate.
        parms.extend([0; 12]);
        parms.extend(limit.to_ne_bytes());
        // Buffer and MTU as times: superseded by TCA_TBF_BURST.
        parms.extend([0; 8]);
        let options = Writer::default().bytes(TCA_TBF_PARMS, &parms).ne32(TCA_TBF_BURST, burst);
        if rate > u64::from(u32::MAX) { options.bytes(TCA_TBF_RATE64, &rate.to_ne_bytes()) } else { options }
            .0
    }
}

fn tc_message(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(handle.to_ne_bytes());
    bytes.extend(parent.to_ne_bytes());
    bytes.extend(info.to_ne_bytes());
    bytes
}

impl Rtnl {
    /// Puts a bucket on what leaves through a link.
    pub fn shape(&mut self, link: &str, shape: Shape, mtu: u32) -> Result<(), NetlinkError> {
        let mut body = tc_message(self.index(link)?, 0x0001_0000, TC_H_ROOT, 0);
        body.extend(Writer::default().text(TCA_KIND, "tbf").bytes(TCA_OPTIONS, &shape.options(mtu)).0);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.channel.request(&format!("shape traffic on {link}"), (RTM_NEWQDISC, flags), &body).map(drop)
    }

    /// Sends everything that arrives through `from` out of `to`.
    pub fn redirect(&mut self, from: &str, to: &str) -> Result<(), NetlinkError> {
        let (from_index, to_index) = (self.index(from)?, self.index(to)?);
        let what = format!("redirect traffic of {from} to {to}");
        let mut ingress = tc_message(from_index, INGRESS_HANDLE, TC_H_INGRESS, 0);
        ingress.extend(Writer::default().text(TCA_KIND, "ingress").0);
        self.channel.request(&what, (RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE), &ingress)?;
        let mut mirred = Vec::new();
        mirred.extend(0_u32.to_ne_bytes());
        mirred.extend(0_u32.to_ne_bytes());
        for number in [TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR] {
            mirred.extend(number.to_ne_bytes());
        }
        mirred.extend(to_index.to_ne_bytes());
        // One key with an empty mask: every packet.
        let mut selector = vec![TC_U32_TERMINAL, 0, 1, 0];
        selector.extend([0; 12]);
        selector.extend([0; 16]);
        let info = 1 << 16 | u32::from(ETH_P_ALL.to_be());
        let mut filter = tc_message(from_index, 0, INGRESS_HANDLE, info);
        filter.extend(
            Writer::default()
                .text(TCA_KIND, "u32")
                .nest(TCA_OPTIONS, |options| {
                    options.bytes(TCA_U32_SEL, &selector).nest(TCA_U32_ACT, |actions| {
                        actions.nest(1, |action| {
                            action
                                .text(TCA_ACT_KIND, "mirred")
                                .nest(TCA_ACT_OPTIONS, |options| options.bytes(TCA_MIRRED_PARMS, &mirred))
                        })
                    })
                })
                .0,
        );
        self.channel.request(&what, (RTM_NEWTFILTER, NLM_F_CREATE), &filter).map(drop)
    }

    /// Kind of the queue at the root of a link.
    pub fn root_qdisc(&mut self, link: &str) -> Result<Option<String>, NetlinkError> {
        let index = self.index(link)?;
        let answers = self.dump("list queues", RTM_GETQDISC, &tc_message(index, 0, 0, 0))?;
        let of_root = |body: &Vec<u8>| {
            let word = |at: usize| body.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
            (word(4) == Some(index) && word(12) == Some(TC_H_ROOT)).then_some(())?;
            let (_, kind) =
                super::channel::Attributes(body.get(20..)?).find(|(kind, _)| *kind == TCA_KIND)?;
            Some(super::channel::text_of(kind))
        };
        Ok(answers.iter().find_map(of_root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::channel::Attributes;

    fn numbers(shape: Shape) -> (u32, u32, Option<u64>) {
        let options = shape.options(1500);
        let find = |kind| Attributes(&options).find(|(k, _)| *k == kind).map(|(_, value)| value.to_vec());
        let parms = find(TCA_TBF_PARMS).unwrap();
        assert_eq!(parms.len(), 36, "struct tc_tbf_qopt");
        let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
        let burst = word(&find(TCA_TBF_BURST).unwrap());
        let rate64 = find(TCA_TBF_RATE64).map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap()));
        (word(&parms[8..12]), burst, rate64)
    }

    /// Runtimes send the largest 32-bit number as burst, in bits or in bytes.
    #[test]
    fn extremes_neither_overflow_nor_stall() {
        assert_eq!(numbers(Shape { rate: 8_000_000, burst: 80_000 }), (1_000_000, 10_000, None));
        assert_eq!(numbers(Shape { rate: 8, burst: 8 }), (1, 3000, None));
        let largest = u64::from(u32::MAX);
        assert_eq!(numbers(Shape { rate: 8, burst: largest * 8 + 7 }).1, u32::MAX);
        let fast = numbers(Shape { rate: 80_000_000_000, burst: largest });
        assert_eq!((fast.0, fast.2), (u32::MAX, Some(10_000_000_000)));
    }
}
