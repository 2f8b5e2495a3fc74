//! The changes to existing ReplicaSets: each gets one patch per plan, because a second one would carry a stale
//! resourceVersion.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};
use trysail_core::{
    Action,
    plan::{EventNote, Verb},
};

use super::{
    DeploymentPlanner,
    annotations::{DESIRED_REPLICAS, MAX_REPLICAS},
    claim::target,
    fleet::Fleet,
};
use crate::views::ReplicaSet;

/// The reason of a patch that only brings annotations up to date, and of one that changes a size.
const SYNC: &str = "SyncReplicaSet";
const SCALE: &str = "ScaleReplicaSet";

/// Changes collected by ReplicaSet.
#[derive(Default)]
pub(super) struct Edits<'a> {
    by_name: BTreeMap<&'a str, Edit<'a>>,
}

struct Edit<'a> {
    set: &'a Arc<ReplicaSet>,
    replicas: i32,
    because: &'static str,
    min_ready_seconds: i32,
    annotations: BTreeMap<String, String>,
}

impl<'a> Edits<'a> {
    fn edit(&mut self, set: &'a Arc<ReplicaSet>) -> &mut Edit<'a> {
        self.by_name.entry(&set.meta.key.name).or_insert_with(|| Edit {
            set,
            replicas: set.replicas,
            because: "",
            min_ready_seconds: set.min_ready_seconds,
            annotations: BTreeMap::new(),
        })
    }

    /// Gives `set` another size, and notes for which size of the Deployment that was.
    pub(super) fn scale(
        &mut self,
        fleet: &Fleet<'_>,
        set: &'a Arc<ReplicaSet>,
        to: i32,
        because: &'static str,
    ) {
        self.edit(set).replicas = to;
        self.edit(set).because = because;
        self.note_size(fleet, set);
    }

    /// Notes for which size of the Deployment the size of `set` is right.
    pub(super) fn note_size(&mut self, fleet: &Fleet<'_>, set: &'a Arc<ReplicaSet>) {
        self.annotate(set, DESIRED_REPLICAS, fleet.bounds.replicas.to_string());
        self.annotate(set, MAX_REPLICAS, fleet.bounds.max_replicas_annotation().to_string());
    }

    pub(super) fn annotate(&mut self, set: &'a Arc<ReplicaSet>, key: &str, value: String) {
        self.edit(set).annotations.insert(key.to_owned(), value);
    }

    pub(super) fn min_ready_seconds(&mut self, set: &'a Arc<ReplicaSet>, seconds: i32) {
        self.edit(set).min_ready_seconds = seconds;
    }

    /// Drops whatever was to be done to `set`.
    pub(super) fn forget(&mut self, set: &ReplicaSet) {
        self.by_name.remove(&*set.meta.key.name);
    }

    /// The size that `set` will have.
    pub(super) fn replicas(&self, set: &ReplicaSet) -> i32 {
        self.by_name.get(&*set.meta.key.name).map_or(set.replicas, |edit| edit.replicas)
    }

    /// True when some ReplicaSet gets another size.
    pub(super) fn resizes(&self) -> bool {
        self.by_name.values().any(|edit| edit.replicas != edit.set.replicas)
    }

    /// The patches, in the order of names; edits that change nothing are none.
    pub(super) fn into_actions(self, planner: DeploymentPlanner) -> Vec<Action> {
        self.by_name.into_values().filter_map(|edit| edit.into_action(planner)).collect()
    }
}

impl Edit<'_> {
    fn into_action(self, planner: DeploymentPlanner) -> Option<Action> {
        let set = self.set;
        let mut spec = Map::new();
        let (from, to) = (set.replicas, self.replicas);
        if from != to {
            spec.insert("replicas".into(), to.into());
        }
        if set.min_ready_seconds != self.min_ready_seconds {
            spec.insert("minReadySeconds".into(), self.min_ready_seconds.into());
        }
        let mut annotations = self.annotations;
        annotations.retain(|key, value| set.annotations.get(key) != Some(value.as_str()));
        let mut body = Map::new();
        if !annotations.is_empty() {
            body.insert("metadata".into(), json!({ "annotations": annotations }));
        }
        if !spec.is_empty() {
            body.insert("spec".into(), spec.into());
        }
        if body.is_empty() {
            return None;
        }
        let name = &set.meta.key.name;
        let direction = if from < to { "up" } else { "down" };
        let note = format!("Scaled {direction} replica set {name} from {from} to {to}");
        Some(Action {
            target: target(planner, set),
            verb: Verb::Patch { subresource: None, body: Value::Object(body) },
            reason: if from == to { SYNC } else { SCALE },
            because: self.because.to_owned(),
            on_success: (from != to).then(|| EventNote::normal("ScalingReplicaSet", note)),
            on_failure: None,
        })
    }
}
