//! The order of the decisions about one ReplicaSet.

use trysail_core::{
    Plan,
    plan::{Action, WaitingOn},
};

use super::{
    Memory, ReplicaSetPlanner, Snapshot,
    claim::{self, Claims},
    failing_pods, failure, min_ready_seconds, replicas,
    status::{self, Counts},
};
use crate::StatusPace;

pub(super) fn plan(planner: ReplicaSetPlanner, snapshot: &Snapshot) -> Plan<Memory> {
    let set = &snapshot.set;
    let memory = Memory { high_slot: snapshot.high_slot, ..snapshot.context.memory.clone() };
    let mut plan = Plan { memory, ..Plan::default() };

    let mut claims = claim::claims(planner, snapshot);
    let counts = Counts::of(snapshot, &claims);
    plan.wave(std::mem::take(&mut claims.actions));

    // Before anything is created or deleted, what forbids it: deletion, a user's mistake, a refusal.
    let mut resize = Vec::new();
    if set.meta.is_terminating() {
        plan.waiting_on.push(WaitingOn::Deletion);
    } else if !set.selector.matches(&set.template.labels) {
        // Such pods would be released as soon as they exist, and made again, for ever.
        let what = "spec.template.metadata.labels must match spec.selector".to_owned();
        plan.waiting_on.push(WaitingOn::User { what });
    } else if let Some(refusal) = failure::barring(snapshot, claims.active.len()) {
        let (message, retry_at) = (refusal.message.clone(), refusal.retry_at);
        plan.waiting_on.push(WaitingOn::Refused { message, retry_at });
        if counts.replicas != set.replicas {
            plan.requeue_by(retry_at);
        }
    } else if let Some(at) = failing_pods::hold_until(snapshot).filter(|_| counts.replicas < set.replicas) {
        plan.waiting_on.push(WaitingOn::Time { at, what: "pods fail right after they are created" });
        plan.requeue_by(at);
    } else {
        resize = replicas::resize(planner, snapshot, &claims.active);
    }
    let is_writing = !plan.is_idle() || !resize.is_empty();
    plan.wave(resize);

    report_status(planner, snapshot, counts, is_writing, &mut plan);
    if let Some(at) = min_ready_seconds::next_available(snapshot, &claims.active) {
        plan.requeue_by(at);
    }
    plan.waiting_on.extend(waits(snapshot, counts, &claims));
    plan
}

