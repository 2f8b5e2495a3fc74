//! The annotations through which a Deployment keeps its books on ReplicaSets: upstream's, to the letter,
//! and one of our own.

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

/// On a ReplicaSet whose template was changed on admission: the hash of what was admitted.
pub(super) const ADMITTED_TEMPLATE: &str = "trysail.dev/admitted-template";

/// True for annotations that belong to one object and are not copied to or from ReplicaSets.
pub(super) fn is_own(key: &str) -> bool {
    const OWN: [&str; 7] = [
        LAST_APPLIED,
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        ROLLBACK_TO,
        ADMITTED_TEMPLATE,
    ];
    OWN.contains(&key)
}

/// The revision that `annotations` carry: `None` when absent or not a number.
pub(super) fn revision(annotations: &Labels) -> Option<i64> {
    annotations.get(REVISION)?.parse().ok()
}

/// A count that an annotation carries.
pub(super) fn count(annotations: &Labels, key: &str) -> Option<i32> {
    annotations.get(key)?.parse().ok().filter(|count| *count >= 0)
}
