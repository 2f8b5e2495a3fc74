//! Jobs and CronJobs: no pod is created after its Job's end is decided, and no Job beside another one where
//! the CronJob forbids that.

use serde_json::Value;
use trysail_core::{Face, Resource, resource::PODS};

use super::{Change, Monitor, controller_of, find, has_condition, name, uid};
use crate::cluster::{Cluster, Writer};

/// Conditions after which a Job wants no more pods.
const DECIDED: [&str; 4] = ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"];

#[derive(Debug)]
pub(super) struct Completion;

impl Monitor for Completion {
    fn judge(&mut self, cluster: &Cluster, change: &Change<'_>, found: &mut Vec<String>) {
        let (None, Some(created), Writer::Controller) = (change.before, change.after, change.writer) else {
            return;
        };
        if change.resource == PODS {
            let job = controller_of(created, "Job").and_then(|uid| find(cluster, Resource::jobs, uid));
            let decided = job.and_then(|job| DECIDED.into_iter().find(|kind| has_condition(&job, kind)));
            found.extend(decided.map(|kind| format!("{}: created after its Job has {kind}", name(created))));
        }
        if change.resource.plural == "jobs" && !change.is_excused {
            let owner = controller_of(created, "CronJob");
            let Some(cron) = owner.and_then(|uid| find(cluster, Resource::cron_jobs, uid)) else { return };
            if cron["spec"]["concurrencyPolicy"] != "Forbid" {
                return;
            }
            let others =
                [Face::Crd, Face::Native].into_iter().flat_map(|face| cluster.list(Resource::jobs(face)));
            let running = others.filter(|job| {
                controller_of(job, "CronJob") == owner && uid(job) != uid(created) && !is_over(job)
            });
            let count = running.count();
            if count > 0 {
                found.push(format!("{}: created beside {count} others, which is forbidden", name(created)));
            }
        }
    }
}

fn is_over(job: &Value) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}
