//! Pods whose Job is gone and which still carry our finalizer: without somebody who removes it they would stay for
//! ever, and their namespace with them. That happens whenever a running Job is deleted (`helm uninstall`, say):
//! the garbage collector deletes the pods, and the finalizer holds them.
//!
//! The key is the pod. A pod is left alone while a living Job controls it (that Job's own plan lets it go) or is about
//! to adopt it. What somebody else controls is left to him, except that nobody else minds our own kind's finalizer.
//!
//! A Job that the view does not show need not be gone: after a change of leaders, say, pods may be in view before the
//! Job that somebody else has made them for. A finalizer that goes then is a pod that is never counted. So the one
//! write here is preceded by a live read of the Job that the pod names, and is not made while that lives.

use std::sync::Arc;

use trysail_core::{
    Face, Key, Plan, Resource, Symbol, Uid, View,
    claim::{Claim, claim},
    plan::{Action, Context, OwnerReference, Planner, Verb, Violation, WaitingOn},
    pod::{JOB_CONTROLLER_UID, Pod},
    resource::PODS,
};

use super::{seen, tracking, tracking_finalizer};
use crate::views::{JOB_NAME, Job};

/// The brain of the controller that lets pods of gone Jobs go.
#[derive(Clone, Copy, Debug)]
pub struct OrphanPodPlanner {
    /// Which face.
    pub face: Face,
}

/// A pod with our finalizer, and who minds it.
#[derive(Clone, Debug)]
pub struct OrphanSnapshot {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Somebody else lets it go.
    pub is_minded: bool,
    /// The Job that it names, and that is not in view.
    pub unseen: Option<OwnerReference>,
    /// Time and the last refusal.
    pub context: Context<()>,
}

/// Reads the state around the pod `key`; `None` when there is no such pod, or it does not carry our finalizer.
pub fn observe_orphan<J, P>(
    face: Face,
    key: &Key,
    context: Context<()>,
    pods: &P,
    jobs: &J,
) -> Option<OrphanSnapshot>
where
    J: View<Job> + ?Sized,
    P: View<Pod> + ?Sized,
{
    let pod = pods.get(key).filter(|pod| OrphanPodPlanner::new(face).may_mind(pod))?;
    let is_minded = is_minded(face, &pod, jobs);
    let is_seen = |job: &OwnerReference| jobs.get(&job.key).is_some_and(|seen| seen.meta.uid == job.uid);
    let unseen = named(face, &pod).filter(|job| !is_seen(job));
    Some(OrphanSnapshot { pod, is_minded, unseen, context })
}

/// The Job of ours that the pod says it belongs to: its controller, or without one the Job whose labels it has.
fn named(face: Face, pod: &Pod) -> Option<OwnerReference> {
    let resource = Resource::jobs(face);
    let job = |name: &str, uid: &Uid| OwnerReference {
        resource,
        key: Key::new(pod.meta.key.namespace.clone(), name),
        uid: uid.clone(),
    };
    if let Some(controller) = &pod.meta.controller {
        let reference = pod.details.as_ref()?.job.as_ref()?;
        return is_of(face, &reference.api_version).then(|| job(&reference.name, controller));
    }
    let labels = &pod.meta.labels;
    Some(job(labels.get(JOB_NAME)?, &Uid::from(labels.get(JOB_CONTROLLER_UID)?)))
}

fn is_of(face: Face, api_version: &str) -> bool {
    api_version.split('/').next() == Some(Resource::jobs(face).group)
}

fn is_minded<J: View<Job> + ?Sized>(face: Face, pod: &Pod, jobs: &J) -> bool {
    let namespace = &pod.meta.key.namespace;
    let Some(controller) = &pod.meta.controller else {
        let adopts =
            |job: &Arc<Job>| !job.is_finished() && claim(&job.meta, &job.selector, &pod.meta) == Claim::Adopt;
        return jobs.in_namespace(namespace).iter().any(adopts);
    };
    let reference = pod.details.as_ref().and_then(|details| details.job.as_ref());
    let of_ours = reference.filter(|job| is_of(face, &job.api_version));
    match of_ours {
        Some(job) => {
            let living = jobs.get(&Key::new(namespace.clone(), job.name.as_str()));
            living.is_some_and(|living| living.meta.uid == *controller)
        }
        // Upstream's finalizer may be used by others who took over its protocol.
        None => face == Face::Native,
    }
}

impl OrphanPodPlanner {
    /// For pods of Jobs of a face.
    pub const fn new(face: Face) -> Self {
        Self { face }
    }

    /// False for pods that this planner never does anything about: nobody has to be woken for them.
    pub fn may_mind(&self, pod: &Pod) -> bool {
        seen::has_finalizer(pod, tracking_finalizer(self.face))
    }
}

impl OrphanPodPlanner {
    fn let_go(self, snapshot: &OrphanSnapshot) -> Option<Action> {
        let finalizer = tracking_finalizer(self.face);
        let mut action = tracking::without_finalizer(&snapshot.pod, finalizer, "nobody else lets it go")?;
        if let (Some(owner), Verb::Patch { body, .. }) = (&snapshot.unseen, &action.verb) {
            action.verb = Verb::PatchOrphan { owner: owner.clone(), body: body.clone() };
        }
        Some(action)
    }
}

impl Planner for OrphanPodPlanner {
    type Snapshot = OrphanSnapshot;
    type Memory = ();

