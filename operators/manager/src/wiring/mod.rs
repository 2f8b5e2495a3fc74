//! Which watches wake which keys. Nothing is decided here, and nothing is written.

pub(crate) mod cronjob;
pub(crate) mod daemonset;
pub(crate) mod deployment;
pub(crate) mod job;
pub(crate) mod replicas;
pub(crate) mod statefulset;

use std::time::Duration;

use trysail_core::{
    Face, Key, Meta, Object, Selector, Symbol, Uid, View, plan::Planner, pod::Pod, resource::NODES,
};
use trysail_sdk::{
    controller::Wiring,
    informer::{Event, Handle, Informers, Scope},
    queue::QueueConfig,
    store::Store,
};
use trysail_workloads::views::{ControllerRevision, Node};

use crate::native_check::CANARY;

/// For controllers that are woken by pods, which change by the hundred at a time, and whose looks go through all
/// pods of an owner: the first change is looked at at once, what follows within this time in one go. Each look may
/// end in a status write, and each of those wakes others: at 20 ms, a stream of changes cost a quarter more writes.
fn paced_by_pods() -> QueueConfig {
    QueueConfig { pace: Duration::from_millis(100), ..QueueConfig::default() }
}

/// The nodes over which a controller spreads pods where a template does not say how. The scheduler spreads those of
/// native kinds by itself, and asking for nodes would take a permission that nothing else there needs.
fn spread_nodes(face: Face, is_wanted: bool, informers: &Informers) -> Option<Handle<Node>> {
    (is_wanted && face == Face::Crd).then(|| informers.informer::<Node>(NODES, Scope::all()))
}

/// Waits for those nodes before the first look; a node wakes nobody.
fn with_nodes<P: Planner>(wiring: Wiring<P>, nodes: Option<&Handle<Node>>) -> Wiring<P> {
    nodes.into_iter().fold(wiring, |wiring, nodes| wiring.watch_events(nodes, |_, _| {}))
}

/// The index that finds an owner by the uid in its child's owner reference.
const BY_UID: &str = "uid";

/// Files the owners of this informer by uid.
fn index_owners<T: Object>(owners: &Handle<T>) {
    owners.store().index_by(BY_UID, |owner| vec![Symbol::from(owner.uid().to_string())]);
}

/// Key of the owner with that uid.
fn owner_of<T: Object>(owners: &Store<T>, uid: &Uid) -> Option<Key> {
    owners.by_index(BY_UID, &uid.to_string()).first().map(|owner| owner.key())
}

/// Keys that care about a child: its controller, or, for an orphan, everybody whose selector matches it.
fn owners_of_child<T: Object>(
    owners: &Store<T>,
    child: &Meta,
    selector: impl Fn(&T) -> &Selector,
) -> Vec<Key> {
    if let Some(controller) = &child.controller {
        return owner_of(owners, controller).into_iter().collect();
    }
    let candidates = owners.in_namespace(&child.key.namespace);
    let matching = candidates.iter().filter(|owner| {
        let selector = selector(owner);
        !selector.is_empty() && selector.matches(&child.labels)
    });
    matching.map(|owner| owner.key()).collect()
}

/// Somebody's probe for other controllers: ours keep away from it.
fn is_canary(meta: &Meta) -> bool {
    meta.labels.contains_key(CANARY)
}

/// Owners that a pod's event wakes. A pod that changed in nothing that is read wakes nobody; one that changed hands
/// wakes both hands.
fn wake_for_pod<T: Object>(
    owners: &Store<T>,
    event: &Event<Pod>,
    selector: impl Fn(&T) -> &Selector,
    add: &mut dyn FnMut(Key),
) {
    let keys = |pod: &Pod| owners_of_child(owners, &pod.meta, &selector);
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

/// Owners that a revision's event wakes, as it is and as it was.
fn wake_for_revision<T: Object>(
    owners: &Store<T>,
    event: &Event<ControllerRevision>,
    selector: impl Fn(&T) -> &Selector,
    add: &mut dyn FnMut(Key),
) {
    let keys = |revision: &ControllerRevision| owners_of_child(owners, &revision.meta, &selector);
    match event {
        _ if is_made(event) => {}
        Event::Applied { old, new } => {
            let now = keys(new);
            let before = old.as_ref().map(|old| keys(old)).unwrap_or_default();
            before.into_iter().filter(|key| !now.contains(key)).for_each(&mut *add);
            now.into_iter().for_each(add);
        }
        Event::Deleted { last } => keys(last).into_iter().for_each(add),
    }
}

/// A revision that appears with its owner on it wakes nobody, as upstream: the owner made it, or whoever did is not done
/// yet. A DaemonSet would tidy away one of two equal revisions under the hands of a user who is about to delete it.
fn is_made(event: &Event<ControllerRevision>) -> bool {
    matches!(event, Event::Applied { old: None, new } if new.meta.controller.is_some())
}

fn same_but_for_version(old: &Pod, new: &Pod) -> bool {
    let mut old = old.clone();
    old.meta.resource_version = new.meta.resource_version;
    old.meta.generation = new.meta.generation;
    old == *new
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn revision(owners: &Value) -> Arc<ControllerRevision> {
        let metadata = json!({"name": "agent-1", "namespace": "shop", "uid": "u", "ownerReferences": owners});
        let text = json!({"metadata": metadata, "revision": 1}).to_string();
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    /// Kubernetes' conformance test of revisions adds an equal one, and deletes the first at once.
    #[test]
    fn an_owned_revision_that_appears_is_no_news_and_all_else_is() {
        let owned = || revision(&json!([{"uid": "uid-agent", "controller": true}]));
        let orphan = || revision(&Value::Null);
        assert!(is_made(&Event::Applied { old: None, new: owned() }));
        for event in [
            Event::Applied { old: None, new: orphan() },
            Event::Applied { old: Some(orphan()), new: owned() },
            Event::Applied { old: Some(owned()), new: owned() },
            Event::Deleted { last: owned() },
        ] {
            assert!(!is_made(&event), "{event:?}");
        }
    }
}
