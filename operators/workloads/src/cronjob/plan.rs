//! The order of the decisions about one CronJob.

use jiff::{SignedDuration, Timestamp};
use trysail_core::{
    Key, Plan,
    plan::{Refusal, WaitingOn},
};

use super::{
    CronJobPlanner, Memory, Snapshot, concurrency_policy, history_limits,
    job_template::{self, CREATE},
    ledger::Ledger,
    notes::Notes,
    run::{self, Verdict},
    status,
    timing::{Due, Timing, deadline},
};

/// Looks come this long after the moment they are for, upstream's number: clocks that differ by less do not make one
/// come early and find nothing.
const PAD: SignedDuration = SignedDuration::from_millis(100);

/// Refused actions are tried again well before this: what bars for longer is a clock that stepped back.
const LONGEST_BAR: SignedDuration = SignedDuration::from_mins(2);

/// The status of a run that was started follows when its Job is in view, or else after this time.
const STATUS_FOLLOWS: SignedDuration = SignedDuration::from_secs(1);

/// A taken name is looked at again after this time: nothing tells when a stranger's Job goes.
const TAKEN_RETRY: SignedDuration = SignedDuration::from_secs(10);

pub(super) fn plan(planner: CronJobPlanner, snapshot: &Snapshot) -> Plan<Memory> {
    let mut plan = Plan { memory: snapshot.context.memory.clone(), ..Plan::default() };
    let mut notes = Notes::default();
    let ledger = Ledger::of(planner, snapshot, &mut notes);
    let verdict = run::judge(snapshot, &ledger, &mut notes);
    look_again(planner, snapshot, (&verdict, &ledger), &mut plan);

    if let Verdict::Start(due) = verdict
        && start(planner, snapshot, due, &ledger, &mut plan)
    {
        // The Job's uid belongs in the status, so one write follows that says all. Until then no Job goes that proves an
        // earlier run.
        plan.requeue_by(snapshot.context.now + STATUS_FOLLOWS);
        notes.tell(&mut plan);
        return plan;
    }
    // One status write a plan, before the Jobs go that prove earlier runs.
    let refused = standing(snapshot).filter(|refusal| refusal.action == CREATE);
    let progress = status::progress(&verdict, refused.map(|refusal| refusal.message.as_str()));
    plan.wave(status::write(planner, snapshot, &ledger, progress).into_iter().collect());
    let surplus = history_limits::surplus(planner, snapshot);
    match barring(snapshot, concurrency_policy::DELETE) {
        Some(refusal) if !surplus.is_empty() => plan.requeue_by(refusal.retry_at),
        _ => plan.wave(surplus),
    }
    notes.tell(&mut plan);
    plan
}

/// Starts the run of `due`, unless the server refused that a moment ago; answers whether it does.
fn start(
    planner: CronJobPlanner,
    snapshot: &Snapshot,
    due: Due,
    ledger: &Ledger,
    plan: &mut Plan<Memory>,
) -> bool {
    let replaced = concurrency_policy::make_way(planner, snapshot, ledger);
    let barred_delete = barring(snapshot, concurrency_policy::DELETE).filter(|_| !replaced.is_empty());
    if let Some(refusal) = barring(snapshot, CREATE).or(barred_delete) {
        let Refusal { message, retry_at, .. } = refusal.clone();
        plan.waiting_on.push(WaitingOn::Refused { message, retry_at });
        plan.requeue_by(retry_at);
        return false;
    }
    plan.memory.attempted = snapshot.cron_job.meta.generation;
    let uids = replaced.iter().filter_map(|action| action.target.uid.clone()).collect();
    plan.memory_when_done = Some(Memory { started: Some(due.time), replaced: uids, ..plan.memory.clone() });
    plan.wave(replaced);
    plan.wave(vec![job_template::create(planner, &snapshot.cron_job, due.time)]);
    true
}

