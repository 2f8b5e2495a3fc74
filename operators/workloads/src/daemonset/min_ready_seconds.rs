//! `spec.minReadySeconds`: how long a pod must have been ready to count as available.

use jiff::Timestamp;

use super::{fleet::Fleet, fleet::Measure};

/// When the next ready pod becomes available if nothing happens to it.
pub(super) fn next_available(fleet: &Fleet<'_>, measure: Measure<'_>) -> Option<Timestamp> {
    let pods = fleet.places.iter().flat_map(|place| &place.pods);
    let due = pods.filter_map(|pod| pod.available_at(measure.set.min_ready_seconds));
    due.filter(|at| *at > measure.now).min()
}
