//! CronJob: start Jobs at scheduled moments.
//!
//! - [`snapshot`]: what a decision looks at, and how it is read
//! - [`plan`]: the order of the decisions
//! - [`schedule`]: which moments (`spec.schedule`)
//! - [`mod@time_zone`]: in which time zone (`spec.timeZone`)
//! - [`mod@timing`]: which moment is due, and when the next one is
//! - [`run`]: whether the moment that is due may run (`spec.suspend`, `spec.startingDeadlineSeconds`)
//! - [`concurrency_policy`]: what a run does while another is under way
//! - [`job_template`]: the Job of a run, and its name
//! - [`history_limits`]: which finished Jobs go (`spec.successfulJobsHistoryLimit`, `spec.failedJobsHistoryLimit`)
//! - [`ledger`]: what the Jobs at hand say about the status
//! - [`notes`]: what is told, once
//! - [`status`]: what is reported
//! - [`audit`]: invariants of every plan
//!
//! A run is known by the name of its Job, `CRONJOB-MINUTES`: minutes since 1970 of the moment that it was scheduled
//! for. The name is the lock. Whoever starts the run of a moment makes this Job or meets it; so a look that finds the
//! Job knows that the moment has been taken, whatever was lost of the status since.
//!
//! CronJobs adopt nothing: only Jobs that they control, by uid, are theirs.

mod audit;
mod concurrency_policy;
mod history_limits;
mod job_template;
mod ledger;
mod notes;
mod plan;
mod run;
mod schedule;
mod snapshot;
mod status;
mod time_zone;
mod timing;

pub use snapshot::{Memory, Snapshot, observe};
pub use timing::{Due, Timing};

use trysail_core::{
    Face, Plan, Resource,
    plan::{Planner, Violation},
};

/// The brain of the CronJob controller, for either face.
#[derive(Clone, Copy, Debug)]
pub struct CronJobPlanner {
    /// Which face.
    pub face: Face,
    /// What is controlled.
    pub resource: Resource,
    /// What is started.
    pub jobs: Resource,
}

impl CronJobPlanner {
    /// The planner of a face: each makes Jobs of its own.
    pub const fn new(face: Face) -> Self {
        Self { face, resource: Resource::cron_jobs(face), jobs: Resource::jobs(face) }
    }
}

impl Planner for CronJobPlanner {
    type Snapshot = Snapshot;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan<Memory> {
        plan::plan(*self, snapshot)
    }

    fn audit(&self, snapshot: &Snapshot, plan: &Plan<Memory>) -> Result<(), Violation> {
        audit::audit(*self, snapshot, plan)
    }
}
