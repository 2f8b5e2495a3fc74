//! Whether the moment that is due may run: `spec.suspend`, `spec.startingDeadlineSeconds` and what else forbids it, in
//! upstream's order.

use super::{
    Snapshot,
    job_template::job_name,
    ledger::Ledger,
    notes::Notes,
    timing::{Due, Timing, deadline},
};
use crate::views::ConcurrencyPolicy;

/// More missed moments than this are worth a warning.
const MANY: i64 = 100;

/// What becomes of the schedule at this look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The CronJob is being deleted.
    Deleted,
    /// The user has to change something.
    Broken { reason: &'static str, message: String },
    /// `spec.suspend`.
    Suspended,
    /// Nothing is due, or it has been started.
    Idle,
    /// It is too late for what is due.
    Late,
    /// A Job is under way, and the policy is Forbid.
    Blocked(Due),
    /// The name of the Job belongs to a Job of somebody else.
    NameTaken { job: String },
    /// A run starts now.
    Start(Due),
}

pub(super) fn judge(snapshot: &Snapshot, ledger: &Ledger, notes: &mut Notes) -> Verdict {
    let cron_job = &snapshot.cron_job;
    if cron_job.meta.is_terminating() {
        return Verdict::Deleted;
    }
    let broken = |notes: &mut Notes, reason, message: String| {
        notes.warning(reason, message.clone());
        Verdict::Broken { reason, message }
    };
    if let Timing::UnknownTimeZone(zone) = &snapshot.timing {
        let message = format!("invalid timeZone: {zone:?}: unknown time zone {zone}");
        return broken(notes, "UnknownTimeZone", message);
    }
    if cron_job.suspend {
        return Verdict::Suspended;
    }
    let schedule = &cron_job.schedule;
    if schedule.contains("TZ") {
        let message = format!(
            "CRON_TZ or TZ used in schedule {schedule:?} is not officially supported, use spec.timeZone"
        );
        notes.warning("UnsupportedSchedule", message);
    }
    match &snapshot.timing {
        Timing::UnknownTimeZone(_) | Timing::Running { due: None, .. } => Verdict::Idle,
        Timing::Unparseable(reason) => {
            broken(notes, "UnparseableSchedule", format!("unparseable schedule: {schedule:?} : {reason}"))
        }
        Timing::Never => {
            let reason = "it has no moment within the next five years";
            broken(notes, "InvalidSchedule", format!("invalid schedule: {schedule} : {reason}"))
        }
        Timing::Running { due: Some(due), .. } if ledger.has_run(snapshot, *due) => Verdict::Idle,
        Timing::Running { due: Some(due), .. } => judge_due(snapshot, ledger, *due, notes),
    }
}

fn judge_due(snapshot: &Snapshot, ledger: &Ledger, due: Due, notes: &mut Notes) -> Verdict {
    let cron_job = &snapshot.cron_job;
    if deadline(cron_job, due.time).is_some_and(|deadline| deadline < snapshot.context.now) {
        let moment = due.time.strftime("%a, %d %b %Y %H:%M:%S %z");
        notes.warning("MissSchedule", format!("Missed scheduled time to start a job: {moment}"));
        return Verdict::Late;
    }
    if due.missed > MANY {
        let advice = "Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        notes.warning("TooManyMissedTimes", format!("too many missed start times. {advice}"));
    }
    if cron_job.concurrency_policy == ConcurrencyPolicy::Forbid && !ledger.active.is_empty() {
        let reason = "prior execution is running and concurrency policy is Forbid";
        notes.normal("JobAlreadyActive", format!("Not starting job because {reason}"));
        return Verdict::Blocked(due);
    }
    if snapshot.is_name_taken {
        let job = job_name(cron_job, due.time);
        let message = format!("Error creating job: {job} exists and this CronJob does not control it");
        notes.warning("FailedCreate", message);
        return Verdict::NameTaken { job };
    }
    Verdict::Start(due)
}
