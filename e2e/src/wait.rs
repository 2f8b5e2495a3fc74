//! Waiting for a state of the API, with a limit and a message that says what was waited for.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How often a state is looked at. Tests that must not miss a moment use [`crate::PodMonitor`] instead.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks until `check` says true; fails after `limit`, or at once when `check` fails.
pub async fn until<F, Fut>(what: &str, limit: Duration, mut check: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if check().await? {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("gave up waiting for {what} after {limit:?}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// As [`until`], but errors of `check` (an API server that restarts, say) are tolerated within the limit.
pub async fn until_despite_errors<F, Fut>(what: &str, limit: Duration, mut check: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    let check = || {
        let answer = check();
        async { answer.await.map(|holds| holds.then_some(())) }
    };
    until_found_despite_errors(what, limit, check).await
}

/// As [`until_despite_errors`]; gives what `check` found. It may be gone by a second look.
pub async fn until_found_despite_errors<T, F, Fut>(what: &str, limit: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let last = match check().await {
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
