//! Pods that fail right after they were made (a node that refuses them, say) are not replaced in a hot loop.
//!
//! A pod that failed is deleted, so that its ordinal is free for the next. Three in a row go at once; from then on
//! each stays twice as long as the one before, where everybody can read why it failed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use trysail_core::{Uid, pod::Pod};

use super::{ordinals::ordinal_of, scene::Scene};

/// So often an ordinal may fail before its pods are replaced more slowly.
const FREE: u32 = 3;
/// The longest wait: short enough for nobody to have to delete anything once the cause is gone.
const MAX_WAIT_SECONDS: i64 = 30;
/// A pod that lived that long before it failed starts the count anew.
const LONG_LIFE: SignedDuration = SignedDuration::from_mins(5);

/// How often in a row the pods of one ordinal failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How often.
    pub count: u32,
    /// The pod that failed last.
    pub last: Uid,
    /// When that was seen.
    pub at: Timestamp,
}

/// When a failed pod may be deleted; `None` for now.
pub(super) fn hold_until(scene: &Scene<'_>, ordinal: i32) -> Option<Timestamp> {
    let failures = remembered(scene).remove(&ordinal)?;
    let excess = failures.count.checked_sub(FREE + 1)?;
    let wait = (1i64 << excess.min(10)).min(MAX_WAIT_SECONDS);
    let due = failures.at.checked_add(SignedDuration::from_secs(wait)).ok()?;
    (scene.now() < due).then_some(due)
}

/// The counts after this look: one more for every pod that is newly found failed, none for those that serve.
pub(super) fn remembered(scene: &Scene<'_>) -> BTreeMap<i32, Failures> {
    let now = scene.now();
    let mut failures = scene.snapshot.context.memory.failures.clone();
    failures.retain(|ordinal, held| {
        let serves = scene.fleet.members.get(ordinal).is_some_and(|pod| scene.is_available(pod));
        let is_recent = now.duration_since(held.at) < LONG_LIFE && held.at <= now;
        !serves && is_recent && scene.fleet.range.contains(*ordinal)
    });
    for pod in scene.fleet.members.values().filter(|pod| pod.is_terminal()) {
        let Some(ordinal) = ordinal_of(&pod.meta.key.name, &scene.set().meta.key.name) else { continue };
        let before = failures.get(&ordinal);
        if before.is_some_and(|held| held.last == pod.meta.uid) || has_lived(pod, now) {
            continue;
        }
        let count = before.map_or(0, |held| held.count).saturating_add(1);
        failures.insert(ordinal, Failures { count, last: pod.meta.uid.clone(), at: now });
    }
    failures
}

fn has_lived(pod: &Pod, now: Timestamp) -> bool {
    now.duration_since(pod.meta.created) >= LONG_LIFE
}
