//! DaemonSets: woken by themselves, by the pods and revisions that are theirs or could be, and by nodes whose change
//! concerns them. A heartbeat concerns nobody.

use std::sync::Arc;

use trysail_core::{
    Face, Key,
    pod::Pod,
    resource::{CONTROLLER_REVISIONS, NODES, PODS},
};
use trysail_sdk::{
    controller::{PlanController, Wiring},
    informer::{Event, Scope},
    store::Store,
};
use trysail_workloads::{
    daemonset::{DaemonSetPlanner, is_affected, observe},
    views::{ControllerRevision, DaemonSet, Node},
};

use super::{index_owners, is_canary, paced_by_pods, wake_for_pod, wake_for_revision};

/// The DaemonSet controller of a face.
pub(crate) fn daemon_sets(face: Face, workers: usize) -> PlanController<DaemonSetPlanner> {
    let planner = DaemonSetPlanner::new(face);
    let controller = PlanController::new(planner, move |services| {
        let informers = &services.informers;
        let sets = informers.informer::<DaemonSet>(planner.resource, Scope::all());
        let pods = informers.informer::<Pod>(PODS, Scope::all());
        let nodes = informers.informer::<Node>(NODES, Scope::all());
        let revisions = informers.informer::<ControllerRevision>(CONTROLLER_REVISIONS, Scope::all());
        index_owners(&sets);
        let owners = || Arc::clone(sets.store());
        let (of_pods, of_nodes, of_revisions, set_store) = (owners(), owners(), owners(), owners());
        let (pod_store, node_store, revision_store) =
            (Arc::clone(pods.store()), Arc::clone(nodes.store()), Arc::clone(revisions.store()));
        Wiring::new(&sets, move |key, context| {
            let snapshot =
                observe(planner, key, context, &*set_store, &*pod_store, &*node_store, &*revision_store)?;
            (!is_canary(&snapshot.set.meta)).then_some(snapshot)
        })
        .watch_events(&pods, move |event, add| {
            wake_for_pod(&of_pods, event, |set: &DaemonSet| &set.selector, add);
        })
        .watch_events(&nodes, move |event, add| wake_for_node(&of_nodes, event, add))
        .watch_events(&revisions, move |event, add| {
            wake_for_revision(&of_revisions, event, |set: &DaemonSet| &set.selector, add);
        })
    });
    controller.workers(workers).queue(paced_by_pods())
}

fn wake_for_node(sets: &Store<DaemonSet>, event: &Event<Node>, add: &mut dyn FnMut(Key)) {
    let (old, new) = match event {
        Event::Applied { old, new } => (old.as_deref(), Some(&**new)),
        Event::Deleted { last } => (Some(&**last), None),
    };
    let same =
        old.zip(new).is_some_and(|(old, new)| old.facts == new.facts && old.is_ready() == new.is_ready());
    if same {
        return;
    }
    let all = sets.all();
    let affected = all.iter().filter(|set| is_affected(&set.placement, old, new));
    affected.for_each(|set| add(set.meta.key.clone()));
}
