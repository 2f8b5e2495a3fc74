//! Names that follow from an attachment: whoever comes later finds what an earlier process made, without a record.

use sha2::{Digest, Sha256};

use crate::store::Key;

/// What links of ours on the host start with. nft rules match it.
pub const LINK_PREFIX: &str = "tsv";
/// What devices that shape traffic from pods start with.
pub const SHAPER_PREFIX: &str = "tsi";
/// RFC 4648's alphabet in lower case: legal in names of interfaces, no letter twice for who reads aloud.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// With the prefix it makes the kernel's 15; 60 bits.
const SUFFIX: usize = 12;

/// 64 bits of a digest of the attachment.
pub(crate) fn digest(key: &Key) -> u64 {
    let full = Sha256::digest(format!("{}\0{}\0{}", key.network, key.container_id, key.ifname));
    full.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn suffix(key: &Key) -> String {
    let bits = digest(key);
    (0..SUFFIX).map(|index| char::from(ALPHABET[(bits >> (59 - 5 * index) & 31) as usize])).collect()
}

/// The pod's link on the host.
pub fn host_link(key: &Key) -> String {
    format!("{LINK_PREFIX}{}", suffix(key))
}

/// The device through which traffic from the pod is shaped.
pub fn shaper(key: &Key) -> String {
    format!("{SHAPER_PREFIX}{}", suffix(key))
}

/// What a link of ours carries as its alias: whose it is.
pub fn alias(key: &Key) -> String {
    format!("{LINK_PREFIX} {key}")
}

/// The attachment that an alias names.
pub fn parse_alias(alias: &str) -> Option<Key> {
    let mut parts = alias.strip_prefix(LINK_PREFIX)?.strip_prefix(' ')?.splitn(3, '/').map(str::to_owned);
    Some(Key { network: parts.next()?, container_id: parts.next()?, ifname: parts.next()? })
}

/// Hardware addresses of both ends: locally administered, and the same whenever the attachment is the same.
pub fn macs(key: &Key) -> ([u8; 6], [u8; 6]) {
    let bytes = digest(key).to_be_bytes();
    let mac = |last: u8| [0x0a, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4] & 0xfe | last];
    (mac(0), mac(1))
}

/// Hardware address of a bridge: given, because a bridge without one takes that of a port, and loses it with the port.
pub fn bridge_mac(bridge: &str) -> [u8; 6] {
    let digest = Sha256::digest(bridge);
    [0x0a, digest[0], digest[1], digest[2], digest[3], digest[4]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(network: &str, container_id: &str, ifname: &str) -> Key {
        Key { network: network.into(), container_id: container_id.into(), ifname: ifname.into() }
    }

    /// A later version must find what an earlier one made.
    #[test]
    fn names_never_change() {
        let key = key("pods", "c1", "eth0");
        let (host, pod) = macs(&key);
        let text = format!("{} {} {host:02x?} {pod:02x?} {}", host_link(&key), shaper(&key), alias(&key));
        insta::assert_snapshot!(text, @"tsvhgtrtectyzic tsihgtrtectyzic [0a, 39, a7, 19, 90, 52] [0a, 39, a7, 19, 90, 53] tsv pods/c1/eth0");
        assert_eq!(host_link(&key).len(), 15);
    }

    #[test]
    fn every_part_of_the_attachment_counts() {
        let names: Vec<String> = [
            key("pods", "c1", "eth0"),
            key("pods2", "c1", "eth0"),
            key("pods", "c2", "eth0"),
            key("pods", "c1", "eth1"),
            key("podsc", "1", "eth0"),
        ]
        .iter()
        .map(host_link)
        .collect();
        let distinct: std::collections::HashSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }

    #[test]
    fn an_alias_leads_back() {
        let key = key("pods", "c1", "eth0");
        assert_eq!(parse_alias(&alias(&key)), Some(key));
        assert_eq!(parse_alias("tsvx"), None);
        assert_eq!(parse_alias("somebody's"), None);
    }
}
