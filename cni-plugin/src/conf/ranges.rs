//! Ranges of addresses: which addresses of a subnet a pod may have.
//!
//! The fields are host-local's, so that its configurations can be carried over. The first address of a subnet is kept
//! for the gateway in every mode, so that the mode can be changed without giving pods other addresses; the first and
//! last of an IPv4 subnet are the network's and the broadcast address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

use super::invalid;
use super::runtime::ip_or_empty;
use crate::spec::Result;

/// A contiguous range, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Range {
    /// The subnet; a podCIDR of the node.
    #[serde(alias = "Subnet")]
    pub subnet: IpNet,
    /// First address for pods.
    #[serde(default, alias = "RangeStart", deserialize_with = "ip_or_empty")]
    pub range_start: Option<IpAddr>,
    /// Last address for pods.
    #[serde(default, alias = "RangeEnd", deserialize_with = "ip_or_empty")]
    pub range_end: Option<IpAddr>,
    /// Kept free of pods; the subnet's first address if absent.
    #[serde(default, alias = "Gateway", deserialize_with = "ip_or_empty")]
    pub gateway: Option<IpAddr>,
}

/// Ranges of one family, of which a pod gets one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
}

impl RangeSet {
    /// Validates the ranges.
    pub fn new(ranges: Vec<Range>) -> Result<Self> {
        let Some(first) = ranges.first() else {
            return Err(invalid("ipam.ranges has an empty set", "remove the set, or add a subnet to it"));
        };
        let v4 = first.subnet.addr().is_ipv4();
        if let Some(other) = ranges.iter().find(|range| range.subnet.addr().is_ipv4() != v4) {
            return Err(invalid(
                format!("ipam.ranges: {} and {} are in one set", first.subnet, other.subnet),
                "a set holds one address family; give each its own set",
            ));
        }
        ranges.iter().try_for_each(Range::validate)?;
        Ok(Self { ranges })
    }

    /// Whether it gives out IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.ranges.first().is_some_and(|range| range.subnet.addr().is_ipv4())
    }

    /// The ranges, in the order in which they fill up.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The range that may give out an address.
    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.allows(ip))
    }
}

impl Range {
    fn validate(&self) -> Result<()> {
        let inside = |name: &str, ip: Option<IpAddr>| match ip.filter(|ip| !self.subnet.contains(ip)) {
            Some(ip) => Err(invalid(
                format!("ipam.ranges: {name} {ip} is outside subnet {}", self.subnet),
                format!("correct `{name}`"),
            )),
            None => Ok(()),
        };
        inside("rangeStart", self.range_start)?;
        inside("rangeEnd", self.range_end)?;
        inside("gateway", self.gateway)?;
        if self.subnet.addr() != self.subnet.network() {
            return Err(invalid(
                format!("ipam.ranges: subnet {} has bits set outside its prefix", self.subnet),
                format!("write {}", self.subnet.trunc()),
            ));
        }
        if self.bounds().is_none() {
            return Err(invalid(
                format!("ipam.ranges: {self} holds no address for a pod"),
                "the smallest usable subnets are /30 and /126; rangeStart must not be after rangeEnd",
            ));
        }
        Ok(())
    }

    /// Kept for the node.
    pub fn gateway(&self) -> IpAddr {
        self.gateway.unwrap_or_else(|| from_number(self.is_ipv4(), number(self.subnet.network()) + 1))
    }

    /// The subnet's prefix length.
    pub fn prefix_len(&self) -> u8 {
        self.subnet.prefix_len()
    }

    fn is_ipv4(&self) -> bool {
        self.subnet.addr().is_ipv4()
    }

    /// First and last address for pods, as numbers; none when there is no such address.
    pub(crate) fn bounds(&self) -> Option<(u128, u128)> {
        let (first, last) = (number(self.subnet.network()), number(self.subnet.broadcast()));
        // An IPv6 subnet has no broadcast address; its first is the routers' anycast address (RFC 4291).
        let (lowest, highest) =
            (first.checked_add(1)?, if self.is_ipv4() { last.checked_sub(1)? } else { last });
        let start = self.range_start.map_or(lowest, number).max(lowest);
        let end = self.range_end.map_or(highest, number).min(highest);
        let gateway = number(self.gateway());
        let only_the_gateway = start == end && start == gateway;
        (start <= end && !only_the_gateway).then_some((start, end))
    }

    /// Whether a pod may have this address.
    pub fn allows(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4()
            && self.bounds().is_some_and(|(start, end)| (start..=end).contains(&number(ip)))
            && ip != self.gateway()
    }