/// When to look again though nothing happens, and what for.
fn look_again(
    planner: CronJobPlanner,
    snapshot: &Snapshot,
    (verdict, ledger): (&Verdict, &Ledger),
    plan: &mut Plan<Memory>,
) {
    let next = match &snapshot.timing {
        Timing::Running { next, .. } => *next,
        Timing::UnknownTimeZone(_) | Timing::Unparseable(_) | Timing::Never => None,
    };
    let now = snapshot.context.now;
    match verdict {
        Verdict::Deleted => plan.waiting_on.push(WaitingOn::Deletion),
        Verdict::Broken { message, .. } => plan.waiting_on.push(WaitingOn::User { what: message.clone() }),
        Verdict::Suspended => {
            plan.waiting_on.push(WaitingOn::User { what: "spec.suspend to be unset".to_owned() });
        }
        Verdict::Idle | Verdict::Late | Verdict::Start(_) => wait_until(next, "the next run", plan),
        Verdict::Blocked(due) => {
            let running = ledger.running(snapshot).map(|job| job.meta.key.clone());
            let ends = running.map(|key| WaitingOn::Object { resource: planner.jobs, key, until: "finish" });
            plan.waiting_on.extend(ends);
            wait_until(deadline(&snapshot.cron_job, due.time), "spec.startingDeadlineSeconds", plan);
            wait_until(next, "the next run", plan);
        }
        Verdict::NameTaken { job } => {
            let key = Key::new(snapshot.cron_job.meta.key.namespace.clone(), job.as_str());
            plan.waiting_on.push(WaitingOn::Object { resource: planner.jobs, key, until: "be gone" });
            plan.requeue_by(now + TAKEN_RETRY);
            wait_until(next, "the next run", plan);
        }
    }
}

fn wait_until(at: Option<Timestamp>, what: &'static str, plan: &mut Plan<Memory>) {
    let Some(at) = at else { return };
    plan.waiting_on.push(WaitingOn::Time { at, what });
    if let Ok(padded) = at.checked_add(PAD) {
        plan.requeue_by(padded);
    }
}

/// The last refusal, unless it speaks of a spec that has been edited since.
fn standing(snapshot: &Snapshot) -> Option<&Refusal> {
    let is_current = snapshot.context.memory.attempted == snapshot.cron_job.meta.generation;
    snapshot.context.refusal.as_ref().filter(|refusal| is_current || refusal.action != CREATE)
}

