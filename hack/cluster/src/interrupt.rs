//! Ctrl-C and SIGTERM as a question that long work asks: "shall I go on?".
//!
//! The signal only sets a flag. Whoever waits looks at it, fails with [`Interrupted`], and the ordinary error path
//! cleans up: there is one way to take a cluster down, whatever the cause.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The error of work that was told to stop.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// From now on SIGINT, SIGTERM and SIGHUP set the flag and no longer end this process.
pub(crate) fn catch_signals() -> Result<()> {
    let flag = FLAG.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot catch signals")?;
    }
    Ok(())
}

/// Fails once somebody asked us to stop.
pub(crate) fn check() -> Result<(), Interrupted> {
    let stop = FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed));
    if stop { Err(Interrupted) } else { Ok(()) }
}

/// Forgets an interrupt, so that the clean-up it led to can itself wait for things.
pub(crate) fn clear() {
    if let Some(flag) = FLAG.get() {
        flag.store(false, Ordering::Relaxed);
    }
}
