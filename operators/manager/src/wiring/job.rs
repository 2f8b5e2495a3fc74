//! Jobs: woken by themselves and by the pods that are theirs or could be. Beside them, pods whose Job is gone are let
//! go, and finished Jobs of a certain age.

use std::sync::Arc;

use trysail_core::{Face, Key, Resource, View, pod::Pod, resource::PODS};
use trysail_sdk::{
    controller::{PlanController, Wiring},
    informer::{Event, Scope},
    store::Store,
};
use trysail_workloads::{
    job::{JobPlanner, OrphanPodPlanner, observe, observe_orphan},
    ttl_after_finished::{self, TtlAfterFinishedPlanner},
    views::Job,
};

use super::{index_owners, is_canary, owner_of, paced_by_pods, wake_for_pod};

/// The Job controller of a face.
pub(crate) fn jobs(face: Face, workers: usize) -> PlanController<JobPlanner> {
    let controller = PlanController::new(JobPlanner::new(face), move |services| {
        let jobs = services.informers.informer::<Job>(Resource::jobs(face), Scope::all());
        let pods = services.informers.informer::<Pod>(PODS, Scope::all());
        index_owners(&jobs);
        let owners = Arc::clone(jobs.store());
        let (job_store, pod_store) = (Arc::clone(jobs.store()), Arc::clone(pods.store()));
        Wiring::new(&jobs, move |key, context| {
            let snapshot = observe(face, key, context, &*job_store, &*pod_store)?;
            (!is_canary(&snapshot.job.meta)).then_some(snapshot)
        })
        .watch_events(&pods, move |event, add| {
            wake_for_pod(&owners, event, |job: &Job| &job.selector, add);
        })
    });
    controller.workers(workers).queue(paced_by_pods())
}

/// Lets pods go whose Job of that face is gone.
pub(crate) fn orphan_pods(face: Face, workers: usize) -> PlanController<OrphanPodPlanner> {
    let planner = OrphanPodPlanner::new(face);
    let controller = PlanController::new(planner, move |services| {
        let jobs = services.informers.informer::<Job>(Resource::jobs(face), Scope::all());
        let pods = services.informers.informer::<Pod>(PODS, Scope::all());
        index_owners(&jobs);
        let owners = Arc::clone(jobs.store());
        let orphans = Orphans { planner, pods: Arc::clone(pods.store()) };
        let (job_store, pod_store) = (Arc::clone(jobs.store()), Arc::clone(pods.store()));
        Wiring::of_some(
            &pods,
            move |event, add| {
                if let Event::Applied { new, .. } = event
                    && planner.may_mind(new)
                    && !has_job(&owners, new)
                {
                    add(new.meta.key.clone());
                }
            },
            move |key, context| observe_orphan(face, key, context, &*pod_store, &*job_store),
        )
        .watch_events(&jobs, move |event, add| orphans.wake(event, add))
    });
    controller.workers(workers)
}

/// The pod's controller is a Job that lives: its own plan lets the pod go.
fn has_job(jobs: &Store<Job>, pod: &Pod) -> bool {
    pod.meta.controller.as_ref().is_some_and(|uid| owner_of(jobs, uid).is_some())
}

/// The pods that a Job leaves behind.
struct Orphans {
    planner: OrphanPodPlanner,
    pods: Arc<Store<Pod>>,
}

impl Orphans {
    /// With a Job go the reasons to keep its pods, and those that it would have adopted.
    fn wake(&self, event: &Event<Job>, add: &mut dyn FnMut(Key)) {
        let (job, gone) = match event {
            Event::Deleted { last } => (last, true),
            Event::Applied { old: Some(old), new } if new.is_finished() && !old.is_finished() => (new, false),
            Event::Applied { .. } => return,
        };
        let own = if gone { self.pods.controlled_by(&job.meta.uid) } else { Vec::new() };
        let strays = self.pods.orphans(&job.meta.key.namespace);
        let strays = strays.iter().filter(|pod| job.selector.matches(&pod.meta.labels));
        let left = own.iter().chain(strays).filter(|pod| self.planner.may_mind(pod));
        left.for_each(|pod| add(pod.meta.key.clone()));
    }
}

/// Deletes finished Jobs of that face when their time is up.
pub(crate) fn finished_jobs(face: Face, workers: usize) -> PlanController<TtlAfterFinishedPlanner> {
    let controller = PlanController::new(TtlAfterFinishedPlanner::new(face), move |services| {
        let jobs = services.informers.informer::<Job>(Resource::jobs(face), Scope::all());
        let store = Arc::clone(jobs.store());
        Wiring::new(&jobs, move |key, context| ttl_after_finished::observe(key, context, &*store))
    });
    controller.workers(workers)
}
