//! What there is: pods that run, pods that go, pods that have finished, counted or not.
//!
//! A finished pod is in one of four states, and each transition is one write. With our finalizer, and its uid nowhere:
//! not counted. With the finalizer, and its uid in `status.uncountedTerminatedPods` (or its index in
//! `status.completedIndexes`): recorded. Without the finalizer, and its uid there: about to be counted. Without either:
//! counted. So whatever is interrupted, its state says what is still to be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trysail_core::{
    Uid,
    pod::{JOB_INDEX_FAILURE_COUNT, Phase, Pod},
};

use super::{
    completion_index,
    indexes::Indexes,
    pod_failure_policy::{self, Judgement},
    seen,
};
use crate::views::{Job, UncountedPods};

/// Pods and counts as of this look, before any of its writes.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    /// All pods of the Job, whatever their state, by name.
    pub(super) pods: &'a [Arc<Pod>],
    /// Those that are neither finished nor being deleted.
    pub(super) active: Vec<&'a Arc<Pod>>,
    /// Those of them that are ready.
    pub(super) ready: i32,
    /// Pods that are being deleted and have not ended.
    pub(super) terminating: i32,
    /// Succeeded pods (indexes, when Indexed), counted or not.
    pub(super) succeeded: i32,
    /// Failed pods, counted or not, without those that `podFailurePolicy` ignores.
    pub(super) failed: i32,
    /// `status.completedIndexes`.
    pub(super) completed_before: Indexes,
    /// The same with the indexes that succeeded since.
    pub(super) completed: Indexes,
    /// `status.failedIndexes` with those that failed since; with `backoffLimitPerIndex` only.
    pub(super) failed_indexes: Option<Indexes>,
    /// Per index, the failed pod that its replacement inherits from; with `backoffLimitPerIndex` only.
    pub(super) predecessors: BTreeMap<i32, &'a Arc<Pod>>,
    /// `status.uncountedTerminatedPods` as it is.
    pub(super) uncounted: UncountedPods,
    finalizer: &'static str,
}

impl<'a> Tally<'a> {
    pub(super) fn of(job: &Job, pods: &'a [Arc<Pod>], finalizer: &'static str) -> Self {
        let active: Vec<&'a Arc<Pod>> = pods.iter().filter(|pod| pod.is_active()).collect();
        let mut tally = Self {
            pods,
            ready: count(active.iter().filter(|pod| pod.is_ready()).count()),
            terminating: count(pods.iter().filter(|pod| pod.is_terminating()).count()),
            active,
            succeeded: 0,
            failed: 0,
            completed_before: Indexes::default(),
            completed: Indexes::default(),
            failed_indexes: None,
            predecessors: BTreeMap::new(),
            uncounted: job.status.uncounted_terminated_pods.clone().unwrap_or_default(),
            finalizer,
        };
        tally.count(job);
        if job.is_indexed() {
            tally.count_indexes(job);
        }
        tally
    }

    /// The pod still carries our finalizer.
    pub(super) fn is_tracked(&self, pod: &Pod) -> bool {
        seen::has_finalizer(pod, self.finalizer)
    }

    fn count(&mut self, job: &Job) {
        let recorded: BTreeSet<&Uid> =
            self.uncounted.succeeded.iter().chain(&self.uncounted.failed).collect();
        let fresh = |pod: &&Arc<Pod>| {
            self.is_tracked(pod) && seen::is_countable(pod, job) && !recorded.contains(&pod.meta.uid)
        };
        let (mut succeeded, mut failed) = (self.uncounted.succeeded.len(), self.uncounted.failed.len());
        for pod in self.pods.iter().filter(fresh) {
            if pod.phase == Phase::Succeeded {
                succeeded += 1;
            } else if seen::is_failed(pod, job) && pod_failure_policy::judge(job, pod) != Judgement::Ignore {
                failed += 1;
            }
        }
        self.succeeded = job.status.succeeded.unwrap_or(0).saturating_add(count(succeeded));
        self.failed = job.status.failed.unwrap_or(0).saturating_add(count(failed));
    }

    fn count_indexes(&mut self, job: &Job) {
        let completions = job.completions.unwrap_or(0);
        let parse = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or_default(), completions);
        let tracked = || self.pods.iter().filter(|pod| self.is_tracked(pod));
        let succeeded = tracked().filter(|pod| pod.phase == Phase::Succeeded);
        let succeeded: BTreeSet<i32> = succeeded.filter_map(|pod| seen::valid_index(pod, job)).collect();
        let completed_before = parse(&job.status.completed_indexes);
        let completed = completed_before.with(&Indexes::from(&succeeded));
        let failed_indexes = job.backoff_limit_per_index.map(|limit| {
            let failed = tracked().filter(|pod| fails_index(job, pod, limit));
            let failed: BTreeSet<i32> = failed
                .filter_map(|pod| seen::valid_index(pod, job))
                // The API allows no index to be in both lists; success is the better news.
                .filter(|index| !completed.contains(*index))
                .collect();
            parse(&job.status.failed_indexes).with(&Indexes::from(&failed))
        });
        let active: BTreeSet<i32> = self.active.iter().filter_map(|pod| seen::index(pod)).collect();
        if let Some(failed) = &failed_indexes {
            self.predecessors = completion_index::predecessors(
                job,
                self.pods,
                |pod| seen::has_finalizer(pod, self.finalizer),
                |index| completed.contains(index) || failed.contains(index) || active.contains(&index),
            );
        }
        self.succeeded = completed.total();
        (self.completed_before, self.completed, self.failed_indexes) =
            (completed_before, completed, failed_indexes);
    }
}

/// The pod's failure is the one too many for its index, or one that is enough by itself.
fn fails_index(job: &Job, pod: &Pod, limit: i32) -> bool {
    seen::is_failed(pod, job)
        && match pod_failure_policy::judge(job, pod) {
            Judgement::FailIndex => true,
            Judgement::Ignore => false,
            Judgement::Count | Judgement::FailJob(_) => seen::failures(pod, JOB_INDEX_FAILURE_COUNT) >= limit,
        }
}

pub(super) fn count(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}
