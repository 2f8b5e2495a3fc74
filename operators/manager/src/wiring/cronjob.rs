//! CronJobs: woken by themselves, by their Jobs, and by the clock.

use std::sync::Arc;

use trysail_core::Face;
use trysail_sdk::{
    controller::{PlanController, Wiring},
    informer::Scope,
};
use trysail_workloads::{
    cronjob::{CronJobPlanner, observe},
    views::{CronJob, Job},
};

use super::{index_owners, is_canary, owner_of};

/// The CronJob controller of a face.
pub(crate) fn cron_jobs(face: Face, workers: usize) -> PlanController<CronJobPlanner> {
    let planner = CronJobPlanner::new(face);
    let controller = PlanController::new(planner, move |services| {
        let cron_jobs = services.informers.informer::<CronJob>(planner.resource, Scope::all());
        let jobs = services.informers.informer::<Job>(planner.jobs, Scope::all());
        index_owners(&cron_jobs);
        let owners = Arc::clone(cron_jobs.store());
        let (cron_job_store, job_store) = (Arc::clone(cron_jobs.store()), Arc::clone(jobs.store()));
        Wiring::new(&cron_jobs, move |key, context| {
            let snapshot = observe(key, context, &*cron_job_store, &*job_store)?;
            (!is_canary(&snapshot.cron_job.meta)).then_some(snapshot)
        })
        // Nothing is adopted: only the Jobs that it controls are a CronJob's.
        .watch(&jobs, move |job: &Job| {
            let owner = job.meta.controller.as_ref().and_then(|uid| owner_of(&owners, uid));
            owner.into_iter().collect()
        })
    });
    controller.workers(workers)
}
