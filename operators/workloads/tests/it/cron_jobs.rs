//! CronJobs, whatever users, clocks, networks and processes do: no moment runs twice, forbidden runs do not overlap, and
//! in the end the books are right.
//!
//! Deliberate bugs, and the tests that they do not get past (`plan::`, `schedule::` and `time_zone::` are in `src/cronjob`):
//!
//! | bug | caught by |
//! |---|---|
//! | both days have to match when both are restricted | `schedule::moments_are_robfigs` |
//! | the hour beside a midnight that does not exist is not made up for | `schedule::moments_are_robfigs` |
//! | the start is recorded from the status alone, not from the Jobs that are there | `plan::a_job_that_is_there_is_a_run_that_was_started`, `no_moment_runs_twice` |
//! | Forbid is not judged | `plan::forbid_waits_for_the_run_under_way`, and the audit in every property |
//! | an edited schedule makes up for the past | `plan::an_edited_schedule_starts_with_its_next_moment` |
//! | what was told is not remembered | `plan::what_is_past_its_deadline_is_told_once` |
//! | the next moment is not asked for | `an_untouched_schedule_runs_every_moment` |
//! | a run starts although its deadline is over | `plan::what_is_past_its_deadline_is_told_once`, and the audit |
//! | names of time zones are taken whatever their case | `time_zone::what_upstream_does_not_know_is_unknown` |
//! | the history is cut before the status is written | `plan::finished_jobs_leave_the_list_and_then_the_history` |
//! | a start is not remembered when its Job is gone before it was seen | `plan::a_start_is_told_in_one_status` |
//! | what was replaced is told missing | `plan::a_start_is_told_in_one_status` |
//! | Jobs are deleted whatever their uid | the audit, in `plan::replace_deletes_the_run_under_way_first` and two others |
//! | a Job of somebody else with the name is not looked for | `plan::a_stranger_with_the_name_holds_up_one_run_only` |
//! | a suspended CronJob runs | `plan::suspended_or_deleted_it_starts_nothing` |

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use trysail_core::{Face, Key, Resource, resource::PODS};
use trysail_testkit::{
    Cluster, Manager,
    cluster::Writer,
    fixtures::{self, NAMESPACE},
    kinds,
};
use trysail_workloads::cronjob::CronJobPlanner;

#[derive(Clone, Debug)]
enum Op {
    Round,
    /// Seconds pass.
    Tick(i64),
    /// The clock of everybody steps back.
    Back(i64),
    /// The running Job of that place (modulo how many there are) ends.
    Finish(usize, bool),
    Suspend(bool),
    Schedule(usize),
    /// A user makes a Job in the CronJob's name.
    Manual,
    Touch,
    LagJobs(usize),
    LagCronJobs(usize),
    Crash,
    CrashAfter(u32),
    LoseReply(u32),
    LoseRequest(u32),
    Refuse(&'static str, bool),
    /// The Job of that place is deleted, with its pods in the foreground or not.
    Delete(usize, bool),
    /// A Job of somebody else takes the name of a run to come.
    Stranger(i64),
}

const SCHEDULES: [&str; 4] = ["* * * * *", "*/3 * * * *", "0 * * * *", "@every 90s"];

fn calm() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => Just(Op::Round),
        8 => (1..100i64).prop_map(Op::Tick),
        1 => (1000..30_000i64).prop_map(Op::Tick),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(place, well)| Op::Finish(place, well)),
        1 => any::<bool>().prop_map(Op::Suspend),
        1 => (0..SCHEDULES.len()).prop_map(Op::Schedule),
        1 => Just(Op::Manual),
        1 => Just(Op::Touch),
    ]
}

