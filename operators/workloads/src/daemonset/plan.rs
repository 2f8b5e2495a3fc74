//! The order of the decisions about one DaemonSet.

use trysail_core::{
    Action, Plan,
    plan::{EventNote, WaitingOn},
};

use super::{
    DaemonSetPlanner, Memory, Snapshot, claim, failure,
    fleet::{self, Fleet, Measure},
    history::{self, Chores},
    min_ready_seconds,
    per_node::{self, Steps},
    pods::{self, CREATE, DELETE},
    status::{self, Counts, Remarks},
    unplaceable, update_strategy,
};
use crate::StatusPace;

pub(super) fn plan(planner: DaemonSetPlanner, snapshot: &Snapshot) -> Plan<Memory> {
    let set = &snapshot.set;
    let now = snapshot.context.now;
    let mut plan = Plan { memory: snapshot.context.memory.clone(), ..Plan::default() };
    if set.meta.is_terminating() {
        // Its history may be gone before its pods are: a status from what is left would be wrong.
        plan.waiting_on.push(WaitingOn::Deletion);
        return plan;
    }
    if let Some(what) = mistake(snapshot, &mut plan) {
        plan.waiting_on.push(WaitingOn::User { what });
        return plan;
    }

    let Chores { writes, relabels, surplus } = history::chores(planner, snapshot);
    let measure = Measure { set, history: &snapshot.history, now };
    let is_relabelling = !relabels.is_empty();
    plan.wave([claim::writes(planner, snapshot), writes].concat());
    plan.wave(relabels);

    let fleet = fleet::survey(snapshot, &mut plan.memory);
    let counts = Counts::of(&fleet, measure);
    let (stuck, news) = unplaceable::report(&fleet, &mut plan.memory);
    plan.events.extend(news);
    // Two writes to one pod do not go together.
    if !is_relabelling {
        let steps = decide(snapshot, &fleet, measure, &mut plan);
        act(planner, snapshot, &steps, measure, &mut plan);
    }
    let is_writing = !plan.is_idle();
    truncate(snapshot, surplus, is_writing, &mut plan);

    let refusal = snapshot.context.refusal.as_ref().map(|refusal| refusal.message.as_str());
    let remarks =
        Remarks { collisions: snapshot.history.update().collisions, refusal, unplaceable: stuck.as_deref() };
    report_status(planner, snapshot, (counts, remarks), is_writing, &mut plan);
    if let Some(at) = min_ready_seconds::next_available(&fleet, measure) {
        plan.requeue_by(at);
    }
    plan.waiting_on.extend(waits(counts));
    plan.waiting_on.extend(stuck.map(|what| WaitingOn::User { what }));
    plan
}

/// What the user has to change before anything can be done. Upstream tells of it at every sync, we once per spec.
fn mistake(snapshot: &Snapshot, plan: &mut Plan<Memory>) -> Option<String> {
    let set = &snapshot.set;
    if set.selector.is_empty() {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        if plan.memory.told_generation != Some(set.meta.generation) {
            plan.memory.told_generation = Some(set.meta.generation);
            plan.events.push(EventNote::warning("SelectingAll", message));
        }
        return Some("spec.selector must not be empty".to_owned());
    }
    // Such pods would be released as soon as they exist, and made again, for ever.
    (!set.selector.matches(&set.template.labels))
        .then(|| "spec.template.metadata.labels must match spec.selector".to_owned())
}

/// First every node is put in order; only when nothing is left to do there, an update takes its next step.
fn decide<'a>(
    snapshot: &'a Snapshot,
    fleet: &Fleet<'a>,
    measure: Measure<'_>,
    plan: &mut Plan<Memory>,
) -> Steps<'a> {
    let mut steps = per_node::manage(snapshot, fleet, measure, &mut plan.memory);
    plan.events.append(&mut steps.events);
    if let Some(at) = steps.wake_at {
        plan.waiting_on
            .push(WaitingOn::Time { at, what: "pods that failed or lost their node are replaced" });
        plan.requeue_by(at);
    }
    if !steps.is_empty() {
        return steps;
    }
    let update = update_strategy::update(fleet, measure);
    if let Some(at) = update.wake_at {
        plan.requeue_by(at);
    }
    update
}

