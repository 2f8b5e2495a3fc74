//! Create, merge patch and delete, with the server's rules.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};
use trysail_core::{Face, Key, Resource, Uid, condition::whole_seconds, plan::Propagation, resource::PODS};

use super::{ApiError, Cluster, Writer, rules};

/// The finalizer of a deletion that waits for dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of a deletion whose dependents are still to be let go.
pub(super) const ORPHAN: &str = "orphan";
/// `terminationGracePeriodSeconds` where a pod says none.
const GRACE_SECONDS: i64 = 30;

impl Cluster {
    /// Creates an object; its status is dropped.
    pub fn create(
        &mut self,
        resource: Resource,
        mut object: Value,
        writer: Writer,
    ) -> Result<Arc<Value>, ApiError> {
        let key = key_of(&object);
        self.admit("create", resource)?;
        if self.get(resource, &key).is_some() {
            return Err(ApiError::AlreadyExists);
        }
        if resource == PODS {
            self.admit_pod()?;
        }
        self.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = format!("00000000-0000-4000-8000-{:012x}", self.uids).into();
        metadata["creationTimestamp"] = json!(whole_seconds(self.now));
        metadata["generation"] = 1.into();
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        if let (Some((key, value)), "replicasets") = (&self.policy.stamp_templates, resource.plural) {
            object["spec"]["template"]["metadata"]["annotations"][key] = value.as_str().into();
        }
        rules::complete(resource, &mut object);
        rules::created(resource, &object)?;
        self.commit(resource, &key, Some(object), writer);
        self.get(resource, &key).ok_or(ApiError::NotFound)
    }

