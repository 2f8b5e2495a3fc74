//! ReplicaSets and ReplicationControllers: woken by themselves and by the pods that are theirs or could be.

use std::sync::Arc;

use trysail_core::{Face, pod::Pod, resource::PODS};
use trysail_sdk::{
    controller::{PlanController, Wiring},
    informer::Scope,
};
use trysail_workloads::{
    replicaset::{ReplicaSetPlanner, observe},
    views::ReplicaSet,
};

use super::{index_owners, is_canary, paced_by_pods, spread_nodes, wake_for_pod, with_nodes};

/// The ReplicaSet controller of a face. `spread`: pods whose template does not say how are spread by default.
pub(crate) fn replica_sets(face: Face, workers: usize, spread: bool) -> PlanController<ReplicaSetPlanner> {
    controller(ReplicaSetPlanner::replica_sets(face), workers, spread)
}

/// The ReplicationController controller of a face.
pub(crate) fn replication_controllers(
    face: Face,
    workers: usize,
    spread: bool,
) -> PlanController<ReplicaSetPlanner> {
    controller(ReplicaSetPlanner::replication_controllers(face), workers, spread)
}

fn controller(planner: ReplicaSetPlanner, workers: usize, spread: bool) -> PlanController<ReplicaSetPlanner> {
    let controller = PlanController::new(planner, move |services| {
        let sets = services.informers.informer::<ReplicaSet>(planner.resource, Scope::all());
        let pods = services.informers.informer::<Pod>(PODS, Scope::all());
        let nodes = spread_nodes(planner.face, spread, &services.informers);
        index_owners(&sets);
        let owners = Arc::clone(sets.store());
        let (set_store, pod_store) = (Arc::clone(sets.store()), Arc::clone(pods.store()));
        let node_store = nodes.as_ref().map(|nodes| Arc::clone(nodes.store()));
        let wiring = Wiring::new(&sets, move |key, context| {
            let snapshot = observe(key, context, &*set_store, &*pod_store)?;
            (!is_canary(&snapshot.set.meta)).then(|| snapshot.spread_over(node_store.as_deref()))
        })
        .watch_events(&pods, move |event, add| {
            wake_for_pod(&owners, event, |set: &ReplicaSet| &set.selector, add);
        });
        with_nodes(wiring, nodes.as_ref())
    });
    controller.workers(workers).queue(paced_by_pods())
}
