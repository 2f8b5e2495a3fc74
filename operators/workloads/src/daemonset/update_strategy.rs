//! `spec.updateStrategy`: which pods of an earlier template are replaced now.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use trysail_core::pod::Pod;

use super::{
    fleet::{Fleet, Measure, Place},
    max_surge, max_unavailable,
    per_node::Steps,
};
use crate::views::UpdateStrategy;

/// A node that is not Ready is given so long to act on what was asked of it. After that, what is missing there is
/// the node's doing, not the update's.
const SILENT_NODE: SignedDuration = SignedDuration::from_secs(60);

/// The steps of an update. Only asked for when all nodes are in order otherwise.
pub(super) fn update<'a>(fleet: &Fleet<'a>, measure: Measure<'_>) -> Steps<'a> {
    let UpdateStrategy::RollingUpdate { max_unavailable, max_surge } = measure.set.update_strategy else {
        return Steps::default();
    };
    let surge = max_surge.of_rounding_up(fleet.desired).max(0);
    let unavailable = max_unavailable.of_rounding_up(fleet.desired).max(0);
    if surge > 0 {
        max_surge::update(fleet, measure, surge)
    } else {
        // Nothing at all may be asked for by mistake only: then it is one at a time.
        max_unavailable::update(fleet, measure, unavailable.max(1))
    }
}

/// The pods of one node that are not being deleted, if there is at most one of each kind.
pub(super) struct Pair<'a> {
    pub(super) new: Option<&'a Arc<Pod>>,
    pub(super) old: Option<&'a Arc<Pod>>,
}

/// `None` for a node with two of a kind, which is put in order first.
pub(super) fn pair<'a>(place: &Place<'a>, measure: Measure<'_>) -> Option<Pair<'a>> {
    let mut pair = Pair { new: None, old: None };
    for pod in place.living() {
        let side = if measure.is_current(pod) { &mut pair.new } else { &mut pair.old };
        if side.replace(pod).is_some() {
            return None;
        }
    }
    Some(pair)
}

/// How much it costs to replace an old pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cost {
    /// It serves nobody, and its node is well: nothing is lost.
    Nothing,
    /// It is ready, but not for long enough. It may well serve: upstream counts it for nothing.
    Young,
    /// It is available.
    Available,
    /// It is not ready because its node is not: it will be back with its node.
    Away,
}

pub(super) fn cost(place: &Place<'_>, old: &Pod, measure: Measure<'_>) -> Cost {
    if measure.is_available(old) {
        Cost::Available
    } else if old.is_ready() {
        Cost::Young
    } else if place.node.is_ready() {
        Cost::Nothing
    } else {
        Cost::Away
    }
}

/// Until when a pod that came to a node which was down already is still given its chance there. It was put there by
/// an earlier update, so that what is missing is not the node's doing alone.
pub(super) fn newcomer_until(place: &Place<'_>, pod: &Pod) -> Option<Timestamp> {
    let since = place.node.not_ready_since?;
    if pod.meta.created < since {
        return None;
    }
    pod.meta.created.checked_add(SILENT_NODE).ok()
}

/// Since when what is missing on a node is the node's own doing: it was not Ready before anything of the update
/// began to live there, and does not act on what was asked of it. `None` when it is not, and the end of the wait
/// while that cannot be told yet.
pub(super) fn silent_at(place: &Place<'_>, measure: Measure<'_>) -> Option<Timestamp> {
    let since = place.node.not_ready_since?;
    let mut due = None;
    for pod in &place.pods {
        let asked = match pod.meta.deleted {
            Some(deleted) => deleted,
            None if !measure.is_current(pod) => continue,
            None if pod.meta.created >= since => pod.meta.created,
            // It lived here before the node fell silent: it may be the cause.
            None => return None,
        };
        due = due.max(asked.checked_add(SILENT_NODE).ok());
    }
    due
}
