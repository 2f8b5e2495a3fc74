//! StatefulSets: woken by themselves, by the pods and revisions that are theirs or could be, by the end of a pod that had
//! the name of one of theirs, and by claims whose names say that they are theirs: a pod may wait for one to be gone.

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
    statefulset::{StatefulSetPlanner, observe, ordinal_of, possible_owners},
    views::{ControllerRevision, PersistentVolumeClaim, StatefulSet},
};

use super::{
    index_owners, is_canary, paced_by_pods, spread_nodes, wake_for_pod, wake_for_revision, with_nodes,
};

/// The StatefulSet controller of a face. `spread`: pods whose template does not say how are spread by default.
pub(crate) fn stateful_sets(face: Face, workers: usize, spread: bool) -> PlanController<StatefulSetPlanner> {
    let planner = StatefulSetPlanner::new(face);
    let controller = PlanController::new(planner, move |services| {
        let informers = &services.informers;
        let sets = informers.informer::<StatefulSet>(planner.resource, Scope::all());
        let pods = informers.informer::<Pod>(PODS, Scope::all());
        let claims = informers.informer::<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, Scope::all());
        let revisions = informers.informer::<ControllerRevision>(CONTROLLER_REVISIONS, Scope::all());
        let nodes = spread_nodes(face, spread, informers);
        index_owners(&sets);
        let owners = || Arc::clone(sets.store());
        let (of_pods, of_claims, of_revisions, set_store) = (owners(), owners(), owners(), owners());
        let (pod_store, claim_store, revision_store) =
            (Arc::clone(pods.store()), Arc::clone(claims.store()), Arc::clone(revisions.store()));
        let node_store = nodes.as_ref().map(|nodes| Arc::clone(nodes.store()));
        let wiring = Wiring::new(&sets, move |key, context| {
            let views = (&*set_store, &*pod_store, &*claim_store, &*revision_store);
            let snapshot = observe(planner, key, context, views)?;
            (!is_canary(&snapshot.set.meta)).then(|| snapshot.spread_over(node_store.as_deref()))
        })
        .watch_events(&pods, move |event, add| {
            wake_for_pod(&of_pods, event, |set: &StatefulSet| &set.selector, add);
            wake_for_namesake(&*of_pods, event, add);
        })
        .watch_events(&claims, move |event, add| wake_for_claim(&of_claims, event, add))
        .watch_events(&revisions, move |event, add| {
            wake_for_revision(&of_revisions, event, |set: &StatefulSet| &set.selector, add);
        });
        with_nodes(wiring, nodes.as_ref())
    });
    controller.workers(workers).queue(paced_by_pods())
}

/// A pod that was not the set's had the name of one that it misses: now there is room. (Its own pods wake it anyway.)
fn wake_for_namesake<S>(sets: &S, event: &Event<Pod>, add: &mut dyn FnMut(Key))
where
    S: View<StatefulSet> + ?Sized,
{
    let Event::Deleted { last } = event else { return };
    let Key { namespace, name } = &last.meta.key;
    let Some((set, _)) = name.rsplit_once('-').filter(|(set, _)| ordinal_of(name, set).is_some()) else {
        return;
    };
    let key = Key::new(namespace.clone(), set);
    if sets.get(&key).is_some_and(|set| last.meta.controller.as_ref() != Some(&set.meta.uid)) {
        add(key);
    }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use trysail_core::Uid;

    use super::*;

    /// The set `db` and nothing else.
    struct OneSet(Arc<StatefulSet>);

    impl View<StatefulSet> for OneSet {
        fn get(&self, key: &Key) -> Option<Arc<StatefulSet>> {
            (*key == self.0.meta.key).then(|| Arc::clone(&self.0))
        }
        fn controlled_by(&self, _: &Uid) -> Vec<Arc<StatefulSet>> {
            Vec::new()
        }
        fn orphans(&self, _: &str) -> Vec<Arc<StatefulSet>> {
            Vec::new()
        }
        fn in_namespace(&self, _: &str) -> Vec<Arc<StatefulSet>> {
            Vec::new()
        }
    }

    fn woken(name: &str, owners: &Value, is_gone: bool) -> Vec<String> {
        let set = json!({"metadata": {"name": "db", "namespace": "shop", "uid": "uid-db"}, "spec": {"template": {}}});
        let sets = OneSet(Arc::new(serde_json::from_str(&set.to_string()).unwrap()));
        let pod =
            json!({"metadata": {"name": name, "namespace": "shop", "ownerReferences": owners}}).to_string();
        let pod: Arc<Pod> = Arc::new(serde_json::from_str(&pod).unwrap());
        let event =
            if is_gone { Event::Deleted { last: pod } } else { Event::Applied { old: None, new: pod } };
        let mut woken = Vec::new();
        wake_for_namesake(&sets, &event, &mut |key| woken.push(key.to_string()));
        woken
    }

    /// Nothing else would: neither its labels nor an owner reference lead to the set.
    #[test]
    fn whoever_waits_for_a_name_hears_when_it_is_free() {
        let another = json!([{"uid": "uid-another", "controller": true}]);
        assert_eq!(woken("db-1", &Value::Null, true), ["shop/db"]);
        assert_eq!(woken("db-1", &another, true), ["shop/db"]);
        for name in ["db-01", "db-x", "db", "web-1", "my-db-1"] {
            assert_eq!(woken(name, &Value::Null, true), [""; 0], "{name}");
        }
        assert_eq!(woken("db-1", &Value::Null, false), [""; 0], "it is still there");
        let own = json!([{"uid": "uid-db", "controller": true}]);
        assert_eq!(woken("db-1", &own, true), [""; 0], "told by its owner reference");
    }
}
