//! How a record is called: the owner's name and a hash of the data, as upstream does it for StatefulSets, so that
//! either controller finds what the other has made under the same name.

/// As upstream: the prefix leaves room for the hash.
const MAX_PREFIX: usize = 223;

/// No vowels and no digits that read like letters, in upstream's order.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of some data. `collisions` chooses another one when a foreign object sits on the name.
pub(super) fn hash(data: &str, collisions: i32) -> String {
    let sum = fnv32(data.as_bytes().iter().chain(collisions.to_string().as_bytes()));
    sum.to_string().bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

/// The name of the record with that hash.
pub(super) fn of(owner: &str, hash: &str) -> String {
    let prefix = owner.get(..MAX_PREFIX).unwrap_or(owner);
    format!("{prefix}-{hash}")
}

/// FNV-1 (not 1a), 32 bits.
fn fnv32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash: u32, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published test values of FNV-1.
    #[test]
    fn the_sum_is_fnv_1() {
        assert_eq!(fnv32(b"".iter()), 0x811c_9dc5);
        assert_eq!(fnv32(b"a".iter()), 0x050c_5d7e);
        assert_eq!(fnv32(b"foobar".iter()), 0x31f0_b262);
    }

    #[test]
    fn collisions_choose_another_name_and_long_prefixes_are_cut() {
        assert_ne!(hash("{}", 0), hash("{}", 1));
        assert_eq!(of("web", "abc"), "web-abc");
        assert_eq!(of(&"a".repeat(253), "abc").len(), 227);
    }
}
