//! The garbage collector, with its three policies.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use trysail_core::{Key, Resource, Uid, plan::Propagation};

use super::super::{
    Cluster, Writer,
    api::{FOREGROUND, ORPHAN, finalizers, key_of},
};

type Found = (Resource, Arc<Value>);

impl Cluster {
    pub(super) fn collect_garbage(&mut self) {
        let all: Vec<Found> = self.all();
        for (resource, object) in &all {
            if object["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let held = finalizers(object);
            if held.iter().any(|name| name == ORPHAN) {
                self.let_go(&Self::uid_of(object));
                self.release(*resource, object, ORPHAN);
            } else if held.iter().any(|name| name == FOREGROUND) {
                self.collect_dependents(*resource, object, &all);
            }
        }
        let living = self.all();
        let uids: BTreeSet<&str> = living.iter().map(|(_, object)| uid(object)).collect();
        for (resource, object) in &living {
            self.collect(*resource, object, &uids);
        }
    }

    /// Deletes what only gone owners own; of several owners, gone ones are taken off.
    fn collect(&mut self, resource: Resource, object: &Value, living: &BTreeSet<&str>) {
        if !object["metadata"]["ownerReferences"].is_array() {
            return;
        }
        let key = key_of(object);
        let is_current = self.get(resource, &key).is_some_and(|held| uid(&held) == uid(object));
        let owners = object["metadata"]["ownerReferences"].as_array().filter(|owners| !owners.is_empty());
        let (Some(owners), true) = (owners, is_current) else { return };
        let is_gone = |owner: &&Value| !living.contains(owner["uid"].as_str().unwrap_or_default());
        let solid: Vec<&Value> = owners.iter().filter(|owner| !is_gone(owner)).collect();
        if solid.len() == owners.len() {
            return;
        }
        // A denial by policy leaves it for the next step.
        if solid.is_empty() {
            let _ = self.delete_with(resource, &key, None, Some(Propagation::Background), Writer::Other);
        } else {
            let patch = json!({"metadata": {"ownerReferences": solid}});
            let _ = self.patch(resource, &key, (None, 0), None, &patch, Writer::Other);
        }
    }

    /// An owner in the foreground goes when no dependent that blocks it is left.
    fn collect_dependents(&mut self, resource: Resource, owner: &Value, all: &[Found]) {
        let uid = &owner["metadata"]["uid"];
        let mut is_blocked = false;
        for (kind, dependent) in all {
            let references = dependent["metadata"]["ownerReferences"].as_array().into_iter().flatten();
            let mut references = references.filter(|reference| reference["uid"] == *uid);
            let Some(reference) = references.next() else { continue };
            let key = key_of(dependent);
            if self.get(*kind, &key).is_none() {
                continue;
            }
            is_blocked |= reference["blockOwnerDeletion"] == true;
            if dependent["metadata"]["deletionTimestamp"].is_null() {
                let has_dependents = all.iter().any(|(_, other)| {
                    let owners = other["metadata"]["ownerReferences"].as_array().into_iter().flatten();
                    owners.into_iter().any(|owner| owner["uid"] == dependent["metadata"]["uid"])
                });
                let policy = if has_dependents { Propagation::Foreground } else { Propagation::Background };
                let _ = self.delete_with(*kind, &key, None, Some(policy), Writer::Other);
            }
        }
        if !is_blocked {
            self.release(resource, owner, FOREGROUND);
        }
    }

    fn release(&mut self, resource: Resource, object: &Value, finalizer: &str) {
        let Some(held) = self.get(resource, &key_of(object)) else { return };
        let mut object = (*held).clone();
        remove_finalizer(&mut object, finalizer);
        self.overwrite(resource, object);
    }

    /// Takes an owner off everything.
    fn let_go(&mut self, uid: &Uid) {
        let uid = json!(uid);
        let dependents: Vec<(Resource, Value)> =
            self.all().into_iter().map(|(resource, object)| (resource, (*object).clone())).collect();
        for (resource, mut object) in dependents {
            let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() else { continue };
            let before = owners.len();
            owners.retain(|owner| owner["uid"] != uid);
            if owners.len() != before {
                self.overwrite(resource, object);
            }
        }
    }

    /// Deletes an object and leaves its dependents without an owner, all at once.
    pub fn delete_and_orphan(&mut self, resource: Resource, key: &Key) {
        let Some(owner) = self.get(resource, key) else { return };
        self.commit(resource, key, None, Writer::Other);
        self.let_go(&Self::uid_of(&owner));
    }

    /// Deletes an object and creates another one of its name and spec, as `kubectl replace --force` does. Its dependents
    /// are left without an owner or to the garbage collector, which comes later.
    pub fn make_again(&mut self, resource: Resource, key: &Key, orphan: bool) {
        let Some(held) = self.get(resource, key) else { return };
        if orphan {
            self.delete_and_orphan(resource, key);
        } else {
            let _ = self.delete_with(resource, key, None, Some(Propagation::Background), Writer::Other);
        }
        // Whatever refuses one of the two leaves one of the two objects.
        let metadata = json!({"name": key.name, "namespace": key.namespace});
        let again = json!({"apiVersion": held["apiVersion"], "kind": held["kind"], "metadata": metadata, "spec": held["spec"]});
        let _ = self.create(resource, again, Writer::Other);
    }
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

pub(super) fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let left: Vec<String> = finalizers(object).into_iter().filter(|name| name != finalizer).collect();
    object["metadata"]["finalizers"] = json!(left);
}
