//! Which address a pod gets.
//!
//! An address that was just freed may still be meant by packets in flight, by connection tracking and by caches. So an
//! address that was never used goes first, and among the others the one that has been free the longest: quarantine is an
//! order, never a reason to refuse. Order is that of the log, not of a clock, which may jump.

use std::collections::HashSet;
use std::net::IpAddr;

use super::record::{Key, Record};
use super::state::State;
use crate::conf::{PortMapping, Range, RangeSet, from_number};
use crate::spec::{CniError, Code, Result};

/// One address of each set, with the range that it is of.
pub fn allocate<'a>(
    state: &State,
    sets: &'a [RangeSet],
    wanted: &[IpAddr],
) -> Result<Vec<(IpAddr, &'a Range)>> {
    let used = state.used();
    let mut left = wanted.to_vec();
    let mut chosen = Vec::with_capacity(sets.len());
    for set in sets {
        let position = left.iter().position(|ip| set.range_of(*ip).is_some());
        let ip = match position.map(|index| left.remove(index)) {
            Some(ip) if used.contains(&ip) => return Err(taken(state, ip)),
            Some(ip) => Some(ip),
            None => choose(state, set, &used),
        };
        let Some((ip, range)) = ip.and_then(|ip| Some((ip, set.range_of(ip)?))) else {
            return Err(exhausted(set));
        };
        chosen.push((ip, range));
    }
    match left.first() {
        Some(ip) => {
            Err(CniError::new(Code::InvalidNetworkConfig, format!("the wanted address {ip} is in no range"))
                .details("ask for an address of the network's ranges, one of each set"))
        }
        None => Ok(chosen),
    }
}

fn choose(state: &State, set: &RangeSet, used: &HashSet<IpAddr>) -> Option<IpAddr> {
    let freed: HashSet<IpAddr> = state.quarantine().collect();
    let fresh = set.ranges().iter().find_map(|range| {
        let (start, end) = range.bounds()?;
        // Everything that is passed over is used, freed or the gateway, so this ends soon even in a /64.
        (start..=end)
            .map(|number| from_number(set.is_ipv4(), number))
            .find(|ip| range.allows(*ip) && !used.contains(ip) && !freed.contains(ip))
    });
    fresh.or_else(|| state.quarantine().find(|ip| !used.contains(ip) && set.range_of(*ip).is_some()))
}

fn taken(state: &State, ip: IpAddr) -> CniError {
    let owner = state.records().find(|record| record.owns_ips && record.ips.contains(&ip)).map(Record::owner);
    CniError::new(
        Code::AddressesExhausted,
        format!("the wanted address {ip} belongs to {}", owner.unwrap_or_else(|| "another pod".to_owned())),
    )
    .details("ask for another address, or remove that pod")
}

fn exhausted(set: &RangeSet) -> CniError {
    let pools: Vec<String> = set.ranges().iter().map(ToString::to_string).collect();
    let size: u128 = set.ranges().iter().map(Range::size).sum();
    CniError::new(
        Code::AddressesExhausted,
        format!("no free address in {} ({size} in all)", pools.join(", ")),
    )
}

/// Free addresses of a set.
pub fn free(state: &State, set: &RangeSet) -> u128 {
    let size: u128 = set.ranges().iter().map(Range::size).sum();
    let used = state.used().into_iter().filter(|ip| set.range_of(*ip).is_some()).count();
    size.saturating_sub(used as u128)
}

/// A host port can lead to one pod only.
pub fn check_ports(state: &State, key: &Key, ports: &[PortMapping]) -> Result<()> {
    for record in state.records().filter(|record| record.key != *key) {
        let clash = ports.iter().find(|port| record.ports.iter().any(|other| port.conflicts(other)));
        if let Some(port) = clash {
            return Err(CniError::new(
                Code::PortInUse,
                format!("host port {port} already leads to {}", record.owner()),
            )
            .details("choose another hostPort, or remove that pod"));
        }
    }
    Ok(())
}
