//! Names chosen by plans: deterministic, so that a create repeated after a lost reply meets `AlreadyExists`
//! instead of making a second object.
//!
//! A child's name is `OWNER-SUFFIX`. The suffix encodes a slot number, scattered by a permutation that is
//! keyed with the owner's uid: two incarnations of an owner draw different names, and the slot can be read
//! back from a name, so the next free slot needs no stored counter.

use crate::{Uid, intern::fnv64};

/// No vowels and no digits that read like letters: suffixes never spell words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// 27⁵ slots: 14,348,907.
pub const SLOTS: u32 = 27u32.pow(SUFFIX_LENGTH as u32);

/// Object names are DNS subdomains for most kinds.
const MAX_NAME: usize = 253;

/// A pod's name becomes its host name, of which only so much is left: siblings must differ within that.
const MAX_CHILD_NAME: usize = 63;

/// How much of an owner's name [`child_name`] keeps.
pub const MAX_CHILD_PREFIX: usize = MAX_CHILD_NAME - SUFFIX_LENGTH - 1;

/// The child name for `slot` of this owner.
pub fn child_name(owner_name: &str, owner_uid: &Uid, slot: u32) -> String {
    let prefix = cut(owner_name, MAX_CHILD_PREFIX);
    format!("{prefix}-{}", encode(permute(slot % SLOTS, owner_uid, Direction::Scatter)))
}

/// The slot behind a name made by [`child_name`] for this owner. A name that merely looks alike (of an adopted
/// pod, say) decodes to an arbitrary slot, which is harmless: that slot is then skipped.
pub fn slot_of(name: &str, owner_name: &str, owner_uid: &Uid) -> Option<u32> {
    let prefix = cut(owner_name, MAX_CHILD_PREFIX);
    let suffix = name.strip_prefix(prefix)?.strip_prefix('-')?;
    Some(permute(decode(suffix)?, owner_uid, Direction::Gather))
}

/// The slot of the `attempt`th child that this owner makes for `scope` (a node, say). The slots of one scope
/// follow each other on the ring, so that the attempt can be read back; those of two scopes may meet, and who
/// draws a name looks whether it is taken.
pub fn scoped_slot(owner_uid: &Uid, scope: &str, attempt: u32) -> u32 {
    (scope_base(owner_uid, scope) + attempt % SLOTS) % SLOTS
}

/// The attempt behind a slot, if it is one of that scope's.
pub fn attempt_of(slot: u32, owner_uid: &Uid, scope: &str) -> Option<u32> {
    let attempt = (slot % SLOTS + SLOTS - scope_base(owner_uid, scope)) % SLOTS;
    (attempt < ATTEMPTS).then_some(attempt)
}

/// Attempts per scope, after which names are used again. Names that were not made here decode to arbitrary
/// attempts: a small number of them keeps most of those out.
pub const ATTEMPTS: u32 = 1 << 16;

fn scope_base(owner_uid: &Uid, scope: &str) -> u32 {
    let hash = finish(fnv64(&[owner_uid.as_bytes(), scope.as_bytes()]));
    (hash % u64::from(SLOTS)) as u32
}

/// FNV mixes the last bytes poorly into the high bits; one round of a 64-bit finaliser repairs that.
fn finish(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ hash >> 33
}

/// A ten-letter hash of some content, for names and the `pod-template-hash` label: 47 bits, so that collisions
/// are of theoretical interest (upstream's hash has 32).
pub fn content_hash(parts: &[&[u8]]) -> String {
    let mut hash = finish(fnv64(parts));
    let mut text = String::with_capacity(10);
    for _ in 0..10 {
        text.push(char::from(ALPHABET[(hash % 27) as usize]));
        hash /= 27;
    }
    text
}

/// `PREFIX-HASH`, the prefix cut so that the whole is a legal name.
pub fn hashed_name(prefix: &str, hash: &str) -> String {
    format!("{}-{hash}", cut(prefix, MAX_NAME - hash.len() - 1))
}

fn cut(text: &str, room: usize) -> &str {
    let cut = if text.len() > room { &text[..room] } else { text };
    cut.trim_end_matches(['-', '.'])
}

