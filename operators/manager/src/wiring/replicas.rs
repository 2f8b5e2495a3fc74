//! ReplicaSets and ReplicationControllers: woken by themselves and by the pods that are theirs or could be.

use std::sync::Arc;

use trysail_core::{Face, Resource, pod::Pod, resource::PODS};
use trysail_sdk::{
    controller::{PlanController, Wiring},
    informer::Scope,
};
use trysail_workloads::{
    replicaset::{ReplicaSetPlanner, observe},
    views::ReplicaSet,
};

use super::{index_owners, is_canary, paced_by_pods, wake_for_pod};

/// The ReplicaSet controller of a face.
pub(crate) fn replica_sets(face: Face, workers: usize) -> PlanController<ReplicaSetPlanner> {
    controller(ReplicaSetPlanner::replica_sets(face), Resource::replica_sets(face), workers)
}

/// The ReplicationController controller of a face.
pub(crate) fn replication_controllers(face: Face, workers: usize) -> PlanController<ReplicaSetPlanner> {
    controller(
        ReplicaSetPlanner::replication_controllers(face),
        Resource::replication_controllers(face),
        workers,
    )
}

fn controller(
    planner: ReplicaSetPlanner,
    resource: Resource,
    workers: usize,
) -> PlanController<ReplicaSetPlanner> {
    let controller = PlanController::new(planner, move |services| {
        let sets = services.informers.informer::<ReplicaSet>(resource, Scope::all());
        let pods = services.informers.informer::<Pod>(PODS, Scope::all());
        index_owners(&sets);
        let owners = Arc::clone(sets.store());
        let (set_store, pod_store) = (Arc::clone(sets.store()), Arc::clone(pods.store()));
        Wiring::new(&sets, move |key, context| {
            let snapshot = observe(key, context, &*set_store, &*pod_store)?;
            (!is_canary(&snapshot.set.meta)).then_some(snapshot)
        })
        .watch_events(&pods, move |event, add| {
            wake_for_pod(&owners, event, |set: &ReplicaSet| &set.selector, add);
        })
    });
    controller.workers(workers).queue(paced_by_pods())
}
