//! The annotations through which a Deployment keeps its books on ReplicaSets: upstream's, to the letter.

use trysail_core::Labels;

use crate::views::LAST_APPLIED;

/// Which rollout of the Deployment a ReplicaSet belongs to; on the Deployment, the current one.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of the same ReplicaSet, separated by commas.
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's `spec.replicas` when the ReplicaSet was last sized.
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The same plus the surge.
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// A request to go back to a revision, left over from `extensions/v1beta1`.
pub(super) const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// True for annotations that belong to one object and are not copied to or from ReplicaSets.
pub(super) fn is_own(key: &str) -> bool {
    [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO].contains(&key)
}

/// The revision that `annotations` carry: `None` when absent or not a number.
pub(super) fn revision(annotations: &Labels) -> Option<i64> {
    annotations.get(REVISION)?.parse().ok()
}

/// A count that an annotation carries.
pub(super) fn count(annotations: &Labels, key: &str) -> Option<i32> {
    annotations.get(key)?.parse().ok().filter(|count| *count >= 0)
}