fn stormy() -> impl Strategy<Value = Op> {
    prop_oneof![
        14 => calm(),
        1 => (1..4000i64).prop_map(Op::Back),
        1 => (0..5usize).prop_map(Op::LagJobs),
        1 => (0..5usize).prop_map(Op::LagCronJobs),
        1 => Just(Op::Crash),
        2 => (0..4u32).prop_map(Op::CrashAfter),
        1 => (0..4u32).prop_map(Op::LoseReply),
        1 => (0..4u32).prop_map(Op::LoseRequest),
        1 => (prop_oneof![Just("create"), Just("delete"), Just("update")], any::<bool>())
            .prop_map(|(verb, on)| Op::Refuse(verb, on)),
        1 => (0..3i64).prop_map(Op::Stranger),
    ]
}

/// The same with users who delete Jobs.
fn hostile() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => stormy(),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(place, foreground)| Op::Delete(place, foreground)),
    ]
}

#[derive(Clone, Debug)]
struct Start {
    face: Face,
    policy: &'static str,
    schedule: usize,
    limits: (usize, usize),
    deadline: Option<i64>,
}

fn start() -> impl Strategy<Value = Start> {
    let face = any::<bool>().prop_map(|is_native| if is_native { Face::Native } else { Face::Crd });
    let policy = prop_oneof![Just("Allow"), Just("Forbid"), Just("Replace")];
    let deadline = prop_oneof![3 => Just(None), 1 => (0..200i64).prop_map(Some)];
    (face, policy, 0..SCHEDULES.len(), (0..3usize, 0..3usize), deadline).prop_map(
        |(face, policy, schedule, limits, deadline)| Start { face, policy, schedule, limits, deadline },
    )
}

struct World {
    cluster: Cluster,
    manager: Manager,
    planner: CronJobPlanner,
    start: Start,
    key: Key,
    made: u32,
    /// By how many seconds the clock has stepped back.
    behind: i64,
}