    /// Applies a JSON merge patch; with `uid` and `resource_version` as preconditions where given. Only the
    /// status passes through `/status`, everything but the status through the main resource.
    pub fn patch(
        &mut self,
        resource: Resource,
        key: &Key,
        preconditions: (Option<&Uid>, u64),
        subresource: Option<&str>,
        patch: &Value,
        writer: Writer,
    ) -> Result<Arc<Value>, ApiError> {
        self.admit("update", resource)?;
        let held = self.get(resource, key).ok_or(ApiError::NotFound)?;
        let (uid, version) = preconditions;
        check_uid(&held, uid)?;
        if version != 0 && version != Self::version_of(&held) {
            return Err(ApiError::Conflict("the object has been modified".to_owned()));
        }
        let mut object = (*held).clone();
        let mut patch = patch.clone();
        if let Some(patch) = patch.as_object_mut() {
            match subresource {
                Some("status") => patch.retain(|part, _| {
                    // The native strategy lets annotations pass with the status, a CRD's does not.
                    part == "status" || (part == "metadata" && !rules::is_ours(resource))
                }),
                _ => patch.retain(|part, _| part != "status"),
            }
        }
        merge(&mut object, &patch);
        for fixed in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation"] {
            object["metadata"][fixed] = held["metadata"][fixed].clone();
        }
        if object["spec"] != held["spec"] {
            object["metadata"]["generation"] =
                json!(held["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        if subresource.is_none() {
            rules::changed(resource, &held, &object, writer)?;
        }
        rules::status(resource, &held, &mut object)?;
        if object == *held {
            return Ok(held);
        }
        if is_finalized(&object) {
            self.commit(resource, key, None, writer);
            return Ok(Arc::new(object));
        }
        self.commit(resource, key, Some(object), writer);
        self.get(resource, key).ok_or(ApiError::NotFound)
    }

    /// Deletes an object: a pod on a node gets its grace period, finalizers hold anything. What becomes of its
    /// dependents is the server's default for the kind.
    pub fn delete(
        &mut self,
        resource: Resource,
        key: &Key,
        uid: Option<&Uid>,
        writer: Writer,
    ) -> Result<u64, ApiError> {
        self.delete_with(resource, key, uid, None, writer)
    }

    /// The same, with a say about the dependents.
    pub fn delete_with(
        &mut self,
        resource: Resource,
        key: &Key,
        uid: Option<&Uid>,
        propagation: Option<Propagation>,
        writer: Writer,
    ) -> Result<u64, ApiError> {
        self.admit("delete", resource)?;
        let held = self.get(resource, key).ok_or(ApiError::NotFound)?;
        check_uid(&held, uid)?;
        let mut object = (*held).clone();
        let hold = match propagation.unwrap_or_else(|| default_propagation(resource)) {
            Propagation::Background => None,
            Propagation::Foreground => Some(FOREGROUND),
            Propagation::Orphan => Some(ORPHAN),
        };
        if let Some(hold) = hold.filter(|_| resource != PODS) {
            let mut finalizers = finalizers(&held);
            finalizers.retain(|name| ![FOREGROUND, ORPHAN].contains(&name.as_str()));
            finalizers.push(hold.to_owned());
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        let grace = grace_seconds(resource, &held);
        let is_going = held["metadata"]["deletionTimestamp"].is_string();
        if is_going {
            // A second request cannot lengthen the grace period; it may end it.
            let left = held["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
            object["metadata"]["deletionGracePeriodSeconds"] = json!(left.min(grace));
        } else {
            let metadata = &mut object["metadata"];
            metadata["deletionTimestamp"] = json!(whole_seconds(self.now + SignedDuration::from_secs(grace)));
            metadata["deletionGracePeriodSeconds"] = json!(grace);
        }
        if is_finalized(&object) {
            return Ok(self.commit(resource, key, None, writer));
        }
        if object == *held {
            return Ok(self.revision);
        }
        Ok(self.commit(resource, key, Some(object), writer))
    }

    /// A write by a kubelet or controller manager of no interest here: no rules but the revision.
    pub(super) fn overwrite(&mut self, resource: Resource, object: Value) {
        let key = key_of(&object);
        let object = (!is_finalized(&object)).then_some(object);
        self.commit(resource, &key, object, Writer::Other);
    }

    fn admit(&self, verb: &'static str, resource: Resource) -> Result<(), ApiError> {
        match self.policy.deny.get(&(verb, resource.plural.to_owned())) {
            Some(message) => Err(ApiError::Forbidden(message.clone())),
            None => Ok(()),
        }
    }

    fn admit_pod(&self) -> Result<(), ApiError> {
        let Some(quota) = self.policy.pod_quota else { return Ok(()) };
        let pods = self.list(PODS);
        let counted = pods
            .iter()
            .filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")));
        let used = counted.count();
        if used >= quota {
            return Err(ApiError::Forbidden(format!("exceeded quota: pods={used}, limited: pods={quota}")));
        }
        Ok(())
    }
}

/// Namespace and name of an object.
pub fn key_of(object: &Value) -> Key {
    let metadata = &object["metadata"];
    Key::new(
        metadata["namespace"].as_str().unwrap_or_default(),
        metadata["name"].as_str().unwrap_or_default(),
    )
}

pub(super) fn finalizers(object: &Value) -> Vec<String> {
    let held = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    held.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Kinds that were there before garbage collection keep their dependents unless asked otherwise.
fn default_propagation(resource: Resource) -> Propagation {
    let old = [Resource::replication_controllers(Face::Native), Resource::jobs(Face::Native)];
    if old.contains(&resource) { Propagation::Orphan } else { Propagation::Background }
}

/// A pod that a kubelet may be running has time to end.
fn grace_seconds(resource: Resource, held: &Value) -> i64 {
    let is_finished = matches!(held["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let runs = resource == PODS && held["spec"]["nodeName"].is_string() && !is_finished;
    let grace = held["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(GRACE_SECONDS);
    if runs { grace } else { 0 }
}

fn check_uid(held: &Value, uid: Option<&Uid>) -> Result<(), ApiError> {
    match uid {
        Some(uid) if *uid != Cluster::uid_of(held) => {
            Err(ApiError::Conflict("the uid in the precondition is another".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Nothing holds a deleted object any more.
fn is_finalized(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["deletionTimestamp"].is_string()
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}
