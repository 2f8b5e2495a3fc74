//! StatefulSets: woken by themselves, by the pods and revisions that are theirs or could be, and by claims whose names
//! say that they are theirs: a pod may wait for one to be gone.

use std::sync::Arc;

use trysail_core::{
    Face, Key, View,
    pod::Pod,
    resource::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS},
};
use trysail_sdk::{
    controller::{PlanController, Wiring},
    informer::{Event, Scope},
    store::Store,
};
use trysail_workloads::{
    statefulset::{StatefulSetPlanner, observe, possible_owners},
    views::{ControllerRevision, PersistentVolumeClaim, StatefulSet},
};

use super::{index_owners, is_canary, paced_by_pods, wake_for_pod, wake_for_revision};

/// The StatefulSet controller of a face.
pub(crate) fn stateful_sets(face: Face, workers: usize) -> PlanController<StatefulSetPlanner> {
    let planner = StatefulSetPlanner::new(face);
    let controller = PlanController::new(planner, move |services| {
        let informers = &services.informers;
        let sets = informers.informer::<StatefulSet>(planner.resource, Scope::all());
        let pods = informers.informer::<Pod>(PODS, Scope::all());
        let claims = informers.informer::<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, Scope::all());
        let revisions = informers.informer::<ControllerRevision>(CONTROLLER_REVISIONS, Scope::all());
        index_owners(&sets);
        let owners = || Arc::clone(sets.store());
        let (of_pods, of_claims, of_revisions, set_store) = (owners(), owners(), owners(), owners());
        let (pod_store, claim_store, revision_store) =
            (Arc::clone(pods.store()), Arc::clone(claims.store()), Arc::clone(revisions.store()));
        Wiring::new(&sets, move |key, context| {
            let views = (&*set_store, &*pod_store, &*claim_store, &*revision_store);
            let snapshot = observe(planner, key, context, views)?;
            (!is_canary(&snapshot.set.meta)).then_some(snapshot)
        })
        .watch_events(&pods, move |event, add| {
            wake_for_pod(&of_pods, event, |set: &StatefulSet| &set.selector, add);
        })
        .watch_events(&claims, move |event, add| wake_for_claim(&of_claims, event, add))
        .watch_events(&revisions, move |event, add| {
            wake_for_revision(&of_revisions, event, |set: &StatefulSet| &set.selector, add);
        })
    });
    controller.workers(workers).queue(paced_by_pods())
}

/// A claim carries no owner reference under most policies, so its name tells whose it is. That it was bound wakes
/// nobody.
fn wake_for_claim(sets: &Store<StatefulSet>, event: &Event<PersistentVolumeClaim>, add: &mut dyn FnMut(Key)) {
    let claim = match event {
        Event::Applied { old: Some(old), new } if same_but_for_version(old, new) => return,
        Event::Applied { new, .. } => new,
        Event::Deleted { last } => last,
    };
    let Key { namespace, name } = &claim.meta.key;
    let keys = possible_owners(name).map(|owner| Key::new(namespace.clone(), owner));
    keys.filter(|key| sets.get(key).is_some()).for_each(add);
}

fn same_but_for_version(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim) -> bool {
    let mut old = old.clone();
    old.meta.resource_version = new.meta.resource_version;
    old == *new
}
