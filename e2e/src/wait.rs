//! Waiting for a state of the API, with a limit and a message that says what was waited for.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How often a state is looked at. Tests that must not miss a moment use [`crate::PodMonitor`] instead.
const INTERVAL: Duration = Duration::from_millis(100);

/// What a look may find: `true`, or something.
pub trait Found {
    /// What was waited for.
    type What;
    /// It, when it is there.
    fn found(self) -> Option<Self::What>;
}

impl Found for bool {
    type What = ();
    fn found(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Found for Option<T> {
    type What = T;
    fn found(self) -> Option<T> {
        self
    }
}

/// Looks until `check` finds what is waited for, and gives it: it may be gone by a second look. Errors (an API server
/// that restarts, say) are tolerated within `limit`; the last one is told.
pub async fn until<F, Fut, A>(what: &str, limit: Duration, mut check: F) -> Result<A::What>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<A>>,
    A: Found,
{
    let deadline = Instant::now() + limit;
    loop {
        let last = match check().await.map(Found::found) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!("; last error: {error:#}"),
        };
        if Instant::now() > deadline {
            bail!("gave up waiting for {what} after {limit:?}{last}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
