//! Identities on the wire: `v1-POOL-ULID` for volumes, `s1-POOL-ULID` for snapshots.
//!
//! They name the pool and not the node, because disks move between nodes. Only lower-case letters, digits and dashes
//! occur, so an id is a file name as it stands.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use ulid::Ulid;
use uuid::Uuid;

/// Twelve characters of base 32: 60 bits of the pool's UUID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(String);

/// Length of a [`PoolId`] as text.
const POOL_LENGTH: usize = 12;

impl PoolId {
    /// The id of the pool whose marker has this UUID.
    pub fn of(uuid: Uuid) -> Self {
        let text = Ulid(uuid.as_u128()).to_string().to_lowercase();
        Self(text[text.len() - POOL_LENGTH..].to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of this driver")]
pub struct ParseIdError(String);

impl FromStr for PoolId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.len() == POOL_LENGTH
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
        valid.then(|| Self(text.to_owned())).ok_or_else(|| ParseIdError(text.to_owned()))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            pool: PoolId,
            ulid: Ulid,
        }

        impl $name {
            /// The id of something new: `now` in milliseconds makes ids sort by age, `random` makes them unique.
            pub fn new(pool: &PoolId, now: u64, random: u128) -> Self {
                Self { pool: pool.clone(), ulid: Ulid::from_parts(now, random) }
            }

            /// The pool that holds it.
            pub fn pool(&self) -> &PoolId {
                &self.pool
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}-{}-{}", $prefix, self.pool.0, self.ulid.to_string().to_lowercase())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let parse = || {
                    let (pool, ulid) = text.strip_prefix(concat!($prefix, "-"))?.split_once('-')?;
                    let id = Self { pool: pool.parse().ok()?, ulid: Ulid::from_string(ulid).ok()? };
                    // Base 32 reads several spellings of one number; an id has one, because it is a file name.
                    (id.to_string() == text).then_some(id)
                };
                parse().ok_or_else(|| ParseIdError(text.to_owned()))
            }
        }

        id!(@text $name);
    };
    (@text $name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

id!(
    /// The identity of a volume.
    VolumeId,
    "v1"
);
id!(
    /// The identity of a snapshot.
    SnapshotId,
    "s1"
);

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

id!(@text PoolId);

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> PoolId {
        PoolId::of(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
    }

    /// A kubelet remembers handles for years: their spelling is part of the on-disk format.
    #[test]
    fn spelling() {
        let id = VolumeId::new(&pool(), 1_700_000_000_000, 42);
        insta::assert_snapshot!(id, @"v1-28t5cy4tqkff-01hf7yat00000000000000001a");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    /// Sanity suites send junk and expect "not found", so nothing but an exact id may parse.
    #[test]
    fn only_exact_ids_parse() {
        let good = SnapshotId::new(&pool(), 7, 7).to_string();
        for bad in [
            "",
            "v1",
            "v1--",
            "fake-vol",
            &good.to_uppercase(),
            &format!("{good}0"),
            &good.replace("s1", "v1"),
        ] {
            assert!(bad.parse::<SnapshotId>().is_err(), "{bad}");
        }
        assert!(good.replace("-28t", "-../").parse::<SnapshotId>().is_err());
    }
}
