//! A snapshot with what was concluded from it, as the decisions about pods look at it; and what they come to.

use std::sync::Arc;

use jiff::Timestamp;
use trysail_core::{
    Action, Key,
    plan::WaitingOn,
    pod::{Phase, Pod},
    resource::PODS,
};

use super::{Snapshot, StatefulSetPlanner, claim::Fleet, failure::Problem, revisions::Revisions};
use crate::views::{StatefulSet, StatefulSetUpdateStrategy};

/// Everything at hand.
pub(super) struct Scene<'a> {
    pub(super) planner: StatefulSetPlanner,
    pub(super) snapshot: &'a Snapshot,
    pub(super) fleet: &'a Fleet<'a>,
    pub(super) revisions: &'a Revisions<'a>,
}

/// What is to be done about pods and claims.
#[derive(Default)]
pub(super) struct Steps {
    /// Labels, owner references and claims of pods that there are.
    pub(super) repairs: Vec<Action>,
    /// What else, in order.
    pub(super) waves: Vec<Vec<Action>>,
    pub(super) waiting: Vec<WaitingOn>,
    pub(super) problems: Vec<Problem>,
    pub(super) look_again: Option<Timestamp>,
}

impl Steps {
    pub(super) fn wave(&mut self, actions: Vec<Action>) {
        if !actions.is_empty() {
            self.waves.push(actions);
        }
    }

    pub(super) fn requeue_by(&mut self, at: Timestamp) {
        self.look_again = Some(self.look_again.map_or(at, |already| already.min(at)));
    }
}

impl<'a> Scene<'a> {
    pub(super) fn set(&self) -> &'a StatefulSet {
        &self.snapshot.set
    }

    pub(super) fn now(&self) -> Timestamp {
        self.snapshot.context.now
    }

    /// Running and ready, terminating or not: what upstream calls healthy enough to go on.
    pub(super) fn is_ready(pod: &Pod) -> bool {
        pod.phase == Phase::Running && pod.is_ready()
    }

    /// Ready for long enough, terminating or not.
    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        Self::is_ready(pod) && pod.is_available(self.set().min_ready_seconds, self.now())
    }

    /// Serves and stays.
    pub(super) fn serves(&self, pod: &Pod) -> bool {
        self.is_available(pod) && !pod.meta.is_terminating()
    }

    /// So many pods, from the first, keep the old revision; `None` when nobody replaces pods but the user.
    pub(super) fn partition(&self) -> Option<i64> {
        match self.set().update_strategy {
            StatefulSetUpdateStrategy::OnDelete => None,
            StatefulSetUpdateStrategy::RollingUpdate { partition, .. } => Some(partition.into()),
        }
    }

    /// Whether a new pod of that ordinal is of the old revision. `partition` counts from the first ordinal, here as
    /// for replacements.
    pub(super) fn keeps_current(&self, ordinal: i32) -> bool {
        self.partition().is_some_and(|partition| self.fleet.range.index(ordinal) < partition)
    }

    /// A wait for one pod.
    pub(super) fn wait(pod: &Pod, until: &'static str) -> WaitingOn {
        WaitingOn::Object { resource: PODS, key: pod.meta.key.clone(), until }
    }

    /// A key in the set's namespace.
    pub(super) fn key(&self, name: &str) -> Key {
        Key::new(self.set().meta.key.namespace.clone(), name)
    }

    /// Pods in range, highest first.
    pub(super) fn descending(&self) -> impl Iterator<Item = (i32, &'a Arc<Pod>)> {
        self.fleet.members.iter().rev().map(|(ordinal, pod)| (*ordinal, *pod))
    }
}
