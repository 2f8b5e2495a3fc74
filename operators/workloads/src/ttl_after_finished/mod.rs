//! `spec.ttlSecondsAfterFinished` of Jobs: a finished Job is deleted after so many seconds, its pods before it.
//!
//! A planner of its own, because it acts on finished Jobs, which the Job controller leaves alone, and also on Jobs
//! that `spec.managedBy` gives to somebody else.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;
use trysail_core::{
    Action, Face, Key, Plan, Resource, Timestamp, View,
    plan::{Context, EventNote, Planner, Propagation, Target, Verb, Violation, WaitingOn},
};

use crate::views::Job;

/// The brain of the controller, for either face.
#[derive(Clone, Copy, Debug)]
pub struct TtlAfterFinishedPlanner {
    /// Which face.
    pub face: Face,
}

/// A Job and the time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Job.
    pub job: Arc<Job>,
    /// Time and the last refusal.
    pub context: Context<()>,
}

/// Reads the state around `key`; `None` when there is no such object.
pub fn observe<J: View<Job> + ?Sized>(key: &Key, context: Context<()>, jobs: &J) -> Option<Snapshot> {
    Some(Snapshot { job: jobs.get(key)?, context })
}

/// When the Job's time is up; `None` when it has none or is not finished.
fn expires_at(job: &Job) -> Option<Timestamp> {
    let seconds = job.ttl_seconds_after_finished?;
    let mut conditions = job.status.conditions.iter();
    let finished =
        conditions.find(|held| matches!(&*held.kind, "Complete" | "Failed") && held.status == "True")?;
    // Nobody knows since when: the Job stays.
    finished.last_transition_time?.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

impl TtlAfterFinishedPlanner {
    /// For Jobs of a face.
    pub const fn new(face: Face) -> Self {
        Self { face }
    }

    /// The cache may not show yet that the user gave the Job more time, and a delete asks for the uid only. So the
    /// delete is preceded by a patch of nothing: it writes nothing, and is refused unless the Job still is what the
    /// cache shows.
    fn delete(self, job: &Job) -> [Action; 2] {
        let action = |verb, reason, on_failure| Action {
            target: Target {
                resource: Resource::jobs(self.face),
                key: job.meta.key.clone(),
                uid: Some(job.meta.uid.clone()),
                resource_version: job.meta.resource_version,
            },
            verb,
            reason,
            because: "ttlSecondsAfterFinished has passed".to_owned(),
            on_success: None,
            on_failure,
        };
        let confirm = Verb::Patch { subresource: None, body: json!({}) };
        let delete = Verb::Delete { propagation: Some(Propagation::Foreground) };
        let failed = EventNote::warning("FailedDelete", "Error deleting the finished Job");
        [action(confirm, "ConfirmJob", None), action(delete, "DeleteJob", Some(failed))]
    }
}

impl Planner for TtlAfterFinishedPlanner {
    type Snapshot = Snapshot;
    type Memory = ();

    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan {
        let mut plan = Plan::default();
        let (job, now) = (&snapshot.job, snapshot.context.now);
        let Some(at) = expires_at(job).filter(|_| !job.meta.is_terminating()) else { return plan };
        if now < at {
            plan.waiting_on.push(WaitingOn::Time { at, what: "ttlSecondsAfterFinished" });
            plan.requeue_by(at);
            return plan;
        }
        match snapshot.context.refusal.as_ref().filter(|refusal| now < refusal.retry_at) {
            Some(refusal) => {
                let (message, retry_at) = (refusal.message.clone(), refusal.retry_at);
                plan.waiting_on.push(WaitingOn::Refused { message, retry_at });
                plan.requeue_by(retry_at);
            }
            None => plan.waves.extend(self.delete(job).map(|action| vec![action])),
        }
        plan
    }

    /// Nothing but this Job, finished and of age, is deleted.
    fn audit(&self, snapshot: &Snapshot, plan: &Plan) -> Result<(), Violation> {
        let (job, now) = (&snapshot.job, snapshot.context.now);
        let age = |kind: &str| {
            let condition = job.status.conditions.get(kind).filter(|held| held.status == "True")?;
            Some(now.as_second() - condition.last_transition_time?.as_second())
        };
        let of_age = age("Complete").or_else(|| age("Failed")).zip(job.ttl_seconds_after_finished);
        let is_due = of_age.is_some_and(|(age, ttl)| age >= i64::from(ttl)) && job.meta.deleted.is_none();
        for action in plan.actions() {
            let is_this = action.target.uid.as_ref() == Some(&job.meta.uid)
                && action.target.resource == Resource::jobs(self.face);
            let is_harmless = match &action.verb {
                Verb::Patch { subresource: None, body } => *body == json!({}),
                Verb::Delete { propagation } => *propagation == Some(Propagation::Foreground),
                _ => false,
            };
            if !(is_due && is_this && is_harmless) {
                return Err(Violation(format!("not due: {action}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn plan(face: Face, ttl: Option<i32>, condition: &str, now: &str) -> String {
        let job = json!({"metadata": {"name": "pi", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
            "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
            "status": {"conditions": [{"type": condition, "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let context = Context { now: now.parse().unwrap(), memory: (), refusal: None };
        let snapshot = Snapshot { job: Arc::new(serde_json::from_value(job).unwrap()), context };
        let planner = TtlAfterFinishedPlanner::new(face);
        let plan = planner.plan(&snapshot);
        planner.audit(&snapshot, &plan).unwrap();
        plan.to_string()
    }

    #[test]
    fn a_finished_job_goes_when_its_time_is_up() {
        assert_snapshot!(plan(Face::Native, Some(30), "Complete", "2026-01-01T00:00:29Z"), @r"
        waiting on 2026-01-01T00:00:30Z: ttlSecondsAfterFinished
        look again at 2026-01-01T00:00:30Z
        ");
        assert_snapshot!(plan(Face::Crd, Some(30), "Failed", "2026-01-01T00:00:30Z"), @r"
        1. patch Job shop/pi {} (ttlSecondsAfterFinished has passed)
        2. delete Job shop/pi (ttlSecondsAfterFinished has passed)
        ");
        assert!(plan(Face::Crd, Some(0), "Failed", "2026-01-01T00:00:00Z").contains("delete Job"));
    }

    #[test]
    fn no_other_job_does() {
        for (ttl, condition) in [(None, "Complete"), (Some(0), "SuccessCriteriaMet"), (Some(0), "Suspended")]
        {
            assert_eq!(plan(Face::Native, ttl, condition, "2027-01-01T00:00:00Z"), "nothing to do\n");
        }
    }

    #[test]
    fn a_clock_that_is_behind_only_defers_it() {
        assert!(plan(Face::Native, Some(0), "Complete", "2025-12-31T23:59:59Z").contains("look again"));
    }
}
