//! How long to wait before a failed list or watch is tried again.

use std::time::Duration;

use tokio::time::Instant;

/// client-go's reflector starts here.
const FIRST: Duration = Duration::from_millis(800);
/// And ends here: an API server that comes back serves us within half a minute.
const LAST: Duration = Duration::from_secs(30);
/// A watch that lived this long was healthy.
const HEALTHY: Duration = Duration::from_secs(60);

/// Exponential, with jitter so that a thousand clients do not come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    started: Instant,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST, started: Instant::now() }
    }

    /// An attempt begins.
    pub(super) fn start(&mut self) {
        self.started = Instant::now();
    }

    /// The attempt succeeded or was healthy for long.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// An attempt failed: how long to wait, at least `server_asks`, at most about `ceiling`.
    pub(super) fn failed(&mut self, server_asks: Option<Duration>, ceiling: Duration) -> Duration {
        if self.started.elapsed() >= HEALTHY {
            self.reset();
        }
        let base = self.next.min(ceiling);
        self.next = (self.next * 2).min(LAST);
        let jittered = base.mul_f64(1.0 + fastrand::f64() * 0.5);
        jittered.max(server_asks.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_doubles_up_to_half_a_minute_and_forgets_after_health() {
        let mut backoff = Backoff::new();
        let mut expected = FIRST;
        for _ in 0..10 {
            backoff.start();
            let wait = backoff.failed(None, LAST);
            assert!(wait >= expected && wait <= expected.mul_f64(1.5), "{wait:?} for {expected:?}");
            expected = (expected * 2).min(LAST);
        }
        backoff.start();
        tokio::time::advance(HEALTHY).await;
        assert!(backoff.failed(None, LAST) <= FIRST.mul_f64(1.5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_servers_wish_counts() {
        assert!(Backoff::new().failed(Some(Duration::from_secs(9)), LAST) >= Duration::from_secs(9));
    }
}
