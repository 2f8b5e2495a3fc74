//! `status`: what is reported. Native CronJobs have no conditions.

use trysail_core::{
    Face,
    condition::Conditions,
    plan::{Action, Target, Verb},
};

use super::{CronJobPlanner, Snapshot, ledger::Ledger, run::Verdict};
use crate::{
    kstatus::{self, Progress},
    status_patch::StatusPatch,
    views::ObjectReference,
};

const UPDATE_STATUS: &str = "UpdateStatus";

/// The write that brings the status up to date; `None` when it is.
pub(super) fn write(
    planner: CronJobPlanner,
    snapshot: &Snapshot,
    ledger: &Ledger,
    progress: Option<Progress>,
) -> Option<Action> {
    let cron_job = &snapshot.cron_job;
    let old = &cron_job.status;
    let mut patch = StatusPatch::new(planner.face);
    // Native servers leave out an empty list.
    patch.field("active", unless_empty(&old.active), unless_empty(&ledger.active));
    patch.field("lastScheduleTime", old.last_schedule_time.as_ref(), ledger.last_schedule.as_ref());
    patch.field("lastSuccessfulTime", old.last_successful_time.as_ref(), ledger.last_successful.as_ref());
    if planner.face == Face::Crd {
        patch.optional("observedGeneration", old.observed_generation, Some(cron_job.meta.generation));
        patch.counter("activeJobs", old.active_jobs, ledger.active.len() as i32);
        patch.conditions(&old.conditions, &conditions(snapshot, progress));
        if !cron_job.is_observed() || old.containers.is_none() || old.images.is_none() {
            let (names, images): (Vec<_>, Vec<_>) = cron_job.job_template.containers().into_iter().unzip();
            patch.display("containers", old.containers.as_deref(), &names.join(","));
            patch.display("images", old.images.as_deref(), &images.join(","));
        }
    }
    Some(Action {
        target: Target {
            resource: planner.resource,
            key: cron_job.meta.key.clone(),
            uid: Some(cron_job.meta.uid.clone()),
            resource_version: cron_job.meta.resource_version,
        },
        verb: Verb::Patch { subresource: Some("status"), body: patch.body()? },
        reason: UPDATE_STATUS,
        because: String::new(),
        on_success: None,
        on_failure: None,
    })
}

fn unless_empty(list: &Vec<ObjectReference>) -> Option<&Vec<ObjectReference>> {
    Some(list).filter(|list| !list.is_empty())
}

fn conditions(snapshot: &Snapshot, progress: Option<Progress>) -> Conditions {
    let mut conditions = snapshot.cron_job.status.conditions.clone();
    if let Some(progress) = progress {
        kstatus::apply(&mut conditions, progress, snapshot.context.now);
    }
    conditions
}

/// What `helm --wait` and `kubectl wait` read. A CronJob is as wanted when its schedule is understood, whatever its
/// Jobs do; messages name no moments, or every run would change them.
pub(super) fn progress(verdict: &Verdict, refused: Option<&str>) -> Option<Progress> {
    let done = |message: &str| Some(Progress::Done { message: message.to_owned() });
    match verdict {
        // Nothing is promised any more.
        Verdict::Deleted => None,
        Verdict::Broken { reason, message } => Some(Progress::Stuck { reason, message: message.clone() }),
        Verdict::Suspended => done("spec.suspend is set"),
        Verdict::NameTaken { job } => {
            let message = format!("{job} exists and this CronJob does not control it");
            Some(Progress::Underway { reason: "FailedCreate", message })
        }
        Verdict::Start(_) if refused.is_some() => {
            let message = refused.unwrap_or_default().to_owned();
            Some(Progress::Underway { reason: "FailedCreate", message })
        }
        Verdict::Start(_) | Verdict::Idle | Verdict::Late | Verdict::Blocked(_) => done("runs on schedule"),
    }
}