/// Deletes come first: they make room in a quota.
fn act(
    planner: DaemonSetPlanner,
    snapshot: &Snapshot,
    steps: &Steps<'_>,
    measure: Measure<'_>,
    plan: &mut Plan<Memory>,
) {
    for (action, is_due) in [(DELETE, !steps.delete.is_empty()), (CREATE, !steps.create.is_empty())] {
        if !is_due {
            continue;
        }
        if let Some(refusal) = failure::barring(snapshot, action) {
            let (message, retry_at) = (refusal.message.clone(), refusal.retry_at);
            plan.waiting_on.push(WaitingOn::Refused { message, retry_at });
            plan.requeue_by(retry_at);
        } else if action == DELETE {
            plan.wave(pods::deletes(steps));
        } else {
            plan.wave(pods::creates(planner, steps, measure));
        }
    }
}

/// Revisions beyond the limit go when nothing else is to be done.
fn truncate(snapshot: &Snapshot, surplus: Vec<Action>, is_writing: bool, plan: &mut Plan<Memory>) {
    if is_writing || surplus.is_empty() {
        return;
    }
    match failure::barred_until(snapshot, history::TRUNCATE) {
        Some(at) => plan.requeue_by(at),
        None => plan.wave(surplus),
    }
}

fn report_status(
    planner: DaemonSetPlanner,
    snapshot: &Snapshot,
    (counts, remarks): (Counts, Remarks<'_>),
    is_writing: bool,
    plan: &mut Plan<Memory>,
) {
    let now = snapshot.context.now;
    let pace = snapshot.context.memory.status;
    plan.memory.status = match status::write(planner, snapshot, counts, remarks) {
        None => pace.unchanged(),
        Some(write) => {
            let hold = pace.hold_until(now, is_writing);
            match hold.max(failure::barred_until(snapshot, failure::UPDATE_STATUS)) {
                Some(until) => {
                    plan.requeue_by(until);
                    pace.held(now)
                }
                None => {
                    plan.wave(vec![write]);
                    StatusPace::written(now)
                }
            }
        }
    };
}

fn waits(counts: Counts) -> Option<WaitingOn> {
    let Counts { desired: want, current, ready, updated, available, .. } = counts;
    let states = [("created", current), ("updated", updated), ("ready", ready), ("available", available)];
    let (state, have) = states.into_iter().find(|(_, have)| *have < want)?;
    Some(WaitingOn::Pods { state, have, want })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use jiff::SignedDuration;
    use serde_json::json;
    use trysail_core::Face;

    use super::super::{fixture::World, pods::BURST};

    #[test]
    fn a_new_daemon_set() {
        let mut world = World::new(json!({}), &["a", "b taint=gpu:NoSchedule"], &[]);
        world.revisions.clear();
        assert_snapshot!(world.plan(), @r"
        1. create ControllerRevision shop/agent-7f644d47d (a template that was not recorded yet)
        2. create Pod shop/agent-bhqpz (for node a)
        waiting on 0 of 1 pods created
        look again at 2026-01-01T00:00:11Z
        ");
    }

    #[test]
    fn an_update_under_way() {
        let mut world =
            World::new(json!({"minReadySeconds": 30}), &["a", "b"], &["x a ready=5", "y b old ready=99"]);
        world.face = Face::Crd;
        assert_snapshot!(world.plan(), @r#"
        1. patch DaemonSet shop/agent status {"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"1 of 2 pods updated","reason":"RollingUpdate","status":"False","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"1 of 2 pods updated","reason":"RollingUpdate","status":"True","type":"Reconciling"}],"containers":"main","currentNumberScheduled":2,"desiredNumberScheduled":2,"images":"v2","nodeSelector":"<none>","numberAvailable":1,"numberMisscheduled":0,"numberReady":2,"numberUnavailable":1,"observedGeneration":1,"selector":"app=agent","updatedNumberScheduled":1}
        waiting on 1 of 2 pods updated
        look again at 2026-01-01T00:00:35Z
        "#);
    }

    #[test]
    fn a_pod_as_it_is_sent() {
        let mut world = World::new(json!({}), &["a"], &[]);
        world.face = Face::Crd;
        world.generation = Some(3);
        let plan = world.plan();
        let trysail_core::plan::Verb::Create { body, .. } = &plan.waves[0][0].verb else { panic!("{plan}") };
        let mut body = body.to_value();
        let field = json!({"key": "metadata.name", "operator": "In", "values": ["a"]});
        let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
        let node_affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": required});
        assert_eq!(body["spec"]["affinity"], json!({"nodeAffinity": node_affinity}));
        assert_eq!(body["spec"]["tolerations"].as_array().map(Vec::len), Some(6));
        body["spec"] = json!("…");
        assert_snapshot!(body, @r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"app":"agent","controller-revision-hash":"new","pod-template-generation":"3","trysail.dev/daemonset":"agent"},"name":"agent-bhqpz","namespace":"shop","ownerReferences":[{"apiVersion":"apps.trysail.dev/v1","blockOwnerDeletion":true,"controller":true,"kind":"DaemonSet","name":"agent","uid":"uid-agent"}]},"spec":"…"}"#);
    }

    /// Deleted in the foreground, it sees its pods go one by one.
    #[test]
    fn a_daemon_set_that_goes_makes_no_pods() {
        let mut world = World::new(json!({}), &["a", "b"], &["x a old ready=5"]);
        assert!(world.plan().to_string().contains("(for node b)"));
        world.is_going = true;
        assert_snapshot!(world.plan(), @"waiting on its own deletion");
    }

    #[test]
    fn mistakes_are_told_and_nothing_is_done() {
        let mut world = World::new(json!({"selector": {"matchLabels": {}}}), &["a"], &[]);
        assert_snapshot!(world.plan(), @r"
        event SelectingAll: This daemon set is selecting all pods. A non-empty selector is required.
        waiting on you: spec.selector must not be empty
        ");
        world.spec = json!({"selector": {"matchLabels": {"app": "db"}}});
        assert_snapshot!(world.plan(), @"waiting on you: spec.template.metadata.labels must match spec.selector");
    }

    #[test]
    fn one_look_makes_no_more_than_a_burst() {
        let names: Vec<String> = (0..300).map(|n| format!("n{n}")).collect();
        let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
        let world = World::new(json!({}), &nodes, &[]);
        assert_eq!(world.steps().split(' ').count(), BURST);
        let pods: Vec<String> = (0..300).map(|n| format!("p{n} n{n} failed")).collect();
        let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
        assert_eq!(World::new(json!({}), &nodes, &pods).steps().split(' ').count(), BURST);
    }

    /// Updates wait until every node is in order.
    #[test]
    fn what_is_missing_comes_before_an_update() {
        let world = World::new(json!({}), &["a", "b"], &["y b old ready=9"]);
        assert_eq!(world.steps(), "+a");
    }

    #[test]
    fn it_looks_again_when_a_pod_becomes_available() {
        let mut world = World::new(json!({"minReadySeconds": 30}), &["a"], &["x a ready=5"]);
        world.later(0);
        assert_eq!(world.plan().requeue_at, Some(world.now + SignedDuration::from_millis(100)), "the status");
        world.later(1);
        let due = world.now + SignedDuration::from_secs(24);
        assert_eq!(world.plan().requeue_at, Some(due));
    }
}
