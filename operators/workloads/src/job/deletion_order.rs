//! Which pods go first when there are too many: those that have come least far.

use std::{cmp::Reverse, sync::Arc};

use trysail_core::pod::{Phase, Pod};

/// Sorted so that the first goes first: not scheduled, not running, not ready, ready for the shortest time, restarted
/// most often, youngest. (Job's order is upstream's older one: it knows no deletion cost.)
pub(super) fn sort(pods: &mut [&Arc<Pod>]) {
    pods.sort_by(|a, b| key(a).cmp(&key(b)));
}

fn key(pod: &Pod) -> impl Ord + '_ {
    let phase = match pod.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    };
    (
        (!pod.node.is_empty(), phase, pod.is_ready()),
        Reverse(pod.ready_since),
        (Reverse(pod.restarts), Reverse(pod.sidecar_restarts)),
        Reverse(pod.meta.created),
        &pod.meta.key.name,
    )
}
