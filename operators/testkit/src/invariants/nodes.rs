//! DaemonSets: a controller creates a pod for a node only while no other pod of the set there is neither
//! finished nor terminating, or with a surge one other.

use std::collections::BTreeMap;

use serde_json::Value;
use trysail_core::{Resource, resource::PODS};

use super::{Change, Monitor, controller_of, find, is_finished, is_terminating, name, uid};
use crate::cluster::{Cluster, Writer};

#[derive(Debug, Default)]
pub(super) struct OnePerNode {
    /// Which sets could surge at some time since the cluster was settled.
    surging: BTreeMap<String, bool>,
}

impl Monitor for OnePerNode {
    fn settle(&mut self) {
        self.surging.clear();
    }

    fn judge(&mut self, cluster: &Cluster, change: &Change<'_>, found: &mut Vec<String>) {
        if change.resource.plural == "daemonsets" {
            for set in change.before.into_iter().chain(change.after) {
                *self.surging.entry(uid(set).to_owned()).or_insert(false) |= surges(set);
            }
        }
        let (PODS, None, Some(pod)) = (change.resource, change.before, change.after) else { return };
        let Some(owner) = controller_of(pod, "DaemonSet") else { return };
        if change.writer != Writer::Controller {
            return;
        }
        let Some(set) = find(cluster, Resource::daemon_sets, owner) else { return };
        let Some(node) = node_of(pod) else {
            found.push(format!("{}: a pod of a DaemonSet for no node", name(pod)));
            return;
        };
        let pods = cluster.list(PODS);
        let there = pods.iter().filter(|other| {
            controller_of(other, "DaemonSet") == Some(owner)
                && node_of(other) == Some(node)
                && !is_finished(other)
                && !is_terminating(other)
        });
        let is_surging = self.surging.get(owner).copied().unwrap_or_else(|| surges(&set));
        let allowed = 1 + usize::from(is_surging);
        let count = there.count();
        if count > allowed {
            found.push(format!("{}: {count} pods of {} on {node}", name(pod), name(&set)));
        }
    }
}

fn surges(set: &Value) -> bool {
    let surge = &set["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"];
    !(surge.is_null() || *surge == 0 || *surge == "0%")
}

/// Where it is, or is meant to be.
fn node_of(pod: &Value) -> Option<&str> {
    let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let target = &required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0];
    pod["spec"]["nodeName"].as_str().or_else(|| target.as_str())
}