    fn name(&self) -> &'static str {
        "job-orphan-pod-controller"
    }

    fn plan(&self, snapshot: &OrphanSnapshot) -> Plan {
        let mut plan = Plan::default();
        if snapshot.is_minded {
            return plan;
        }
        let now = snapshot.context.now;
        if let Some(refusal) = snapshot.context.refusal.as_ref().filter(|refusal| now < refusal.retry_at) {
            let (message, retry_at) = (refusal.message.clone(), refusal.retry_at);
            plan.waiting_on.push(WaitingOn::Refused { message, retry_at });
            plan.requeue_by(retry_at);
            return plan;
        }
        plan.wave(self.let_go(snapshot).into_iter().collect());
        plan
    }

    /// Nothing but that one finalizer of that one pod.
    fn audit(&self, snapshot: &OrphanSnapshot, plan: &Plan) -> Result<(), Violation> {
        for action in plan.actions() {
            let is_that_pod = action.target.resource == PODS
                && action.target.uid.as_ref() == Some(&snapshot.pod.meta.uid)
                && action.target.resource_version == snapshot.pod.meta.resource_version;
            let body = match &action.verb {
                Verb::PatchOrphan { owner, body } if Some(owner) == snapshot.unseen.as_ref() => body,
                // A Job that it names and that is in view was decided about by what the view shows.
                Verb::Patch { subresource: None, body } if snapshot.unseen.is_none() => body,
                _ => return Err(Violation(format!("more than a finalizer, or unasked: {action}"))),
            };
            let held = snapshot.pod.details.iter().flat_map(|details| &details.finalizers);
            let others: Vec<&str> =
                held.map(Symbol::as_str).filter(|name| *name != tracking_finalizer(self.face)).collect();
            let left = serde_json::json!({"metadata": {"finalizers": others}});
            if !is_that_pod || *body != left || snapshot.is_minded {
                return Err(Violation(format!("not ours to let go: {action}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::fixture, *};
    use crate::fixture::{List, now};

    fn plan(face: Face, pod: &Value, job: Option<&Value>) -> Option<String> {
        let jobs: Vec<Value> = job.into_iter().cloned().collect();
        let (pods, jobs) = (List::<Pod>::of(std::slice::from_ref(pod)), List::<Job>::of(&jobs));
        let context = Context { now: now(), memory: (), refusal: None };
        let snapshot = observe_orphan(face, &Key::new("shop", "a"), context, &pods, &jobs)?;
        let planner = OrphanPodPlanner::new(face);
        let plan = planner.plan(&snapshot);
        planner.audit(&snapshot, &plan).unwrap();
        Some(plan.to_string())
    }

    fn job(uid: &str, condition: &str) -> Value {
        json!({"metadata": {"name": "pi", "namespace": "shop", "uid": uid}, "spec": {"template": {}},
            "status": {"conditions": [{"type": condition, "status": "True"}]}})
    }

    /// A running Job is deleted in the background (`helm uninstall`): nothing may hold its pods for ever.
    #[test]
    fn pods_of_a_gone_job_are_let_go() {
        for face in [Face::Crd, Face::Native] {
            let pod = fixture::pod(face, "a run going");
            let patch = "1. patch Pod shop/a {\"metadata\":{\"finalizers\":[]}}";
            let freed =
                format!("{patch} if {} shop/pi is gone (nobody else lets it go)\n", Resource::jobs(face));
            let freed = freed.as_str();
            assert_eq!(plan(face, &pod, None).as_deref(), Some(freed));
            let namesake = job("another", "Suspended");
            assert_eq!(plan(face, &pod, Some(&namesake)).as_deref(), Some(freed), "another incarnation");
        }
    }

    #[test]
    fn a_living_job_minds_its_own_pods() {
        let pod = fixture::pod(Face::Native, "a run");
        for condition in ["Suspended", "Complete"] {
            let living = job("uid-pi", condition);
            assert_eq!(plan(Face::Native, &pod, Some(&living)).as_deref(), Some("nothing to do\n"));
        }
    }

    /// It is about to be adopted, or nobody ever will.
    #[test]
    fn a_pod_without_a_controller_waits_for_a_job_that_selects_it() {
        let pod = fixture::pod(Face::Native, "a run stray");
        assert!(
            plan(Face::Native, &pod, None).unwrap().starts_with("1. patch Pod shop/a"),
            "no label names a Job"
        );
        assert_eq!(
            plan(Face::Native, &pod, Some(&job("uid-pi", "Suspended"))).as_deref(),
            Some("nothing to do\n")
        );
        assert!(plan(Face::Native, &pod, Some(&job("uid-pi", "Complete"))).unwrap().contains("patch"));
        let mut labeled = pod.clone();
        labeled["metadata"]["labels"][JOB_NAME] = "pi".into();
        assert!(plan(Face::Native, &labeled, None).unwrap().contains("if Job shop/pi is gone"));
        let finished = plan(Face::Native, &labeled, Some(&job("uid-pi", "Complete"))).unwrap();
        assert!(!finished.contains(" if "), "a Job in view needs no other look: {finished}");
    }

    #[test]
    fn what_somebody_else_controls_is_his() {
        let mut pod = fixture::pod(Face::Native, "a run");
        pod["metadata"]["ownerReferences"][0]["apiVersion"] = "acme.io/v1".into();
        assert_eq!(plan(Face::Native, &pod, None).as_deref(), Some("nothing to do\n"));
        // Upstream's finalizer on our kind's pod, and ours on upstream's: each face minds its own.
        assert_eq!(plan(Face::Crd, &fixture::pod(Face::Native, "a run"), None), None);
        assert_eq!(plan(Face::Native, &fixture::pod(Face::Crd, "a run"), None), None);
    }
}
