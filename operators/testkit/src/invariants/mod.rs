//! What must hold at every single write, judged from the server's own state and over the API's whole history.
//!
//! - [`rollout`]: Deployments and ReplicaSets never have too many pods, nor too few
//! - [`ordinals`]: at most one pod per ordinal of a StatefulSet
//! - [`nodes`]: at most one pod of a DaemonSet per node that is not on its way out, but for a surge
//! - [`counting`]: every finished pod of a Job is counted exactly once
//! - [`completion`]: no pod after its Job is decided, no second Job where a CronJob forbids it
//!
//! A user may change the spec while controllers act on the one before: until the cluster is [settled], the most
//! generous of the specs seen since counts; and a change of scale is free to shrink available pods.
//!
//! [settled]: Invariants::settle

mod completion;
mod counting;
mod nodes;
mod ordinals;
mod rollout;

use std::{fmt::Debug, sync::Arc};

use serde_json::Value;
use trysail_core::{Face, Resource};

use crate::cluster::{Cluster, Writer};

/// One write, after it was stored.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Of which resource.
    pub resource: Resource,
    /// The object before; `None` when it was created.
    pub before: Option<&'a Value>,
    /// The object after; `None` when it is gone.
    pub after: Option<&'a Value>,
    /// By whom.
    pub writer: Writer,
    /// Views lag or pods fall ill in this test: what a controller decided may have been overtaken, as it may for
    /// any controller that is not alone in the world.
    pub is_excused: bool,
}

/// An invariant of a kind, over the whole history of the API.
pub trait Monitor: Debug {
    /// Judges one write; what is wrong goes to `found`.
    fn judge(&mut self, cluster: &Cluster, change: &Change<'_>, found: &mut Vec<String>);

    /// From here on only the specs as they are now count.
    fn settle(&mut self) {}
}

/// All judges.
#[derive(Debug)]
pub struct Invariants {
    /// Pods fall ill by themselves in this test: a deletion decided before one did may then take one too many.
    pub pods_fall_ill: bool,
    /// Views lag in this test, so that a size may be decided by any earlier status.
    pub views_lag: bool,
    /// Somebody edits what belongs to controllers in this test: how many of it there are is not their doing alone, and
    /// nothing is judged.
    pub is_meddled: bool,
    monitors: Vec<Box<dyn Monitor>>,
    violations: Vec<String>,
}

impl Default for Invariants {
    fn default() -> Self {
        Self {
            pods_fall_ill: false,
            views_lag: false,
            is_meddled: false,
            monitors: vec![
                Box::<rollout::Rollouts>::default(),
                Box::<ordinals::Ordinals>::default(),
                Box::<nodes::OnePerNode>::default(),
                Box::<counting::Counting>::default(),
                Box::new(completion::Completion),
            ],
            violations: Vec::new(),
        }
    }
}

impl Invariants {
    /// What was found so far.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Another invariant, judged from here on.
    pub fn watch(&mut self, monitor: Box<dyn Monitor>) {
        self.monitors.push(monitor);
    }

    /// From here on only the specs as they are now count.
    pub fn settle(&mut self) {
        self.monitors.iter_mut().for_each(|monitor| monitor.settle());
    }

    pub(crate) fn judge(
        &mut self,
        cluster: &Cluster,
        resource: Resource,
        before: Option<&Value>,
        after: Option<&Value>,
        writer: Writer,
    ) {
        if self.is_meddled {
            return;
        }
        let is_excused = self.pods_fall_ill || self.views_lag;
        let change = Change { resource, before, after, writer, is_excused };
        for monitor in &mut self.monitors {
            monitor.judge(cluster, &change, &mut self.violations);
        }
    }
}

/// True when the write made an object terminate or vanish.
pub fn is_deletion(before: &Value, after: Option<&Value>) -> bool {
    let is_terminating = |object: &Value| object["metadata"]["deletionTimestamp"].is_string();
    !is_terminating(before) && after.is_none_or(is_terminating)
}

/// Uid of the controlling owner, if that is of this kind.
pub fn controller_of<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    if owner["kind"] == kind { owner["uid"].as_str() } else { None }
}

/// The object of that uid among those of a kind, in either face.
pub fn find(cluster: &Cluster, resource: fn(Face) -> Resource, uid: &str) -> Option<Arc<Value>> {
    cluster.find(&[Face::Crd, Face::Native].map(resource), uid)
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

fn is_finished(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|held| held["type"] == kind && held["status"] == "True")
}