/// The refusal that bars this kind of action, if its time has not passed.
fn barring<'a>(snapshot: &'a Snapshot, action: &str) -> Option<&'a Refusal> {
    let refusal = standing(snapshot).filter(|refusal| refusal.action == action)?;
    let wait = refusal.retry_at.duration_since(snapshot.context.now);
    (SignedDuration::ZERO < wait && wait <= LONGEST_BAR).then_some(refusal)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use jiff::SignedDuration;
    use serde_json::{Value, json};
    use trysail_core::{Face, plan::Refusal};

    use crate::fixture::{CronJobCase, now};

    fn plan(spec: Value, status: &Value, jobs: &[&str]) -> String {
        CronJobCase::new(spec, status, jobs).plan().to_string()
    }

    fn every_minute() -> Value {
        json!({"schedule": "* * * * *"})
    }

    /// Ran for the minute before; its Job goes on.
    fn ran() -> Value {
        json!({"lastScheduleTime": "2025-12-31T23:59:00Z"})
    }

    #[test]
    fn a_run_is_a_job_named_after_its_minute() {
        let case =
            CronJobCase::new(json!({"schedule": "*/5 * * * *", "timeZone": "Asia/Tokyo"}), &json!({}), &[]);
        assert_snapshot!(case.plan(), @r#"
        1. create Job shop/web-29453760 (scheduled for 2026-01-01T09:00:00+09:00)
        event TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
        waiting on 2026-01-01T00:05:00Z: the next run
        look again at 2026-01-01T00:00:11Z
        "#);
        assert_snapshot!(serde_json::to_string_pretty(&case.created()).unwrap(), @r#"
        {
          "apiVersion": "batch.trysail.dev/v1",
          "kind": "Job",
          "metadata": {
            "annotations": {
              "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-01-01T09:00:00+09:00",
              "team": "shop"
            },
            "labels": {
              "app": "web"
            },
            "name": "web-29453760",
            "namespace": "shop",
            "ownerReferences": [
              {
                "apiVersion": "batch.trysail.dev/v1",
                "blockOwnerDeletion": true,
                "controller": true,
                "kind": "CronJob",
                "name": "web",
                "uid": "uid-web"
              }
            ]
          },
          "spec": {
            "newer": {
              "than": "our types"
            },
            "template": {
              "metadata": {
                "labels": {
                  "app": "web"
                }
              },
              "spec": {
                "containers": [
                  {
                    "image": "v1",
                    "name": "main"
                  }
                ]
              }
            }
          }
        }
        "#);
    }

    /// The status follows when the Job is seen, also when the reply to its creation or the status was lost.
    #[test]
    fn a_job_that_is_there_is_a_run_that_was_started() {
        assert_snapshot!(plan(every_minute(), &ran(), &["29453760"]), @r#"
        1. patch CronJob shop/web status {"active":[{"apiVersion":"batch.trysail.dev/v1","kind":"Job","name":"web-29453760","namespace":"shop","resourceVersion":"1","uid":"uid-29453760"}],"activeJobs":1,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"runs on schedule","reason":"AsWanted","status":"True","type":"Ready"}],"containers":"main","images":"v1","lastScheduleTime":"2026-01-01T00:00:00Z","observedGeneration":1}
        waiting on 2026-01-01T00:01:00Z: the next run
        look again at 2026-01-01T00:01:00.1Z
        "#);
    }

    #[test]
    fn with_nothing_due_the_next_minute_is_waited_for() {
        assert_snapshot!(plan(every_minute(), &json!({"lastScheduleTime": "2026-01-01T00:00:00Z"}), &[]), @r#"
        1. patch CronJob shop/web status {"activeJobs":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"runs on schedule","reason":"AsWanted","status":"True","type":"Ready"}],"containers":"main","images":"v1","observedGeneration":1}
        waiting on 2026-01-01T00:01:00Z: the next run
        look again at 2026-01-01T00:01:00.1Z
        "#);
    }

    #[test]
    fn finished_jobs_leave_the_list_and_then_the_history() {
        let spec =
            json!({"schedule": "0 0 1 1 *", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0});
        let status = json!({"lastScheduleTime": "2026-01-01T00:00:00Z", "active": [{"name": "web-29453760", "uid": "uid-29453760", "kind": "Job"}]});
        let jobs = ["29453758 done", "29453759 done", "29453760 done", "29453750 failed"];
        assert_snapshot!(plan(spec, &status, &jobs), @r#"
        1. patch CronJob shop/web status {"active":null,"activeJobs":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"runs on schedule","reason":"AsWanted","status":"True","type":"Ready"}],"containers":"main","images":"v1","lastSuccessfulTime":"2026-01-01T00:00:00Z","observedGeneration":1}
        2. delete Job shop/web-29453758 (beyond spec.successfulJobsHistoryLimit)
        2. delete Job shop/web-29453759 (beyond spec.successfulJobsHistoryLimit)
        2. delete Job shop/web-29453750 (beyond spec.failedJobsHistoryLimit)
        event SawCompletedJob: Saw completed job: web-29453760, condition: Complete
        waiting on 2027-01-01T00:00:00Z: the next run
        look again at 2027-01-01T00:00:00.1Z
        "#);
    }

    #[test]
    fn forbid_waits_for_the_run_under_way() {
        let spec =
            json!({"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "startingDeadlineSeconds": 30});
        assert_snapshot!(plan(spec, &ran(), &["29453759"]), @r#"
        1. patch CronJob shop/web status {"active":[{"apiVersion":"batch.trysail.dev/v1","kind":"Job","name":"web-29453759","namespace":"shop","resourceVersion":"1","uid":"uid-29453759"}],"activeJobs":1,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"runs on schedule","reason":"AsWanted","status":"True","type":"Ready"}],"containers":"main","images":"v1","observedGeneration":1}
        event JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid
        waiting on Job shop/web-29453759 to finish
        waiting on 2026-01-01T00:00:30Z: spec.startingDeadlineSeconds
        waiting on 2026-01-01T00:01:00Z: the next run
        look again at 2026-01-01T00:00:30.1Z
        "#);
    }

    #[test]
    fn replace_deletes_the_run_under_way_first() {
        let spec = json!({"schedule": "* * * * *", "concurrencyPolicy": "Replace"});
        assert_snapshot!(plan(spec, &ran(), &["29453758 going", "29453759"]), @r#"
        1. delete Job shop/web-29453759 (replaced by the next run)
        2. create Job shop/web-29453760 (scheduled for 2026-01-01T00:00:00Z)
        waiting on 2026-01-01T00:01:00Z: the next run
        look again at 2026-01-01T00:00:11Z
        "#);
    }

    /// As upstream, a start is told in one status: which Job runs, and since which moment. Should the Job be gone before
    /// it was seen, its moment has run all the same; and what was replaced is not missing.
    #[test]
    fn a_start_is_told_in_one_status() {
        let spec = json!({"schedule": "* * * * *", "concurrencyPolicy": "Replace"});
        let before =
            json!({"apiVersion": "batch/v1", "kind": "Job", "name": "web-29453759", "uid": "uid-29453759"});
        let mut status = ran();
        status["active"] = json!([before]);
        let plan = |case: &CronJobCase| {
            let plan = case.plan();
            let events: Vec<_> = plan.events.iter().map(|event| event.reason).collect();
            let statuses: Vec<_> = plan.actions().filter(|action| action.reason == "UpdateStatus").collect();
            let text = statuses.iter().map(ToString::to_string).collect::<String>();
            (events, statuses.len(), text, plan.actions().any(|action| action.reason == super::CREATE))
        };
        let start = CronJobCase::new(spec.clone(), &status, &["29453759"]);
        let (events, statuses, _, creates) = plan(&start);
        assert_eq!((events, statuses, creates), (vec![], 0, true));
        let memory = start.plan().memory_when_done.unwrap();
        for (jobs, is_active) in [(&["29453760"][..], true), (&[], false)] {
            let mut seen = CronJobCase::new(spec.clone(), &status, jobs).with_memory(memory.clone());
            seen.face = Face::Native;
            let (events, statuses, text, creates) = plan(&seen);
            assert_eq!((events, statuses, creates), (vec![], 1, false), "{jobs:?}");
            assert!(text.contains(r#""lastScheduleTime":"2026-01-01T00:00:00Z""#), "{text}");
            assert_eq!(text.contains("uid-29453760"), is_active, "{text}");
            assert!(!text.contains("uid-29453759"), "{text}");
        }
        // What became of the create is not known: it is tried again.
        let unsure = CronJobCase::new(spec, &status, &[]).with_memory(start.plan().memory);
        assert!(plan(&unsure).3);
    }

    #[test]
    fn what_is_past_its_deadline_is_told_once() {
        let spec = json!({"schedule": "* * * * *", "startingDeadlineSeconds": 5});
        let case = CronJobCase::new(spec, &ran(), &[]);
        assert_snapshot!(case.plan(), @r#"
        1. patch CronJob shop/web status {"activeJobs":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"runs on schedule","reason":"AsWanted","status":"True","type":"Ready"}],"containers":"main","images":"v1","observedGeneration":1}
        event MissSchedule: Missed scheduled time to start a job: Thu, 01 Jan 2026 00:00:00 +0000
        waiting on 2026-01-01T00:01:00Z: the next run
        look again at 2026-01-01T00:01:00.1Z
        "#);
        let again = case.with_memory(case.plan().memory).plan();
        assert_eq!(again.events, []);
    }

    /// Foreign Jobs and those that users made in its name are left alone and counted by nobody.
    #[test]
    fn only_what_it_started_counts() {
        let spec =
            json!({"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 0});
        assert_snapshot!(plan(spec, &ran(), &["manual", "29453758 stranger", "29453757 done stranger", "99999999999"]), @r#"
        1. create Job shop/web-29453760 (scheduled for 2026-01-01T00:00:00Z)
        event UnexpectedJob: Saw a job that the controller did not create or forgot: web-99999999999
        event UnexpectedJob: Saw a job that the controller did not create or forgot: web-manual
        waiting on 2026-01-01T00:01:00Z: the next run
        look again at 2026-01-01T00:00:11Z
        "#);
    }

    #[test]
    fn a_stranger_with_the_name_holds_up_one_run_only() {
        assert_snapshot!(plan(every_minute(), &ran(), &["29453760 stranger"]), @r#"
        1. patch CronJob shop/web status {"activeJobs":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"web-29453760 exists and this CronJob does not control it","reason":"FailedCreate","status":"False","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"web-29453760 exists and this CronJob does not control it","reason":"FailedCreate","status":"True","type":"Reconciling"}],"containers":"main","images":"v1","observedGeneration":1}
        event FailedCreate: Error creating job: web-29453760 exists and this CronJob does not control it
        waiting on Job shop/web-29453760 to be gone
        waiting on 2026-01-01T00:01:00Z: the next run
        look again at 2026-01-01T00:00:20Z
        "#);
    }

    #[test]
    fn what_the_user_has_to_change_is_said() {
        for (spec, reason) in [
            (json!({"schedule": "30 2 31 2 *"}), "InvalidSchedule"),
            (json!({"schedule": "every day"}), "UnparseableSchedule"),
            (json!({"schedule": "@daily", "timeZone": "Mars/Olympus"}), "UnknownTimeZone"),
        ] {
            let plan = CronJobCase::new(spec, &json!({}), &[]).plan();
            let told: Vec<_> = plan.events.iter().map(|event| event.reason).collect();
            assert_eq!(told, [reason]);
            assert_eq!(plan.requeue_at, None, "nothing changes by itself");
            assert!(plan.to_string().contains("waiting on you: "), "{plan}");
        }
    }

    #[test]
    fn suspended_or_deleted_it_starts_nothing() {
        let suspended = plan(json!({"schedule": "* * * * *", "suspend": true}), &ran(), &[]);
        assert!(!suspended.contains("create"), "{suspended}");
        assert!(!suspended.contains("look again"), "{suspended}");
        let mut case = CronJobCase::new(every_minute(), &ran(), &[]);
        case.cron_job["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:09Z");
        assert!(!case.plan().to_string().contains("create"));
    }

    /// An edit of the schedule does not make up for moments that the new one would have had.
    #[test]
    fn an_edited_schedule_starts_with_its_next_moment() {
        let status = json!({"lastScheduleTime": "2025-06-01T00:00:00Z"});
        let before = CronJobCase::new(json!({"schedule": "0 0 1 6 *"}), &status, &[]);
        let memory = before.plan().memory;
        let after =
            CronJobCase::new(json!({"schedule": "* * * * *"}), &status, &[]).with_memory(memory.clone());
        assert_snapshot!(after.plan(), @r#"
        1. patch CronJob shop/web status {"activeJobs":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"runs on schedule","reason":"AsWanted","status":"True","type":"Ready"}],"containers":"main","images":"v1","observedGeneration":1}
        waiting on 2026-01-01T00:01:00Z: the next run
        look again at 2026-01-01T00:01:00.1Z
        "#);
        let later = after.with_memory(after.plan().memory).at(now() + SignedDuration::from_secs(50));
        assert!(later.plan().to_string().contains("create Job shop/web-29453761"), "{}", later.plan());
    }

    #[test]
    fn more_than_a_hundred_missed_runs_are_told_and_the_last_one_started() {
        let status = json!({"lastScheduleTime": "2025-12-31T22:19:00Z"});
        let plan = plan(every_minute(), &status, &[]);
        assert!(plan.contains("event TooManyMissedTimes: too many missed start times."), "{plan}");
        assert!(plan.contains("create Job shop/web-29453760"), "{plan}");
    }

    /// Until the next attempt is due nothing is created, and the condition says why; an edited spec is tried at once.
    #[test]
    fn a_refusal_bars_the_start_and_is_reported() {
        let retry_at = now() + SignedDuration::from_secs(4);
        let refusal =
            Refusal { action: super::CREATE, message: "exceeded quota".to_owned(), attempts: 2, retry_at };
        let mut case = CronJobCase::new(every_minute(), &ran(), &[]);
        case.refusal = Some(refusal);
        let case = case.with_memory(super::Memory { attempted: 1, ..super::Memory::default() });
        assert_snapshot!(case.plan(), @r#"
        1. patch CronJob shop/web status {"activeJobs":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"exceeded quota","reason":"FailedCreate","status":"False","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"exceeded quota","reason":"FailedCreate","status":"True","type":"Reconciling"}],"containers":"main","images":"v1","observedGeneration":1}
        waiting on 2026-01-01T00:01:00Z: the next run
        waiting on the API server, which refused: exceeded quota (next attempt at 2026-01-01T00:00:14Z)
        look again at 2026-01-01T00:00:14Z
        "#);
        let mut edited = case;
        edited.cron_job["metadata"]["generation"] = json!(2);
        assert!(edited.plan().to_string().contains("create Job"), "{}", edited.plan());
    }

    #[test]
    fn native_statuses_have_upstreams_fields_only() {
        let mut case = CronJobCase::new(every_minute(), &ran(), &["29453760", "29453759 done"]);
        case.face = Face::Native;
        assert_snapshot!(case.plan(), @r#"
        1. patch CronJob shop/web status {"active":[{"apiVersion":"batch/v1","kind":"Job","name":"web-29453760","namespace":"shop","resourceVersion":"1","uid":"uid-29453760"}],"lastScheduleTime":"2026-01-01T00:00:00Z","lastSuccessfulTime":"2025-12-31T23:59:00Z"}
        waiting on 2026-01-01T00:01:00Z: the next run
        look again at 2026-01-01T00:01:00.1Z
        "#);
    }
}
