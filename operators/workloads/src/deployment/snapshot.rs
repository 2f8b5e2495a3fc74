//! Everything a decision about a Deployment may look at. The last read: nothing is looked up later.

use std::sync::Arc;

use trysail_core::{
    Key, View,
    claim::{Claim, claim},
    plan::Context,
    pod::Pod,
};

use super::new_replica_set;
use crate::{
    StatusPace,
    views::{Deployment, ReplicaSet, Strategy},
};

/// What is remembered between two looks at the same Deployment. Lost on restart, harmlessly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// When the status was last written or held back.
    pub status: StatusPace,
    /// Of which generation something was attempted last: a refusal speaks of that one.
    pub attempted: i64,
}

/// The state of the world around one Deployment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Deployment itself.
    pub deployment: Arc<Deployment>,
    /// ReplicaSets that it controls, and matching ones without a controller; oldest first.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Pods of its ReplicaSets that have not finished, terminating ones included. Only filled for `Recreate`.
    pub pods: Vec<Arc<Pod>>,
    /// How the ReplicaSet of the current template is to be called, and how often the name had to be changed.
    /// `None` when that ReplicaSet exists.
    pub next_name: Option<new_replica_set::Name>,
    /// Time, memory and the last refusal.
    pub context: Context<Memory>,
}

/// Reads the state around `key`; `None` when there is no such object.
pub fn observe<D, S, P>(
    key: &Key,
    context: Context<Memory>,
    deployments: &D,
    sets: &S,
    pods: &P,
) -> Option<Snapshot>
where
    D: View<Deployment> + ?Sized,
    S: View<ReplicaSet> + ?Sized,
    P: View<Pod> + ?Sized,
{
    let deployment = deployments.get(key)?;
    let mut own = sets.controlled_by(&deployment.meta.uid);
    // An empty selector selects nothing here: such a Deployment is told so and left alone.
    if !deployment.selector.is_empty() {
        let mut orphans = sets.orphans(&key.namespace);
        orphans.retain(|set| claim(&deployment.meta, &deployment.selector, &set.meta) == Claim::Adopt);
        own.append(&mut orphans);
    }
    own.sort_by(|a, b| (a.meta.created, &a.meta.key.name).cmp(&(b.meta.created, &b.meta.key.name)));

    let next_name = match new_replica_set::find(&deployment, &own) {
        Some(_) => None,
        None => Some(new_replica_set::name(&deployment, |name| {
            sets.get(&Key::new(key.namespace.clone(), name)).is_some()
        })),
    };
    let mut running = Vec::new();
    if deployment.strategy == Strategy::Recreate {
        running = own.iter().flat_map(|set| pods.controlled_by(&set.meta.uid)).collect();
        // Finished pods hold nothing: they never block a Recreate.
        running.retain(|pod| !pod.is_terminal());
        running.sort_by(|a, b| a.meta.key.name.cmp(&b.meta.key.name));
    }
    Some(Snapshot { deployment, sets: own, pods: running, next_name, context })
}
