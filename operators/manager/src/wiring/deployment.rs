//! Deployments: woken by themselves, by the ReplicaSets that are theirs or could be, and, where old pods must
//! end before new ones begin, by the end of a pod.

use std::sync::Arc;

use trysail_core::{Face, Key, View, pod::Pod, resource::PODS};
use trysail_sdk::{
    controller::{PlanController, Wiring},
    informer::{Event, Scope},
    store::Store,
};
use trysail_workloads::{
    deployment::{DeploymentPlanner, observe},
    views::{Deployment, ReplicaSet, Strategy},
};

use super::{index_owners, is_canary, owner_of, owners_of_child};

/// The Deployment controller of a face.
pub(crate) fn deployments(face: Face, workers: usize) -> PlanController<DeploymentPlanner> {
    let planner = DeploymentPlanner::new(face);
    let controller = PlanController::new(planner, move |services| {
        let deployments = services.informers.informer::<Deployment>(planner.resource, Scope::all());
        let sets = services.informers.informer::<ReplicaSet>(planner.sets, Scope::all());
        let pods = services.informers.informer::<Pod>(PODS, Scope::all());
        index_owners(&deployments);
        index_owners(&sets);
        let owners = Arc::clone(deployments.store());
        let ends = Ends { deployments: Arc::clone(deployments.store()), sets: Arc::clone(sets.store()) };
        let (deployment_store, set_store, pod_store) =
            (Arc::clone(deployments.store()), Arc::clone(sets.store()), Arc::clone(pods.store()));
        Wiring::new(&deployments, move |key, context| {
            let snapshot = observe(key, context, &*deployment_store, &*set_store, &*pod_store)?;
            (!is_canary(&snapshot.deployment.meta)).then_some(snapshot)
        })
        .watch(&sets, move |set: &ReplicaSet| owners_of_child(&owners, &set.meta, |owner| &owner.selector))
        .watch_events(&pods, move |event, add| ends.wake(event, add))
    });
    controller.workers(workers)
}

/// Which Deployments wait for pods to end.
struct Ends {
    deployments: Arc<Store<Deployment>>,
    sets: Arc<Store<ReplicaSet>>,
}

impl Ends {
    fn wake(&self, event: &Event<Pod>, add: &mut dyn FnMut(Key)) {
        let pod = match event {
            Event::Deleted { last } => last,
            Event::Applied { old: Some(old), new } if new.is_terminal() && !old.is_terminal() => new,
            Event::Applied { .. } => return,
        };
        if let Some(key) = self.recreating(pod) {
            add(key);
        }
    }

    fn recreating(&self, pod: &Pod) -> Option<Key> {
        let set = self.sets.get(&owner_of(&self.sets, pod.meta.controller.as_ref()?)?)?;
        let deployment =
            self.deployments.get(&owner_of(&self.deployments, set.meta.controller.as_ref()?)?)?;
        (deployment.strategy == Strategy::Recreate).then(|| deployment.meta.key.clone())
    }
}
