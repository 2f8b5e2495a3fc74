//! Pods that fail right after they were created (a node that refuses them, say) are not replaced in a hot loop.
//!
//! As long as the whole set failed no more than a few times within minutes, replacements come at once; from
//! then on each round waits twice as long. Failed pods are counted as long as they are in the API, so nothing
//! has to be remembered.

use jiff::{SignedDuration, Timestamp};
use trysail_core::pod::Phase;

use super::Snapshot;

/// Failures of pods that are older than this say nothing about the template.
const RECENT: SignedDuration = SignedDuration::from_mins(5);

/// So often the whole set may fail before replacements are slowed down.
const FREE_ROUNDS: u32 = 3;

/// The longest wait: short enough for nobody to have to restart anything once the cause is gone.
const MAX_WAIT_SECONDS: i64 = 30;

/// When the next replacement may be created; `None` for now.
pub(super) fn hold_until(snapshot: &Snapshot) -> Option<Timestamp> {
    let now = snapshot.context.now;
    let failed = snapshot.pods.iter().filter(|pod| pod.phase == Phase::Failed && !pod.meta.is_terminating());
    let created: Vec<Timestamp> =
        failed.map(|pod| pod.meta.created).filter(|created| now.duration_since(*created) < RECENT).collect();
    let size = usize::try_from(snapshot.set.replicas).unwrap_or(0).max(1);
    let rounds = (created.len() / size) as u32;
    let excess = rounds.checked_sub(FREE_ROUNDS)?;
    let wait = (1i64 << excess.min(10)).min(MAX_WAIT_SECONDS);
    let due = created.into_iter().max()?.checked_add(SignedDuration::from_secs(wait)).ok()?;
    (now < due).then_some(due)
}
