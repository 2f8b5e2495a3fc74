//! How a history is brought up to date and kept short.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use trysail_core::{
    Action, Json, Key, Labels,
    plan::{Target, Verb},
    pod::{CONTROLLER_REVISION_HASH, Pod},
    resource::CONTROLLER_REVISIONS,
};

use super::{Dialect, History, RevisionOwner, data};
use crate::views::ControllerRevision;

/// The label of a StatefulSet's record that holds the hash of its data. (A DaemonSet's record has the label that its
/// pods have.)
const HASH: &str = "controller.kubernetes.io/hash";

/// The reason of the action that records a template.
pub const CREATE_REVISION: &str = "CreateRevision";

impl History {
    /// Adopts, releases, and records the current template or makes its record the latest. To be done before any pod
    /// is made. Nothing when the owner is being deleted.
    ///
    /// `annotations` are the owner's: `kubectl rollout history` reads the cause of a change there.
    pub fn writes(&self, owner: &RevisionOwner<'_>, annotations: &Labels) -> Vec<Action> {
        if owner.meta.is_terminating() {
            return Vec::new();
        }
        let update = self.update();
        let adopt = |held: &Arc<ControllerRevision>| {
            let verb = Verb::Adopt { owner: owner.reference.clone() };
            action(held, verb, "AdoptRevision", "matches the selector")
        };
        let release = |held: &Arc<ControllerRevision>| {
            let verb = Verb::Release { owner: owner.meta.uid.clone() };
            action(held, verb, "ReleaseRevision", "no longer matches the selector")
        };
        // As upstream, a StatefulSet passes over what does not match: let go, nobody would ever collect it.
        let released = match self.dialect {
            Dialect::StatefulSet => &[],
            Dialect::DaemonSet => self.strays.as_slice(),
        };
        let mut actions: Vec<Action> = released.iter().map(release).collect();
        let renumbered = update.is_to_be_renumbered();
        // Two writes to one object do not go together: an orphan is adopted first and renumbered at the next look.
        actions.extend(self.orphans.iter().map(adopt));
        let renumbered =
            renumbered.filter(|held| !self.orphans.iter().any(|orphan| Arc::ptr_eq(orphan, held)));
        if let Some(held) = renumbered {
            let verb = Verb::Patch { subresource: None, body: json!({"revision": update.revision}) };
            actions.push(action(held, verb, "RenumberRevision", "its template is wanted again"));
        }
        if update.stored.is_none() {
            actions.push(self.create(owner, annotations));
        }
        actions
    }

    fn create(&self, owner: &RevisionOwner<'_>, annotations: &Labels) -> Action {
        let update = self.update();
        let (label, hash) = match self.dialect {
            Dialect::StatefulSet => (HASH, update.name.rsplit('-').next().unwrap_or_default()),
            Dialect::DaemonSet => (CONTROLLER_REVISION_HASH, update.label.as_str()),
        };
        let mut metadata = Map::new();
        metadata.insert("name".into(), update.name.as_str().into());
        metadata.insert("namespace".into(), owner.meta.key.namespace.as_str().into());
        metadata.insert("labels".into(), json!(owner.template.labels.with(label, hash)));
        if !annotations.is_empty() {
            metadata.insert("annotations".into(), json!(annotations));
        }
        metadata.insert("ownerReferences".into(), json!([owner.reference.to_value()]));
        let body = Json::Object(vec![
            ("apiVersion", Value::from(CONTROLLER_REVISIONS.api_version()).into()),
            ("kind", Value::from(CONTROLLER_REVISIONS.kind).into()),
            ("metadata", Value::Object(metadata).into()),
            ("data", data::body(update.data.clone())),
            ("revision", Value::from(update.revision).into()),
        ]);
        Action {
            target: Target {
                resource: CONTROLLER_REVISIONS,
                key: Key::new(owner.meta.key.namespace.clone(), update.name.as_str()),
                uid: None,
                resource_version: 0,
            },
            verb: Verb::Create { controller: Some(owner.meta.uid.clone()), body },
            reason: CREATE_REVISION,
            because: "a template that was not recorded yet".to_owned(),
            on_success: None,
            on_failure: None,
        }
    }

    /// The deletions that bring the history down to `limit`, the earliest first. A record is kept that is current,
    /// that `is_kept` wants (`status.currentRevision`), or that one of `pods` was made from.
    pub fn truncate<'p>(
        &self,
        limit: i32,
        pods: impl IntoIterator<Item = &'p Arc<Pod>>,
        is_kept: impl Fn(&ControllerRevision) -> bool,
    ) -> Vec<Action> {
        let used: Vec<_> = pods.into_iter().filter_map(|pod| self.of_pod(pod)).collect();
        let update = self.update().stored.as_ref();
        let mut old: Vec<(&Arc<ControllerRevision>, bool)> = self
            .revisions()
            .iter()
            .filter(|held| update.is_none_or(|update| !Arc::ptr_eq(update, held)))
            .filter(|held| !self.orphans.iter().any(|orphan| Arc::ptr_eq(orphan, held)))
            .map(|held| (held, is_kept(held) || used.iter().any(|used| Arc::ptr_eq(used, held))))
            .collect();
        if self.dialect == Dialect::StatefulSet {
            old.retain(|(_, live)| !live);
        }
        let beyond = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let dead = old.into_iter().filter(|(_, live)| !live).take(beyond);
        let delete = |held: &Arc<ControllerRevision>| {
            let verb = Verb::Delete { propagation: None };
            action(held, verb, "DeleteRevision", "beyond spec.revisionHistoryLimit")
        };
        dead.map(|(held, _)| delete(held)).collect()
    }
}

fn action(held: &ControllerRevision, verb: Verb, reason: &'static str, because: &str) -> Action {
    Action {
        target: Target {
            resource: CONTROLLER_REVISIONS,
            key: held.meta.key.clone(),
            uid: Some(held.meta.uid.clone()),
            resource_version: held.meta.resource_version,
        },
        verb,
        reason,
        because: because.to_owned(),
        on_success: None,
        on_failure: None,
    }
}
