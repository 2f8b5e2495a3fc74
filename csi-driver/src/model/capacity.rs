//! How much a pool can still promise. `GetCapacity` and `CreateVolume` ask the same functions.
//!
//! A thick volume holds a promise: every write to it succeeds. Blocks that it shares with a snapshot or a clone, and
//! holes, will need space when they are written, so that space is counted as taken. A sum of allocated blocks over all
//! files would count shared blocks twice; the free space of the pool counts them once.

use super::{Pool, Provisioning};

/// Bytes of the filesystem that holds a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All.
    pub total: u64,
    /// Those that can be written.
    pub available: u64,
}

/// What the bytes of one file are made of; they add up to its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Written, and no other file has them.
    pub written: u64,
    /// Taken from the pool, never written.
    pub unwritten: u64,
    /// Shared with another file: the next write takes new space.
    pub shared: u64,
    /// Not taken from the pool.
    pub hole: u64,
}

impl Usage {
    /// What a thick volume may still take from the pool.
    pub fn owed(self) -> u64 {
        self.shared + self.hole
    }

    /// What a thick volume may take after its written blocks have been shared.
    pub fn newly_owed_when_shared(self, unwritten_too: bool) -> u64 {
        self.written + if unwritten_too { self.unwritten } else { 0 }
    }
}

/// What the decisions about space look at, beside the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// Space of the pool's filesystem.
    pub space: Space,
    /// What all thick volumes may still take.
    pub owed: u64,
    /// Virtual bytes of calls that are under way.
    pub in_flight: u64,
}

/// From here on a pool counts as full: no new thin volume, and its health is degraded.
const FULL_PERCENT: u64 = 97;

impl Supply {
    /// Bytes that are free and owed to nobody.
    fn unpromised(self, pool: &Pool) -> u64 {
        let reserve = self.space.total / 100 * u64::from(pool.settings.reserve_percent);
        self.space.available.saturating_sub(reserve).saturating_sub(self.owed).saturating_sub(self.in_flight)
    }

    /// Whether the pool is too full to promise anything thin.
    pub fn is_full(self) -> bool {
        self.space.total / 100 * (100 - FULL_PERCENT) >= self.space.available
    }

    /// The largest volume of this kind that could be made now.
    pub fn available(self, pool: &Pool, provisioning: Provisioning) -> u64 {
        let bytes = match provisioning {
            Provisioning::Thick => self.unpromised(pool),
            Provisioning::Thin if self.is_full() => 0,
            Provisioning::Thin => {
                let ratio = pool.settings.overcommit;
                let scaled = |bytes: u64| (bytes as f64 * ratio) as u64;
                let promised: u64 = pool.volumes.values().map(|volume| volume.size).sum();
                let by_ratio =
                    scaled(self.space.total).saturating_sub(promised).saturating_sub(self.in_flight);
                by_ratio.min(scaled(self.unpromised(pool)))
            }
        };
        bytes - bytes % u64::from(super::size::SECTOR)
    }
}
