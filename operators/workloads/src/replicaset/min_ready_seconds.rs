//! `spec.minReadySeconds`: a pod that has been ready for so long is available.

use std::sync::Arc;

use jiff::Timestamp;
use trysail_core::pod::Pod;

use super::Snapshot;

/// The earliest moment at which a further pod becomes available, if none changes until then. Every such moment
/// is a scheduled look: no event would bring one.
pub(super) fn next_available(snapshot: &Snapshot, active: &[&Arc<Pod>]) -> Option<Timestamp> {
    let due = active.iter().filter_map(|pod| pod.available_at(snapshot.set.min_ready_seconds));
    due.filter(|at| *at > snapshot.context.now).min()
}
