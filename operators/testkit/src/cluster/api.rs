//! Create, merge patch and delete, with the server's rules.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};
use trysail_core::{Key, Resource, Uid, condition::whole_seconds, plan::Propagation, resource::PODS};

use super::{ApiError, Cluster, Writer, validation};

impl Cluster {
    /// Creates an object; its status is dropped.
    pub fn create(
        &mut self,
        resource: Resource,
        mut object: Value,
        writer: Writer,
    ) -> Result<Arc<Value>, ApiError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let key = Key::new(object["metadata"]["namespace"].as_str().unwrap_or_default(), name);
        self.admit("create", resource)?;
        if self.objects.contains_key(&(resource, key.clone())) {
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
        if resource == PODS {
            object["status"] = json!({"phase": "Pending"});
        }
        if let (Some((key, value)), "replicasets") = (&self.policy.stamp_templates, resource.plural) {
            object["spec"]["template"]["metadata"]["annotations"][key] = value.as_str().into();
        }
        validation::spec(resource, &object)?;
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
                    part == "status" || (part == "metadata" && resource.group != "apps.trysail.dev")
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
        validation::spec(resource, &object)?;
        validation::status(resource, &held, &mut object)?;
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

    /// Deletes an object: a pod on a node gets its grace period, finalizers hold anything.
    pub fn delete(
        &mut self,
        resource: Resource,
        key: &Key,
        uid: Option<&Uid>,
        writer: Writer,
    ) -> Result<u64, ApiError> {
        self.admit("delete", resource)?;
        let held = self.get(resource, key).ok_or(ApiError::NotFound)?;
        check_uid(&held, uid)?;
        let is_finished = matches!(held["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let runs = resource == PODS && held["spec"]["nodeName"].is_string() && !is_finished;
        let is_held = held["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
        if !runs && !is_held {
            return Ok(self.commit(resource, key, None, writer));
        }
        if held["metadata"]["deletionTimestamp"].is_string() {
            return Ok(self.revision);
        }
        let mut object = (*held).clone();
        let at = self.now + SignedDuration::from_secs(if runs { 30 } else { 0 });
        object["metadata"]["deletionTimestamp"] = json!(whole_seconds(at));
        Ok(self.commit(resource, key, Some(object), writer))
    }

    /// Deletes an object, with a say about its dependents.
    pub fn delete_with(
        &mut self,
        resource: Resource,
        key: &Key,
        uid: Option<&Uid>,
        propagation: Option<Propagation>,
        writer: Writer,
    ) -> Result<u64, ApiError> {
        if propagation == Some(Propagation::Orphan) {
            self.delete_and_orphan(resource, key);
        }
        self.delete(resource, key, uid, writer)
    }

    /// A write by a kubelet or controller manager of no interest here: no rules but the revision.
    pub(super) fn overwrite(&mut self, resource: Resource, object: Value) {
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        let key = Key::new(namespace, metadata["name"].as_str().unwrap_or_default());
        self.commit(resource, &key, Some(object), Writer::Other);
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

fn check_uid(held: &Value, uid: Option<&Uid>) -> Result<(), ApiError> {
    match uid {
        Some(uid) if *uid != Cluster::uid_of(held) => {
            Err(ApiError::Conflict("the uid in the precondition is another".to_owned()))
        }
        _ => Ok(()),
    }
}

fn is_finalized(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["deletionTimestamp"].is_string()
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
        && !object["spec"]["nodeName"].is_string()
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