fn report_status(
    planner: ReplicaSetPlanner,
    snapshot: &Snapshot,
    counts: Counts,
    is_writing: bool,
    plan: &mut Plan<Memory>,
) {
    let now = snapshot.context.now;
    let pace = snapshot.context.memory.status;
    let write: Option<Action> = status::write(planner, snapshot, counts, is_writing);
    plan.memory.status = match write {
        None => pace.unchanged(),
        Some(write) => {
            let hold = pace.hold_until(now, is_writing);
            match hold.max(failure::status_barred_until(snapshot)) {
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

fn waits(snapshot: &Snapshot, counts: Counts, claims: &Claims<'_>) -> Vec<WaitingOn> {
    let want = snapshot.set.replicas;
    let states = [("created", counts.replicas), ("ready", counts.ready), ("available", counts.available)];
    let lacking = states.into_iter().find(|(_, have)| *have < want);
    let pods = lacking.map(|(state, have)| WaitingOn::Pods { state, have, want });
    let terminating =
        (claims.terminating > 0).then_some(WaitingOn::Terminating { pods: claims.terminating as i32 });
    pods.into_iter().chain(terminating).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use jiff::SignedDuration;
    use serde_json::json;
    use trysail_core::plan::Refusal;

    use crate::fixture::{now, replica_set_plan};

    fn plan(spec: serde_json::Value, pods: &[&str]) -> String {
        replica_set_plan(spec, pods, None)
    }

    #[test]
    fn pods_are_made_under_names_that_follow_from_the_owner() {
        assert_snapshot!(plan(json!({"replicas": 2}), &["a failed", "b going node=n"]), @r#"
        1. create Pod shop/web-xskdp (0 of 2 pods)
        1. create Pod shop/web-mgm57 (0 of 2 pods)
        waiting on 0 of 2 pods created
        waiting on 1 pods still terminating
        look again at 2026-01-01T00:00:11Z
        "#);
    }

    #[test]
    fn with_nothing_to_do_only_the_status_is_written() {
        assert_snapshot!(plan(json!({"replicas": 1, "minReadySeconds": 30}), &["a node=n ready=5"]), @r#"
        1. patch ReplicaSet shop/web status {"fullyLabeledReplicas":1,"observedGeneration":1,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}
        waiting on 0 of 1 pods available
        look again at 2026-01-01T00:00:35Z
        "#);
    }

    #[test]
    fn claims_come_first() {
        assert_snapshot!(plan(json!({"replicas": 1}), &["a node=n ready=5 stray", "b other", "c stray failed"]), @r#"
        1. release Pod shop/b (no longer matches the selector)
        1. adopt Pod shop/a (matches the selector)
        look again at 2026-01-01T00:00:11Z
        "#);
    }

    /// Until the next attempt is due nothing is created, and the condition says why.
    #[test]
    fn a_refusal_bars_creates_and_is_reported() {
        let refused = |retry_in: i64| Refusal {
            action: "CreatePod",
            message: "exceeded quota".to_owned(),
            attempts: 2,
            retry_at: now() + SignedDuration::from_secs(retry_in),
        };
        let plan = |retry_in| replica_set_plan(json!({"replicas": 1}), &[], Some(refused(retry_in)));
        assert_snapshot!(plan(4), @r#"
        1. patch ReplicaSet shop/web status {"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"exceeded quota","reason":"FailedCreate","status":"True","type":"ReplicaFailure"}],"observedGeneration":1,"terminatingReplicas":0}
        waiting on the API server, which refused: exceeded quota (next attempt at 2026-01-01T00:00:14Z)
        waiting on 0 of 1 pods created
        look again at 2026-01-01T00:00:14Z
        "#);
        assert_snapshot!(plan(0), @r#"
        1. create Pod shop/web-xskdp (0 of 1 pods)
        waiting on 0 of 1 pods created
        look again at 2026-01-01T00:00:11Z
        "#);
    }

    /// What was refused bars its like: a quota does not keep pods from being deleted, nor a webhook that wants none
    /// deleted from being created.
    #[test]
    fn a_refusal_bars_its_own_direction_only() {
        let plan = |replicas: i32, action| {
            let retry_at = now() + SignedDuration::from_secs(4);
            let refusal = Refusal { action, message: "refused".to_owned(), attempts: 2, retry_at };
            replica_set_plan(json!({"replicas": replicas}), &["a node=n", "b node=n"], Some(refusal))
        };
        assert!(plan(1, "CreatePod").contains("delete Pod shop/"));
        assert!(plan(3, "DeletePod").contains("create Pod shop/"));
        assert!(!plan(3, "CreatePod").contains("create Pod"));
        assert!(!plan(1, "DeletePod").contains("delete Pod"));
        assert!(!plan(1, "AdoptPod").contains("delete Pod"));
    }

    #[test]
    fn everything_goes_without_being_sorted_when_nothing_is_wanted() {
        assert_snapshot!(plan(json!({"replicas": 0}), &["b node=n", "a node=n ready=5"]), @r#"
        1. delete Pod shop/a (2 of 0 pods)
        1. delete Pod shop/b (2 of 0 pods)
        look again at 2026-01-01T00:00:11Z
        "#);
    }

    /// The fourth failure in a row is replaced a second later, not at once.
    #[test]
    fn pods_that_keep_failing_are_replaced_more_slowly() {
        let failed = ["a failed", "b failed", "c failed", "d failed"];
        assert!(plan(json!({"replicas": 1}), &failed[..2]).contains("create Pod"));
        assert!(plan(json!({"replicas": 2}), &failed).contains("create Pod"));
        let young: Vec<String> = failed.iter().map(|pod| format!("{pod} young")).collect();
        let young: Vec<&str> = young.iter().map(String::as_str).collect();
        let plan = plan(json!({"replicas": 1}), &young);
        assert!(!plan.contains("create Pod"), "{plan}");
        assert!(plan.contains("2026-01-01T00:00:12Z: pods fail right after they are created"), "{plan}");
    }

    #[test]
    fn a_burst_is_bounded() {
        let plan = plan(json!({"replicas": i32::MAX}), &[]);
        assert_eq!(plan.lines().filter(|line| line.contains("create Pod")).count(), super::replicas::BURST);
    }
}
