//! What the controllers of StatefulSets, DaemonSets and Jobs read of a pod beyond what all of them do. A cluster
//! has far more pods that are none of theirs, so it is kept only for those that carry a mark of these kinds.

use jiff::Timestamp;

use crate::{Labels, Symbol, meta::JobReference};

/// The label that names the revision a pod was made from: pods of StatefulSets and DaemonSets have it.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";
/// The label that names the uid of the Job.
pub const JOB_CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The same from before Kubernetes 1.27; both are set to this day.
pub const LEGACY_JOB_CONTROLLER_UID: &str = "controller-uid";
/// The finalizer that keeps a finished pod until its Job has counted it.
pub const JOB_TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Its ending, for the finalizers of either face.
const TRACKING_SUFFIX: &str = "/job-tracking";

/// The index of a pod of an Indexed Job.
pub const JOB_COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index failed before this pod, where `backoffLimitPerIndex` is set.
pub const JOB_INDEX_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// How many of its failures the pod failure policy ignored.
pub const JOB_INDEX_IGNORED_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Stands in for the finalizer of our own kind on a pod that was left to itself before it was counted.
pub const JOB_UNCOUNTED: &str = "batch.trysail.dev/uncounted";
/// When the CronJob's schedule asked for the Job.
pub const CRON_JOB_SCHEDULED_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// See [`Pod::details`](crate::pod::Pod::details).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodDetails {
    /// [`JOB_COMPLETION_INDEX`], [`JOB_INDEX_FAILURE_COUNT`], [`JOB_INDEX_IGNORED_FAILURE_COUNT`], [`JOB_UNCOUNTED`]
    /// and [`CRON_JOB_SCHEDULED_TIMESTAMP`], where set; no others.
    pub annotations: Labels,
    /// `metadata.finalizers`.
    pub finalizers: Vec<Symbol>,
    /// The Job that controls it.
    pub job: Option<JobReference>,
    /// `metadata.deletionGracePeriodSeconds`; 0 when absent.
    pub grace_seconds: i64,
    /// `spec.hostname`.
    pub hostname: Symbol,
    /// `spec.subdomain`.
    pub subdomain: Symbol,
    /// Volume and claim name of each volume that is a PersistentVolumeClaim, in order.
    pub claims: Vec<(Symbol, Symbol)>,
    /// The one node that the required node affinity names by a field; empty when there is none.
    pub target_node: Symbol,
    /// `status.reason`, e.g. `Evicted`.
    pub reason: Symbol,
    /// `status.conditions`.
    pub conditions: Vec<PodCondition>,
    /// Ordinary containers, then init containers.
    pub containers: Vec<ContainerState>,
    /// The sum of the restart counts of all of them.
    pub total_restarts: i32,
    /// `status.startTime`: when the kubelet saw the pod.
    pub start_time: Option<Timestamp>,
}

impl PodDetails {
    /// The condition of that type.
    pub fn condition(&self, kind: &str) -> Option<&PodCondition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// A finalizer by which a Job counts the pod.
    pub fn is_tracked(&self) -> bool {
        self.finalizers.iter().any(|name| name.ends_with(TRACKING_SUFFIX))
    }
}

/// One of `status.conditions`.
#[derive(Clone, Debug, PartialEq)]
pub struct PodCondition {
    /// `type`.
    pub kind: Symbol,
    /// `True`, `False` or `Unknown`.
    pub status: Symbol,
    /// One word.
    pub reason: Symbol,
    /// For people.
    pub message: Box<str>,
    /// Since when the status is what it is.
    pub last_transition: Option<Timestamp>,
}

impl PodCondition {
    /// Its status is True.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// One of `status.containerStatuses` or `status.initContainerStatuses`.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerState {
    /// The container's name.
    pub name: Symbol,
    /// An init container.
    pub init: bool,
    /// A restartable init container.
    pub sidecar: bool,
    /// `state.terminated`.
    pub terminated: Option<Terminated>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Terminated {
    /// 0 when it ended well.
    pub exit_code: i32,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// True when the marks of a pod say that its details may be asked for.
pub(super) fn are_kept(labels: &Labels, finalizers: &[Symbol], job: Option<&JobReference>) -> bool {
    job.is_some()
        || [CONTROLLER_REVISION_HASH, JOB_CONTROLLER_UID, LEGACY_JOB_CONTROLLER_UID]
            .into_iter()
            .any(|key| labels.contains_key(key))
        || finalizers.iter().any(|name| name.ends_with(TRACKING_SUFFIX))
}
