//! Who this process is among its replicas.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
};

/// `HOSTNAME_UUID`, as client-go's programs say it: two processes on one host differ, and so does each restart.
pub fn identity() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let host = host.trim();
    // The standard library's hash keys come from the operating system's random numbers.
    let (high, low) =
        (RandomState::new().build_hasher().finish(), RandomState::new().build_hasher().finish());
    format!(
        "{}_{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        if host.is_empty() { "unknown" } else { host },
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0x0fff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_is_somebody_else() {
        let (one, other) = (identity(), identity());
        assert_ne!(one, other);
        let (host, uuid) = one.rsplit_once('_').unwrap();
        assert!(!host.is_empty());
        assert_eq!(uuid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }
}