    /// How many addresses it has for pods.
    pub fn size(&self) -> u128 {
        let Some((start, end)) = self.bounds() else { return 0 };
        let gateway = (start..=end).contains(&number(self.gateway()));
        (end - start).saturating_add(1) - u128::from(gateway)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.subnet)?;
        if let Some(start) = self.range_start {
            write!(f, " from {start}")?;
        }
        if let Some(end) = self.range_end {
            write!(f, " to {end}")?;
        }
        Ok(())
    }
}

/// Two ranges with a common address would give it to two pods' bookkeeping: one would never be found again.
pub(super) fn check_overlap(sets: &[RangeSet]) -> Result<()> {
    let all: Vec<&Range> = sets.iter().flat_map(|set| &set.ranges).collect();
    for (index, one) in all.iter().enumerate() {
        for other in all.iter().skip(index + 1) {
            let (Some(a), Some(b)) = (one.bounds(), other.bounds()) else { continue };
            if one.is_ipv4() == other.is_ipv4() && a.0 <= b.1 && b.0 <= a.1 {
                return Err(invalid(
                    format!("ipam.ranges: {one} and {other} overlap"),
                    "every address may be in one range only",
                ));
            }
        }
    }
    Ok(())
}

/// An address as a number.
pub(crate) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The reverse of [`number`].
pub(crate) fn from_number(v4: bool, number: u128) -> IpAddr {
    if v4 { IpAddr::V4(Ipv4Addr::from_bits(number as u32)) } else { IpAddr::V6(Ipv6Addr::from_bits(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str) -> Range {
        Range { subnet: subnet.parse().unwrap(), range_start: None, range_end: None, gateway: None }
    }

    /// 16 addresses, less network, gateway and broadcast.
    #[test]
    fn pods_never_get_the_subnets_own_addresses() {
        let subnet = range("10.1.0.16/28");
        assert_eq!(subnet.size(), 13);
        let allowed = |text: &str| subnet.allows(text.parse().unwrap());
        assert!(
            !allowed("10.1.0.15") && !allowed("10.1.0.16") && !allowed("10.1.0.17") && !allowed("10.1.0.31")
        );
        assert!(allowed("10.1.0.18") && allowed("10.1.0.30"));
        assert!(!allowed("::18"));
        let v6 = range("fd00::/124");
        assert_eq!(v6.size(), 14);
        assert!(v6.allows("fd00::f".parse().unwrap()) && !v6.allows("fd00::".parse().unwrap()));
    }

    #[test]
    fn a_whole_ipv6_subnet_is_counted() {
        assert_eq!(range("fd00::/64").size(), (1 << 64) - 2);
    }

    #[test]
    fn ranges_that_cannot_work_are_refused() {
        let refused = |range: Range| RangeSet::new(vec![range]).unwrap_err().to_string();
        let mut text = String::new();
        for bad in [
            range("10.0.0.0/31"),
            range("10.0.0.0/32"),
            range("10.0.0.5/24"),
            Range { range_start: Some("10.0.1.1".parse().unwrap()), ..range("10.0.0.0/24") },
            Range {
                range_start: Some("10.0.0.9".parse().unwrap()),
                range_end: Some("10.0.0.8".parse().unwrap()),
                ..range("10.0.0.0/24")
            },
            Range { gateway: Some("fd00::1".parse().unwrap()), ..range("10.0.0.0/24") },
        ] {
            text += &(refused(bad) + "\n");
        }
        text += &RangeSet::new(vec![range("10.0.0.0/24"), range("fd00::/64")]).unwrap_err().to_string();
        insta::assert_snapshot!(text, @r"
        ipam.ranges: 10.0.0.0/31 holds no address for a pod; the smallest usable subnets are /30 and /126; rangeStart must not be after rangeEnd
        ipam.ranges: 10.0.0.0/32 holds no address for a pod; the smallest usable subnets are /30 and /126; rangeStart must not be after rangeEnd
        ipam.ranges: subnet 10.0.0.5/24 has bits set outside its prefix; write 10.0.0.0/24
        ipam.ranges: rangeStart 10.0.1.1 is outside subnet 10.0.0.0/24; correct `rangeStart`
        ipam.ranges: 10.0.0.0/24 from 10.0.0.9 to 10.0.0.8 holds no address for a pod; the smallest usable subnets are /30 and /126; rangeStart must not be after rangeEnd
        ipam.ranges: gateway fd00::1 is outside subnet 10.0.0.0/24; correct `gateway`
        ipam.ranges: 10.0.0.0/24 and fd00::/64 are in one set; a set holds one address family; give each its own set
        ");
    }
}
