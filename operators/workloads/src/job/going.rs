//! Which active pods go in this look, and what that means for them.
//!
//! A pod that is too many, or runs on when the Job has succeeded, counts neither way: its finalizer goes first. A pod
//! that runs when the Job has failed has failed with it: it is deleted with its finalizer on, recorded as failed, and
//! let go at the next look.

use std::sync::Arc;

use trysail_core::pod::Pod;

use super::{
    BURST, Snapshot,
    outcome::{self, Outcome},
    parallelism::Resize,
    plan::Look,
    refusal::{self, DELETE},
    tally::count,
    tracking::REMOVE_FINALIZER,
};

#[derive(Debug)]
pub(super) struct Going<'a> {
    /// How the Job ends, if it is decided.
    pub(super) outcome: Option<Outcome>,
    /// Pods that count neither way.
    pub(super) dropped: Vec<&'a Arc<Pod>>,
    /// Pods that have failed with their Job.
    pub(super) failed: Vec<&'a Arc<Pod>>,
    /// How many active pods there are afterwards.
    pub(super) remaining: i32,
}

impl<'a> Going<'a> {
    pub(super) fn of(snapshot: &Snapshot, look: &Look<'a>, created: i32) -> Self {
        let tally = &look.tally;
        let surplus = if let Resize::Delete(pods) = &look.resize { pods.clone() } else { Vec::new() };
        let remaining = count(tally.active.len()) - count(surplus.len()) + created;
        let completed = || outcome::completed(&snapshot.job, tally, remaining).filter(|_| look.is_servable);
        let outcome = look.decided.clone().or_else(completed);
        let mut going = Self { outcome, dropped: surplus, failed: Vec::new(), remaining };
        // What is decided before anything is resized finds its pods running; what completes finds none.
        let Some(decided) = look.decided.as_ref() else { return going };
        let bars = |reason| refusal::bars(snapshot, reason).is_some();
        let ending = tally.active.iter().take(BURST).copied();
        if bars(DELETE) {
            return going;
        } else if !decided.is_success {
            going.failed = ending.collect();
        } else if !bars(REMOVE_FINALIZER) {
            going.dropped = ending.collect();
        }
        going.remaining = count(tally.active.len() - going.pods().count());
        going
    }

    /// All of them.
    pub(super) fn pods(&self) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.dropped.iter().chain(&self.failed).copied()
    }
}
