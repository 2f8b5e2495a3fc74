//! The leadership fence: until when writes may leave this process.
//!
//! Decided here: whether a write that is about to leave may. Not decided here: until when; that is the
//! election's business, which moves the fence with every renewal of its lease.

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::time::Instant;

/// Instants are kept as nanoseconds since this one, so that moving the fence is one atomic store.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

const CLOSED: u64 = 0;
const ALWAYS: u64 = u64::MAX;

/// A cheap handle to one fence; clones move and check the same one.
#[derive(Clone)]
pub struct Fence(Arc<AtomicU64>);

impl Fence {
    /// A fence that lets nothing through until it is opened.
    pub fn closed() -> Self {
        LazyLock::force(&EPOCH);
        Self(Arc::new(AtomicU64::new(CLOSED)))
    }

    /// A fence for programs without election.
    pub fn always_open() -> Self {
        Self(Arc::new(AtomicU64::new(ALWAYS)))
    }

    /// Lets writes leave before `instant`. An earlier instant than the one in force closes it sooner.
    pub fn open_until(&self, instant: Instant) {
        let nanos = instant.saturating_duration_since(*EPOCH).as_nanos();
        // 584 years of uptime fit; ALWAYS stays reserved.
        let nanos = u64::try_from(nanos).unwrap_or(ALWAYS - 1).min(ALWAYS - 1);
        self.0.store(nanos, Ordering::Release);
    }

    /// Lets nothing through from now on.
    pub fn close(&self) {
        self.0.store(CLOSED, Ordering::Release);
    }

    /// True when a write may leave now.
    pub fn is_open(&self) -> bool {
        match self.0.load(Ordering::Acquire) {
            CLOSED => false,
            ALWAYS => true,
            until => Instant::now().saturating_duration_since(*EPOCH).as_nanos() < u128::from(until),
        }
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({})", if self.is_open() { "open" } else { "closed" })
    }
}

/// A write was stopped before it left: this process no longer leads, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process does not hold the lease, so its writes are held back")]
pub struct FenceClosed;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_closes_by_itself_and_moves_both_ways() {
        let fence = Fence::closed();
        assert!(!fence.is_open());
        tokio::time::advance(Duration::from_secs(1)).await;
        fence.open_until(Instant::now() + Duration::from_secs(6));
        let other_handle = fence.clone();
        assert!(other_handle.is_open());
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!other_handle.is_open());
        fence.open_until(Instant::now() + Duration::from_secs(6));
        assert!(other_handle.is_open());
        fence.close();
        assert!(!other_handle.is_open());
        assert!(Fence::always_open().is_open());
    }
}
