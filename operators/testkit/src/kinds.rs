//! The controllers that a simulated manager runs: one small registration per kind.

use trysail_core::{
    Face, Resource,
    pod::Pod,
    resource::{CONTROLLER_REVISIONS, NODES, PERSISTENT_VOLUME_CLAIMS, PODS},
};
use trysail_workloads::{
    cronjob::{self, CronJobPlanner},
    daemonset::{self, DaemonSetPlanner},
    deployment::{self, DeploymentPlanner},
    job::{self, JobPlanner, OrphanPodPlanner},
    replicaset::{self, ReplicaSetPlanner},
    statefulset::{self, StatefulSetPlanner},
    ttl_after_finished::{self, TtlAfterFinishedPlanner},
    views::{
        ControllerRevision, CronJob, DaemonSet, Deployment, Job, Node, PersistentVolumeClaim, ReplicaSet,
        StatefulSet,
    },
};

use crate::manager::{Cached, Informers, Registration};

/// Every controller of a face, in the order in which they are looked at.
pub fn all(face: Face) -> Vec<Registration> {
    vec![
        deployments(face),
        replica_sets(face),
        replication_controllers(face),
        stateful_sets(face),
        daemon_sets(face),
        cron_jobs(face),
        jobs(face),
        pods_of_gone_jobs(face),
        ttl_after_finished(face),
    ]
}

/// Deployments.
pub fn deployments(face: Face) -> Registration {
    let planner = DeploymentPlanner::new(face);
    Registration::new(planner, planner.resource, move |deployments: Cached<Deployment>, informers| {
        let sets = informers.of::<ReplicaSet>(planner.sets);
        let pods = informers.of::<Pod>(PODS);
        move |key, context| deployment::observe(key, context, &deployments, &sets, &pods)
    })
}

/// DaemonSets.
pub fn daemon_sets(face: Face) -> Registration {
    let planner = DaemonSetPlanner::new(face);
    Registration::new(planner, planner.resource, move |sets: Cached<DaemonSet>, informers| {
        let pods = informers.of::<Pod>(PODS);
        let nodes = informers.of::<Node>(NODES);
        let revisions = informers.of::<ControllerRevision>(CONTROLLER_REVISIONS);
        move |key, context| daemonset::observe(planner, key, context, &sets, &pods, &nodes, &revisions)
    })
}

/// ReplicaSets.
pub fn replica_sets(face: Face) -> Registration {
    replicas(ReplicaSetPlanner::replica_sets(face))
}

/// ReplicationControllers.
pub fn replication_controllers(face: Face) -> Registration {
    replicas(ReplicaSetPlanner::replication_controllers(face))
}

/// CronJobs.
pub fn cron_jobs(face: Face) -> Registration {
    let planner = CronJobPlanner::new(face);
    Registration::new(planner, planner.resource, move |cron_jobs: Cached<CronJob>, informers| {
        let jobs = informers.of::<Job>(planner.jobs);
        move |key, context| cronjob::observe(key, context, &cron_jobs, &jobs)
    })
}

fn replicas(planner: ReplicaSetPlanner) -> Registration {
    Registration::new(planner, planner.resource, move |sets: Cached<ReplicaSet>, informers| {
        let pods = informers.of::<Pod>(PODS);
        let nodes = spread_nodes(planner.face, informers);
        move |key, context| {
            let snapshot = replicaset::observe(key, context, &sets, &pods)?;
            Some(snapshot.spread_over(nodes.as_ref()))
        }
    })
}

/// The nodes over which pods are spread: the scheduler does it by itself for native kinds.
fn spread_nodes(face: Face, informers: &mut Informers) -> Option<Cached<Node>> {
    (face == Face::Crd).then(|| informers.of(NODES))
}

/// StatefulSets.
pub fn stateful_sets(face: Face) -> Registration {
    let planner = StatefulSetPlanner::new(face);
    Registration::new(planner, planner.resource, move |sets: Cached<StatefulSet>, informers| {
        let pods = informers.of::<Pod>(PODS);
        let claims = informers.of::<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
        let revisions = informers.of::<ControllerRevision>(CONTROLLER_REVISIONS);
        let nodes = spread_nodes(face, informers);
        move |key, context| {
            let views = (&sets, &pods, &claims, &revisions);
            let snapshot = statefulset::observe(planner, key, context, views)?;
            Some(snapshot.spread_over(nodes.as_ref()))
        }
    })
}

/// Jobs.
pub fn jobs(face: Face) -> Registration {
    Registration::new(JobPlanner::new(face), Resource::jobs(face), move |jobs: Cached<Job>, informers| {
        let pods = informers.of::<Pod>(PODS);
        move |key, context| job::observe(face, key, context, &jobs, &pods)
    })
}

/// Pods whose Job is gone.
pub fn pods_of_gone_jobs(face: Face) -> Registration {
    Registration::new(OrphanPodPlanner::new(face), PODS, move |pods: Cached<Pod>, informers| {
        let jobs = informers.of::<Job>(Resource::jobs(face));
        move |key, context| job::observe_orphan(face, key, context, &pods, &jobs)
    })
}

/// Finished Jobs whose time is up.
pub fn ttl_after_finished(face: Face) -> Registration {
    let planner = TtlAfterFinishedPlanner::new(face);
    Registration::new(planner, Resource::jobs(face), move |jobs: Cached<Job>, _| {
        move |key, context| ttl_after_finished::observe(key, context, &jobs)
    })
}
