//! ReplicaSets and ReplicationControllers: woken by themselves and by the pods that are theirs or could be.

use trysail_core::{Face, Key, Resource, pod::Pod, resource::PODS};
use trysail_sdk::{
    controller::{PlanController, Wiring},
    informer::{Event, Scope},
    store::Store,
};
use trysail_workloads::{
    replicaset::{ReplicaSetPlanner, observe},
    views::ReplicaSet,
};

use super::{index_owners, owners_of_child};

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
        let owners = std::sync::Arc::clone(sets.store());
        let (set_store, pod_store) =
            (std::sync::Arc::clone(sets.store()), std::sync::Arc::clone(pods.store()));
        Wiring::new(&sets, move |key, context| observe(key, context, &*set_store, &*pod_store))
            .watch_events(&pods, move |event, add| wake(&owners, event, add))
    });
    controller.workers(workers)
}

/// A pod that changed in nothing that is read wakes nobody; one that changed hands wakes both hands.
fn wake(sets: &Store<ReplicaSet>, event: &Event<Pod>, add: &mut dyn FnMut(Key)) {
    let keys = |pod: &Pod| owners_of_child(sets, &pod.meta, |set| &set.selector);
    match event {
        Event::Applied { old: Some(old), new } => {
            if same_but_for_version(old, new) {
                return;
            }
            let moved = old.meta.controller != new.meta.controller || old.meta.labels != new.meta.labels;
            let now = keys(new);
            let before = if moved { keys(old) } else { Vec::new() };
            before.into_iter().filter(|key| !now.contains(key)).for_each(&mut *add);
            now.into_iter().for_each(add);
        }
        Event::Applied { old: None, new } => keys(new).into_iter().for_each(add),
        Event::Deleted { last } => keys(last).into_iter().for_each(add),
    }
}

fn same_but_for_version(old: &Pod, new: &Pod) -> bool {
    let mut old = old.clone();
    old.meta.resource_version = new.meta.resource_version;
    old.meta.generation = new.meta.generation;
    old == *new
}