impl World {
    fn new(start: &Start) -> Self {
        let planner = CronJobPlanner::new(start.face);
        let mut cluster = Cluster::default();
        cluster.advance(SignedDuration::from_secs(20));
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "v1"}]}});
        let manifest = json!({
            "apiVersion": planner.resource.api_version(),
            "kind": planner.resource.kind,
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {
                "schedule": SCHEDULES[start.schedule], "concurrencyPolicy": start.policy,
                "successfulJobsHistoryLimit": start.limits.0, "failedJobsHistoryLimit": start.limits.1,
                "startingDeadlineSeconds": start.deadline,
                "jobTemplate": {"spec": {"template": template}},
            },
        });
        cluster.create(planner.resource, manifest, Writer::Other).unwrap();
        let manager = Manager::with(vec![kinds::cron_jobs(start.face)], &cluster);
        Self {
            cluster,
            manager,
            planner,
            start: start.clone(),
            key: Key::new(NAMESPACE, "web"),
            made: 0,
            behind: 0,
        }
    }

    fn cron_job(&self) -> Value {
        (*self.cluster.get(self.planner.resource, &self.key).unwrap()).clone()
    }

    fn patch(&mut self, patch: &Value) {
        let (resource, key) = (self.planner.resource, self.key.clone());
        self.as_user(|cluster| {
            drop(cluster.patch(resource, &key, (None, 0), None, patch, Writer::Other).unwrap());
        });
    }

    /// Refusals are meant for the controller.
    fn as_user(&mut self, act: impl FnOnce(&mut Cluster)) {
        let deny = std::mem::take(&mut self.cluster.policy.deny);
        act(&mut self.cluster);
        self.cluster.policy.deny = deny;
    }

    fn running(&self) -> Vec<Value> {
        let jobs = self.cluster.list(self.planner.jobs);
        jobs.iter().filter(|job| !is_finished(job)).map(|job| (**job).clone()).collect()
    }

    /// A Job of that name, which `owner` controls.
    fn make(&mut self, name: &str, owner: &str) {
        let spec = self.cron_job()["spec"]["jobTemplate"]["spec"].clone();
        let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "web", "uid": owner, "controller": true});
        let metadata = json!({"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]});
        let kind = self.planner.jobs;
        let job =
            json!({"apiVersion": kind.api_version(), "kind": "Job", "metadata": metadata, "spec": spec});
        // The name may be taken.
        self.as_user(|cluster| drop(cluster.create(kind, job, Writer::Other)));
    }

    fn run(&mut self, op: &Op) {
        let jobs = self.planner.jobs;
        match op {
            Op::Round => drop(self.manager.round(&mut self.cluster)),
            Op::Tick(seconds) => self.cluster.advance(SignedDuration::from_secs(*seconds)),
            Op::Back(seconds) => {
                self.cluster.advance(-SignedDuration::from_secs(*seconds));
                self.behind += seconds;
            }
            Op::Finish(place, well) => self.finish(*place, *well),
            Op::Suspend(suspend) => self.patch(&json!({"spec": {"suspend": suspend}})),
            Op::Schedule(place) => self.patch(&json!({"spec": {"schedule": SCHEDULES[*place]}})),
            Op::Manual => {
                self.made += 1;
                let uid = self.cron_job()["metadata"]["uid"].as_str().unwrap().to_owned();
                self.make(&format!("web-manual-{}", self.made), &uid);
            }
            Op::Touch => self.patch(&json!({"metadata": {"annotations": {"at": self.cluster.now}}})),
            Op::LagJobs(events) => self.manager.set_lag_of(jobs, *events),
            Op::LagCronJobs(events) => self.manager.set_lag_of(self.planner.resource, *events),
            Op::Crash => self.manager.crash(&self.cluster),
            Op::CrashAfter(actions) => self.manager.faults.crash_after = Some(*actions),
            Op::LoseReply(actions) => self.manager.faults.lose_reply_after = Some(*actions),
            Op::LoseRequest(actions) => self.manager.faults.lose_request_after = Some(*actions),
            Op::Refuse(verb, true) => {
                let resource = if *verb == "update" { self.planner.resource } else { jobs };
                self.cluster.policy.deny.insert((verb, resource.plural.to_owned()), "no".to_owned());
            }
            Op::Refuse(..) => self.cluster.policy.deny.clear(),
            Op::Delete(place, foreground) => self.delete(*place, *foreground),
            Op::Stranger(minutes) => {
                let minute = self.cluster.now.as_second() / 60 + minutes;
                self.make(&format!("web-{minute}"), "uid-of-somebody");
            }
        }
    }

    fn finish(&mut self, place: usize, well: bool) {
        let Some(key) = key_of(place, &self.running()) else { return };
        let now = trysail_core::condition::whole_seconds(self.cluster.now);
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let outcome = if well { ["SuccessCriteriaMet", "Complete"] } else { ["FailureTarget", "Failed"] };
        let mut status =
            json!({"startTime": now, "conditions": outcome.map(condition), "uncountedTerminatedPods": {}});
        if well {
            status["completionTime"] = json!(now);
            status["succeeded"] = 1.into();
        }
        let (jobs, patch) = (self.planner.jobs, json!({ "status": status }));
        self.as_user(|cluster| {
            cluster.patch(jobs, &key, (None, 0), Some("status"), &patch, Writer::Other).unwrap();
        });
    }

    fn delete(&mut self, place: usize, foreground: bool) {
        let resource = self.planner.jobs;
        let jobs: Vec<Value> = self.cluster.list(resource).iter().map(|job| (**job).clone()).collect();
        let Some(key) = key_of(place, &jobs) else { return };
        self.as_user(|cluster| {
            let is_going = cluster.get(resource, &key).unwrap()["metadata"]["deletionTimestamp"].is_string();
            if foreground && !is_going {
                let held = json!({"metadata": {"finalizers": ["test/held"]}});
                cluster.patch(resource, &key, (None, 0), None, &held, Writer::Other).unwrap();
            }
            cluster.delete(resource, &key, None, Writer::Other).unwrap();
        });
    }

    /// The storm is over: clocks are right, refusals are forgotten, and nothing is left to do.
    fn converge(&mut self) -> Result<(), TestCaseError> {
        self.cluster.policy.deny.clear();
        self.manager.faults = trysail_testkit::manager::Faults::default();
        self.manager.set_lag(0);
        self.cluster.advance(SignedDuration::from_secs(self.behind));
        self.run(&Op::Touch);
        for _ in 0..4 {
            self.cluster.advance(SignedDuration::from_secs(40));
            prop_assert!(self.manager.settle(&mut self.cluster), "{:?}", self.manager.why(&self.cluster));
        }
        prop_assert_eq!(self.manager.round(&mut self.cluster), 0);
        self.books_are_right()
    }

    fn books_are_right(&mut self) -> Result<(), TestCaseError> {
        let cron_job = self.cron_job();
        let uid = cron_job["metadata"]["uid"].clone();
        let own: Vec<_> = self.cluster.list(self.planner.jobs);
        let own: Vec<_> = own.iter().filter(|job| controller(job) == uid).collect();
        let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
        let is_manual = |job: &Value| name(&job["metadata"]).starts_with("web-manual");
        let running: BTreeSet<String> = own
            .iter()
            .filter(|job| !is_finished(job) && !is_manual(job))
            .map(|job| name(&job["metadata"]))
            .collect();
        let entries = cron_job["status"]["active"].as_array().cloned().unwrap_or_default();
        let active: BTreeSet<String> = entries.iter().map(name).collect();
        prop_assert_eq!(active.len(), entries.len(), "a Job is named twice");
        prop_assert_eq!(&active, &running, "{:#?}", self.manager.journal);
        for (condition, limit) in [("Complete", self.start.limits.0), ("Failed", self.start.limits.1)] {
            let is_kept = |job: &&&std::sync::Arc<Value>| {
                has(job, condition) && job["metadata"]["deletionTimestamp"].is_null()
            };
            let kept = own.iter().filter(is_kept).count();
            prop_assert!(kept <= limit, "{kept} Jobs are {condition}, {limit} are kept");
        }
        let last =
            cron_job["status"]["lastScheduleTime"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        let minute =
            |job: &Value| name(&job["metadata"]).strip_prefix("web-").and_then(|text| text.parse().ok());
        let newest: Option<i64> = own.iter().filter_map(|job| minute(job)).max();
        // Only a Job that somebody deleted before its start was recorded may be forgotten.
        prop_assert!(last.map(|last| last.as_second() / 60) >= newest);
        Ok(())
    }

    /// How often each moment was run: creations of its Job, by minute.
    fn runs(&self) -> BTreeMap<i64, BTreeSet<String>> {
        let cron_job = self.cron_job();
        let mut runs: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
        for event in self.cluster.events(self.planner.jobs) {
            let Some(job) = event.object.as_deref() else { continue };
            let minute = event.key.name.strip_prefix("web-").and_then(|text| text.parse().ok());
            if let Some(minute) = minute.filter(|_| controller(job) == cron_job["metadata"]["uid"]) {
                runs.entry(minute).or_default().insert(job["metadata"]["uid"].to_string());
            }
        }
        runs
    }

    fn no_moment_ran_twice(&self) -> Result<(), TestCaseError> {
        for (minute, uids) in self.runs() {
            prop_assert!(
                uids.len() == 1,
                "minute {minute} ran {} times: {:#?}",
                uids.len(),
                self.manager.journal
            );
        }
        Ok(())
    }

    /// At every write of the history: how many runs were under way.
    fn most_at_once(&self) -> usize {
        let uid = self.cron_job()["metadata"]["uid"].clone();
        let mut running = BTreeSet::new();
        let mut most = 0;
        for event in self.cluster.events(self.planner.jobs) {
            let is_run = event.key.name.strip_prefix("web-").is_some_and(|text| text.parse::<i64>().is_ok());
            match event.object.as_deref() {
                Some(job) if is_run && !is_finished(job) && controller(job) == uid => {
                    running.insert(event.key.clone());
                }
                _ => drop(running.remove(&event.key)),
            }
            most = most.max(running.len());
        }
        most
    }
}

fn key_of(place: usize, jobs: &[Value]) -> Option<Key> {
    let job = jobs.get(place.checked_rem(jobs.len())?)?;
    Some(Key::new(NAMESPACE, job["metadata"]["name"].as_str()?))
}

fn controller(job: &Value) -> Value {
    job["metadata"]["ownerReferences"][0]["uid"].clone()
}

fn has(job: &Value, kind: &str) -> bool {
    let conditions = job["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|held| held["type"] == kind && held["status"] == "True"))
}

fn is_finished(job: &Value) -> bool {
    has(job, "Complete") || has(job, "Failed")
}

fn play(start: &Start, ops: &[Op]) -> Result<World, TestCaseError> {
    let mut world = World::new(start);
    for op in ops {
        world.run(op);
    }
    if start.policy == "Forbid" {
        prop_assert!(world.most_at_once() <= 1, "{:#?}", world.manager.journal);
    }
    world.converge()?;
    Ok(world)
}

proptest! {
    /// Users edit at any moment. Nothing runs twice, forbidden runs do not overlap, histories are kept short.
    #[test]
    fn a_cron_job_follows_its_users(start in start(), ops in vec(calm(), 1..60)) {
        play(&start, &ops)?.no_moment_ran_twice()?;
    }

    /// Crashes after any action, lost requests and replies, late views, refusals and clocks that step back change
    /// nothing of that.
    #[test]
    fn no_moment_runs_twice(start in start(), ops in vec(stormy(), 1..90)) {
        play(&start, &ops)?.no_moment_ran_twice()?;
    }

    /// Jobs that users delete, too: the books are right in the end, and Forbid is kept.
    #[test]
    fn a_cron_job_survives_a_hostile_cluster(start in start(), ops in vec(hostile(), 1..90)) {
        play(&start, &ops)?;
    }

    /// Without the gate: a Job that was created and is not seen yet is not created again.
    #[test]
    fn a_late_view_of_jobs_starts_nothing_twice(lag in 1..6usize, ticks in vec(1..70i64, 1..20)) {
        let start = Start { face: Face::Crd, policy: "Allow", schedule: 0, limits: (9, 9), deadline: None };
        let mut world = World::new(&start);
        world.manager.is_gated = false;
        world.run(&Op::LagJobs(lag));
        for seconds in ticks {
            world.run(&Op::Tick(seconds));
            for _ in 0..3 {
                world.run(&Op::Round);
            }
            world.no_moment_ran_twice()?;
        }
    }
}

/// Nobody has to touch a CronJob for it to run: the plan asks for the next moment, to the tenth of a second.
#[test]
fn an_untouched_schedule_runs_every_moment() {
    let start =
        Start { face: Face::Native, policy: "Allow", schedule: 0, limits: (3, 1), deadline: Some(10) };
    let mut world = World::new(&start);
    assert!(world.manager.settle(&mut world.cluster));
    let first = world.cluster.now.as_second() / 60;
    for _ in 0..30 {
        let within = SignedDuration::from_secs(120);
        world.cluster.now = world.manager.next_wake(world.cluster.now, within).expect("a moment to wait for");
        assert!(world.manager.settle(&mut world.cluster));
        world.finish(0, true);
        assert!(world.manager.settle(&mut world.cluster));
    }
    let runs: Vec<i64> = world.runs().into_keys().collect();
    assert_eq!(runs, (first + 1..=first + 30).collect::<Vec<_>>());
    assert_eq!(world.cluster.list(world.planner.jobs).len(), 3);
}

/// A process that dies after any action of any plan of a minute: the minute runs once, and is recorded.
#[test]
fn a_crash_after_every_action_loses_and_repeats_nothing() {
    for policy in ["Allow", "Forbid", "Replace"] {
        for crash_after in 0..12 {
            let start = Start { face: Face::Crd, policy, schedule: 0, limits: (1, 0), deadline: None };
            let mut world = World::new(&start);
            world.manager.faults.crash_after = Some(crash_after);
            let first = world.cluster.now.as_second() / 60;
            for minute in 0..4 {
                world.cluster.advance(SignedDuration::from_secs(60));
                assert!(world.manager.settle(&mut world.cluster));
                if policy == "Forbid" || minute == 2 {
                    world.finish(0, minute % 2 == 0);
                    assert!(world.manager.settle(&mut world.cluster));
                }
            }
            let runs = world.runs();
            assert_eq!(
                runs.keys().copied().collect::<Vec<_>>(),
                (first + 1..=first + 4).collect::<Vec<_>>(),
                "{policy} {crash_after}"
            );
            assert!(runs.values().all(|uids| uids.len() == 1), "{policy} {crash_after}: {runs:?}");
            let expected = if policy == "Allow" { 3 } else { usize::from(policy == "Replace") };
            assert_eq!(
                world.running().len(),
                expected,
                "{policy} {crash_after}: {:#?}",
                world.manager.journal
            );
        }
    }
}

/// No event is told twice about the same thing while it holds, and none that would alarm anybody in a quiet life.
#[test]
fn a_quiet_life_gives_no_warnings() {
    let start = Start { face: Face::Native, policy: "Allow", schedule: 0, limits: (1, 1), deadline: None };
    let mut world = World::new(&start);
    for _ in 0..10 {
        world.cluster.advance(SignedDuration::from_secs(60));
        assert!(world.manager.settle(&mut world.cluster));
        world.finish(0, true);
        assert!(world.manager.settle(&mut world.cluster));
    }
    let events: Vec<_> = world.manager.journal.iter().filter(|line| line.starts_with("event ")).collect();
    let unexpected: Vec<_> = events
        .iter()
        .filter(|line| {
            !["SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"]
                .iter()
                .any(|word| line.contains(word))
        })
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    let of = |word: &str| events.iter().filter(|line| line.contains(word)).count();
    assert_eq!((of("SuccessfulCreate"), of("SawCompletedJob"), of("SuccessfulDelete")), (10, 10, 9));
}

/// Ten thousand CronJobs of the same minute: each is looked at once when it comes and creates one Job, whatever is due
/// beside it; none is looked at in between. What others want in that minute, they get as if the crowd were not there.
#[test]
fn a_crowd_of_one_minute_is_run_in_one_round_and_starves_nobody() {
    const CROWD: usize = 10_000;
    let start = Start { face: Face::Native, policy: "Allow", schedule: 0, limits: (3, 1), deadline: None };
    let mut world = World::new(&start);
    let resource: Resource = world.planner.resource;
    for number in 1..CROWD {
        let mut manifest = world.cron_job();
        manifest["metadata"] = json!({"name": format!("crowd-{number}"), "namespace": NAMESPACE});
        world.cluster.create(resource, manifest, Writer::Other).unwrap();
    }
    let face = start.face;
    let others = vec![kinds::cron_jobs(face), kinds::deployments(face), kinds::replica_sets(face)];
    world.manager = Manager::with(others, &world.cluster);
    assert!(world.manager.settle(&mut world.cluster));
    let (before, written) = (world.manager.actions, world.cluster.events(resource).len());
    world.cluster.advance(SignedDuration::from_secs(39));
    assert!(world.manager.settle(&mut world.cluster));
    assert_eq!(world.manager.actions, before, "nothing is done between two minutes");
    world.cluster.advance(SignedDuration::from_secs(2));
    let web = fixtures::deployment(face, "latecomer", 3, "v1");
    world.cluster.create(Resource::deployments(face), web, Writer::Other).unwrap();
    world.manager.round(&mut world.cluster);
    assert_eq!(world.cluster.list(world.planner.jobs).len(), CROWD);
    assert_eq!(
        world.cluster.list(Resource::replica_sets(face)).len(),
        1,
        "its first step is in the same round"
    );
    assert!(world.manager.settle(&mut world.cluster));
    assert_eq!(world.cluster.list(PODS).len(), 3);
    assert_eq!(world.cluster.created(world.planner.jobs), CROWD);
    let written = world.cluster.events(resource).len() - written;
    assert_eq!(written, CROWD, "one status that tells of its Job for each");
}