fn encode(mut value: u32) -> String {
    let mut text = [0u8; SUFFIX_LENGTH];
    for byte in text.iter_mut().rev() {
        *byte = ALPHABET[(value % 27) as usize];
        value /= 27;
    }
    text.iter().map(|&byte| char::from(byte)).collect()
}

fn decode(text: &str) -> Option<u32> {
    if text.len() != SUFFIX_LENGTH {
        return None;
    }
    text.bytes().try_fold(0, |value, byte| {
        let digit = ALPHABET.iter().position(|&letter| letter == byte)?;
        Some(value * 27 + digit as u32)
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Scatter,
    Gather,
}

/// An affine permutation of 0..SLOTS keyed with the uid. Any multiplier that 3 does not divide is invertible
/// modulo 27⁵ = 3¹⁵.
fn permute(value: u32, uid: &Uid, direction: Direction) -> u32 {
    let key = fnv64(&[uid.as_bytes()]);
    let modulus = u64::from(SLOTS);
    let mut multiplier = (key >> 24) % modulus;
    if multiplier.is_multiple_of(3) {
        multiplier += 1;
    }
    let offset = key % modulus;
    let value = u64::from(value);
    let result = match direction {
        Direction::Scatter => (value * multiplier + offset) % modulus,
        Direction::Gather => (value + modulus - offset) % modulus * inverse(multiplier, modulus) % modulus,
    };
    result as u32
}

/// `multiplier⁻¹` modulo 3¹⁵: Euler's theorem with φ(3¹⁵) = 2·3¹⁴.
fn inverse(multiplier: u64, modulus: u64) -> u64 {
    let mut exponent = 2 * 3u64.pow(14) - 1;
    let mut base = multiplier % modulus;
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % modulus;
        }
        base = base * base % modulus;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_slot_is_read_back_and_no_two_share_a_name() {
        let mut names = HashSet::new();
        for uid in ["0b6e6d9c-3c61-4d50-8a50-3f2f6a4e7d11", "x", "", "another"] {
            let uid = Uid::from(uid);
            names.clear();
            for slot in (0..5000).chain([SLOTS - 1, SLOTS / 2]) {
                let name = child_name("web", &uid, slot);
                assert_eq!(slot_of(&name, "web", &uid), Some(slot), "{name}");
                assert!(names.insert(name));
            }
        }
    }

    #[test]
    fn the_attempt_of_a_scope_is_read_back() {
        let uid = Uid::from("u");
        for node in ["a", "node-1", "node-2", ""] {
            for attempt in [0, 1, 77, ATTEMPTS - 1] {
                assert_eq!(attempt_of(scoped_slot(&uid, node, attempt), &uid, node), Some(attempt));
            }
            assert_eq!(attempt_of(scoped_slot(&uid, node, ATTEMPTS), &uid, node), None);
        }
        let bases: HashSet<u32> = (0..500).map(|n| scoped_slot(&uid, &format!("node-{n}"), 0)).collect();
        assert_eq!(bases.len(), 500);
    }

    #[test]
    fn incarnations_draw_different_names() {
        assert_ne!(child_name("web", &Uid::from("a"), 0), child_name("web", &Uid::from("b"), 0));
    }

    #[test]
    fn foreign_names_have_no_slot() {
        let uid = Uid::from("u");
        for name in ["web", "web-", "web-abcde", "web-bcdf", "webx-bcdfg", "other-bcdfg"] {
            assert_eq!(slot_of(name, "web", &uid), None, "{name}");
        }
    }

    #[test]
    fn long_owner_names_are_cut() {
        let owner = "a".repeat(253);
        let uid = Uid::from("u");
        let name = child_name(&owner, &uid, 7);
        assert_eq!(slot_of(&name, &owner, &uid), Some(7));
        assert_eq!(hashed_name(&owner, "bcdfghjklm").len(), 253);
    }

    /// A host name has 63 characters at most; the kubelet cuts what is longer, and pods that share a host name take
    /// each other for themselves, in leader elections say.
    #[test]
    fn pods_of_one_owner_differ_within_a_host_name() {
        for length in [56, 57, 58, 63, 253] {
            let owner = "a".repeat(length);
            let uid = Uid::from("u");
            let names: HashSet<String> = (0..100).map(|slot| child_name(&owner, &uid, slot)).collect();
            assert_eq!(names.len(), 100);
            assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
        }
    }
}
