//! Which watches wake which keys. Nothing is decided here, and nothing is written.

pub(crate) mod deployment;
pub(crate) mod replicas;

use trysail_core::{Key, Meta, Object, Selector, Symbol, Uid, View};
use trysail_sdk::{informer::Handle, store::Store};

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
