//! Everything a decision about a Job may look at. The last read: nothing is looked up later.

use std::sync::Arc;

use trysail_core::{
    Face, Key, View,
    claim::{Claim, claim},
    plan::Context,
    pod::Pod,
};

use super::{JobPlanner, backoff::Record, batch::Batch, plan, replicas};
use crate::views::Job;

/// What is remembered between two looks at the same Job. Lost on restart, harmlessly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// NonIndexed: the furthest slot of any pod that was ever seen, so that a deleted pod's name is not used again at
    /// once.
    pub high_slot: Option<u32>,
    /// Since when a change of the status waits.
    pub batch: Batch,
    /// Failures since the last success.
    pub backoff: Record,
    /// The generation whose contradictions were told in an event.
    pub told_generation: Option<i64>,
    /// How many pods that can no longer be counted were told in an event.
    pub told_lost: i32,
}

/// The state of the world around one Job.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Job itself.
    pub job: Arc<Job>,
    /// Pods that it controls and selects, in whatever state, by name.
    pub pods: Vec<Arc<Pod>>,
    /// Pods that it controls and does not select any more, by name.
    pub strays: Vec<Arc<Pod>>,
    /// Pods without a controller that match its selector, by name: those that it may adopt, and those it has recorded.
    pub orphans: Vec<Arc<Pod>>,
    /// The pods to create, should any be: names that are free, in the order of use.
    pub names: Vec<Name>,
    /// See [`Memory::high_slot`].
    pub high_slot: Option<u32>,
    /// Time, memory and the last refusal.
    pub context: Context<Memory>,
}

/// The name of a pod to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its completion index, when the Job is Indexed.
    pub index: Option<i32>,
    /// Its name.
    pub name: String,
}

/// Reads the state around `key`; `None` when there is no such object.
pub fn observe<J, P>(face: Face, key: &Key, context: Context<Memory>, jobs: &J, pods: &P) -> Option<Snapshot>
where
    J: View<Job> + ?Sized,
    P: View<Pod> + ?Sized,
{
    let job = jobs.get(key)?;
    let (mut own, mut strays): (Vec<_>, Vec<_>) = pods
        .controlled_by(&job.meta.uid)
        .into_iter()
        .partition(|pod| claim(&job.meta, &job.selector, &pod.meta) == Claim::Keep);
    let mut orphans = if job.is_finished() { Vec::new() } else { pods.orphans(&key.namespace) };
    let is_recorded = |pod: &Pod| {
        let uncounted = job.status.uncounted_terminated_pods.iter();
        let mut uids = uncounted.flat_map(|pods| pods.succeeded.iter().chain(&pods.failed));
        job.selector.matches(&pod.meta.labels) && uids.any(|uid| *uid == pod.meta.uid)
    };
    orphans.retain(|pod| is_recorded(pod) || claim(&job.meta, &job.selector, &pod.meta) == Claim::Adopt);
    // Views hand out their own order; decisions must not depend on it.
    for list in [&mut own, &mut strays, &mut orphans] {
        list.sort_by(|a, b| a.meta.key.name.cmp(&b.meta.key.name));
    }
    let high_slot = replicas::furthest(&job, context.memory.high_slot, &own);
    let names = Vec::new();
    let mut snapshot = Snapshot { job, pods: own, strays, orphans, names, high_slot, context };
    if let Some(missing) = plan::missing(JobPlanner::new(face), &snapshot) {
        let is_taken = |name: &str| pods.get(&Key::new(key.namespace.clone(), name)).is_some();
        snapshot.names = replicas::names(&snapshot, &missing, is_taken);
    }
    Some(snapshot)
}
