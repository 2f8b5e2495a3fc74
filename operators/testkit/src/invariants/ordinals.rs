//! StatefulSets: at most one pod per ordinal at any moment, none outside of the wanted range, and with
//! `OrderedReady` none before its predecessors are ready.

use std::{collections::BTreeMap, ops::Range};

use serde_json::Value;
use trysail_core::{Resource, resource::PODS};

use super::{Change, Monitor, controller_of, find, has_condition, is_terminating, name, uid};
use crate::cluster::{Cluster, Writer};

#[derive(Debug, Default)]
pub(super) struct Ordinals {
    /// The widest range since the cluster was settled.
    ranges: BTreeMap<String, Range<i64>>,
}

impl Monitor for Ordinals {
    fn settle(&mut self) {
        self.ranges.clear();
    }

    fn judge(&mut self, cluster: &Cluster, change: &Change<'_>, found: &mut Vec<String>) {
        if change.resource.plural == "statefulsets" {
            for set in change.before.into_iter().chain(change.after) {
                let now = range(set);
                let held = self.ranges.entry(uid(set).to_owned()).or_insert_with(|| now.clone());
                *held = held.start.min(now.start)..held.end.max(now.end);
            }
        }
        let (PODS, Some(pod)) = (change.resource, change.after) else { return };
        let Some(owner) = controller_of(pod, "StatefulSet") else { return };
        let Some(set) = find(cluster, Resource::stateful_sets, owner) else { return };
        let Some(ordinal) = ordinal_of(pod, &set) else {
            found.push(format!("{}: not a name of a pod of StatefulSet {}", name(pod), name(&set)));
            return;
        };
        let family: Vec<_> = cluster
            .list(PODS)
            .into_iter()
            .filter(|other| controller_of(other, "StatefulSet") == Some(owner))
            .collect();
        let (set, family) = (&*set, &family);
        let at = |wanted: i64| family.iter().filter(move |other| ordinal_of(other, set) == Some(wanted));
        if at(ordinal).count() > 1 {
            found.push(format!("{}: a second pod of ordinal {ordinal}", name(pod)));
        }
        if change.before.is_some() || change.writer != Writer::Controller {
            return;
        }
        let range = range(set);
        let allowed = self.ranges.get(owner).cloned().unwrap_or_else(|| range.clone());
        if !allowed.contains(&ordinal) {
            found.push(format!("{}: created outside of {allowed:?}", name(pod)));
        }
        let is_ready = |pod: &Value| has_condition(pod, "Ready") && !is_terminating(pod);
        let is_ordered = set["spec"]["podManagementPolicy"] != "Parallel";
        let missing = (range.start..ordinal).find(|before| !at(*before).any(|pod| is_ready(pod)));
        if let Some(missing) = missing.filter(|_| is_ordered && !change.is_excused) {
            found.push(format!("{}: created before ordinal {missing} is ready", name(pod)));
        }
    }
}

fn range(set: &Value) -> Range<i64> {
    let start = set["spec"]["ordinals"]["start"].as_i64().unwrap_or(0);
    start..start + set["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// `SET-<digits>`.
fn ordinal_of(pod: &Value, set: &Value) -> Option<i64> {
    let rest = name(pod).strip_prefix(name(set))?.strip_prefix('-')?;
    let is_number = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { rest.parse().ok() } else { None }
}
