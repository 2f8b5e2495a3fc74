//! The queue's promises, as properties of its state machine and probes of the whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use trysail_sdk::{
    metrics::Metrics,
    queue::{
        Cause, Finish, LOW_PRIORITY, NORMAL_PRIORITY, Queue, QueueConfig,
        state::{AGING_SHARE, Next, QueueState},
    },
};

const WHY: Cause = Cause::Request("test");

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn pop(queue: &mut QueueState<u32>, now: Duration) -> Option<u32> {
    match queue.next(now) {
        Next::Item(item) => Some(item.key),
        Next::At(_) | Next::Idle | Next::ShutDown => None,
    }
}

/// Probe "order": kube-runtime's hash-ordered queue displaces keys by a third of the queue's length.
#[test]
fn order() {
    let mut queue = QueueState::new(QueueConfig::default());
    for key in 0..1000 {
        queue.add(&key, NORMAL_PRIORITY, WHY, at(0));
    }
    let served: Vec<u32> = std::iter::from_fn(|| pop(&mut queue, at(1))).collect();
    assert_eq!(served, (0..1000).collect::<Vec<_>>());
}

/// Probe "starvation": 200 keys that are always hot never delay 200 cold ones beyond one round.
#[test]
fn starvation() {
    let mut queue = QueueState::new(QueueConfig::default());
    for key in 0..400 {
        queue.add(&key, NORMAL_PRIORITY, WHY, at(0));
    }
    let mut cold = BTreeSet::new();
    for turn in 0..400 {
        let key = pop(&mut queue, at(turn)).unwrap();
        if key < 200 {
            queue.add(&key, NORMAL_PRIORITY, WHY, at(turn));
        } else {
            cold.insert(key);
        }
        queue.finish(&key, Finish::Success { again_after: None }, at(turn));
    }
    assert_eq!(cold.len(), 200);
}

/// The stated bound for keys of a low priority: 8 turns for each key that has waited longer.
#[test]
fn aging_bounds_the_wait_of_low_priorities() {
    let mut queue = QueueState::new(QueueConfig::default());
    for key in 0..100 {
        queue.add(&key, LOW_PRIORITY, WHY, at(0));
    }
    for hot in 1000..1010 {
        queue.add(&hot, NORMAL_PRIORITY, WHY, at(0));
    }
    let mut last_served = BTreeMap::new();
    for turn in 0..100 * AGING_SHARE {
        let key = pop(&mut queue, at(turn)).unwrap();
        if key >= 1000 {
            queue.add(&key, NORMAL_PRIORITY, WHY, at(turn));
        } else {
            last_served.insert(key, turn);
        }
        queue.finish(&key, Finish::Success { again_after: None }, at(turn));
    }
    for key in 0..100 {
        let bound = AGING_SHARE * (u64::from(key) + 1);
        assert!(last_served.get(&key).is_some_and(|turn| *turn < bound), "{key}: {last_served:?}");
    }
}

/// A live change overtakes the initial list.
#[test]
fn live_changes_overtake_the_initial_list_and_lift_their_key() {
    let mut queue = QueueState::new(QueueConfig::default());
    for key in 0..100 {
        queue.add(&key, LOW_PRIORITY, WHY, at(0));
    }
    assert_eq!(pop(&mut queue, at(1)), Some(0), "the first turn goes to the oldest");
    queue.add(&50, NORMAL_PRIORITY, WHY, at(2));
    queue.add(&200, NORMAL_PRIORITY, WHY, at(2));
    assert_eq!(pop(&mut queue, at(3)), Some(50));
    assert_eq!(pop(&mut queue, at(3)), Some(200));
    assert_eq!(pop(&mut queue, at(3)), Some(1));
}

#[test]
fn delays_double_up_to_the_cap_and_success_resets_them() {
    let config = QueueConfig::default();
    let mut queue = QueueState::new(config);
    queue.add(&1, NORMAL_PRIORITY, WHY, at(0));
    let mut now = at(0);
    for expected in [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 20480, 30000, 30000] {
        assert_eq!(pop(&mut queue, now), Some(1));
        queue.finish(&1, Finish::Failure, now);
        assert_eq!(pop(&mut queue, now + at(expected).saturating_sub(Duration::from_nanos(1))), None);
        now += at(expected);
    }
    assert_eq!(pop(&mut queue, now), Some(1));
    queue.finish(&1, Finish::Success { again_after: None }, now);
    queue.add(&1, NORMAL_PRIORITY, WHY, now);
    assert_eq!(pop(&mut queue, now), Some(1));
    queue.finish(&1, Finish::Failure, now);
    assert_eq!(pop(&mut queue, now + at(5)), Some(1));
}

/// Events about a failing key run it early, but neither lengthen its backoff (kubernetes #132805) nor turn it
/// into a hot loop.
#[test]
fn early_triggers_of_a_failing_key_neither_lengthen_nor_bypass_its_backoff() {
    let mut queue = QueueState::new(QueueConfig::default());
    queue.add(&1, NORMAL_PRIORITY, WHY, at(0));
    let mut now = at(0);
    for _ in 0..13 {
        assert_eq!(pop(&mut queue, now), Some(1));
        queue.finish(&1, Finish::Failure, now);
        let Next::At(next) = queue.next(now) else { panic!("it is to be retried") };
        now = next;
    }
    let retry = now;
    let failed = retry.saturating_sub(at(20_480));
    let mut attempts = 0;
    for millis in 1..20_480 {
        let now = failed + at(millis);
        queue.add(&1, NORMAL_PRIORITY, WHY, now);
        if pop(&mut queue, now).is_some() {
            attempts += 1;
            assert!(millis >= 2048, "no sooner than a tenth of the delay");
            queue.finish(&1, Finish::Failure, now);
        }
    }
    assert!((8..=10).contains(&attempts), "{attempts} early attempts");
    let Next::Item(item) = queue.next(retry) else { panic!("the retry comes when it was due") };
    assert_eq!(item.failures, 13, "early attempts do not count");
    queue.finish(&1, Finish::Failure, retry);
    queue.add(&1, NORMAL_PRIORITY, WHY, retry);
    assert!(matches!(queue.next(retry), Next::At(time) if time == retry + at(3000)));
}

#[test]
fn a_later_plan_replaces_the_earlier_one_and_requests_stay() {
    let mut queue = QueueState::new(QueueConfig::default());
    queue.add(&1, NORMAL_PRIORITY, WHY, at(0));
    queue.add_at(&1, at(900), WHY, at(0));
    pop(&mut queue, at(0));
    queue.finish(&1, Finish::Success { again_after: Some(at(500)) }, at(0));
    queue.add(&1, NORMAL_PRIORITY, WHY, at(100));
    assert_eq!(pop(&mut queue, at(100)), Some(1));
    queue.finish(&1, Finish::Success { again_after: None }, at(100));
    assert_eq!(pop(&mut queue, at(600)), None, "the plan of the first turn is void");
    assert_eq!(pop(&mut queue, at(900)), Some(1), "what somebody asked for is kept");
}

/// One look for a burst of events; the first of them is not delayed, and the last is not lost.
#[test]
fn a_paced_key_is_worked_on_once_per_burst() {
    let mut queue = QueueState::new(QueueConfig { pace: at(100), ..QueueConfig::default() });
    let mut looks = Vec::new();
    for millis in 0..250 {
        queue.add(&1, NORMAL_PRIORITY, WHY, at(millis));
        if pop(&mut queue, at(millis)).is_some() {
            looks.push(millis);
            queue.finish(&1, Finish::Success { again_after: None }, at(millis));
        }
    }
    assert_eq!(looks, [0, 100, 200]);
    assert_eq!(pop(&mut queue, at(300)), Some(1), "the last event is not lost");
    queue.finish(&1, Finish::Success { again_after: None }, at(300));
    assert_eq!(pop(&mut queue, at(400)), None);
    assert!(format!("{queue:?}").contains("entries: {}"), "nothing is kept of a quiet key: {queue:?}");
    queue.add(&1, NORMAL_PRIORITY, WHY, at(401));
    assert_eq!(pop(&mut queue, at(401)), Some(1));
}

#[derive(Clone, Debug)]
enum Step {
    Add { key: u32, priority: i32 },
    AddAt { key: u32, millis: u64 },
    Pop,
    Finish { which: usize, how: u8 },
    Pass { millis: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..6u32, prop_oneof![Just(LOW_PRIORITY), Just(NORMAL_PRIORITY), Just(10)])
            .prop_map(|(key, priority)| Step::Add { key, priority }),
        1 => (0..6u32, 0..50u64).prop_map(|(key, millis)| Step::AddAt { key, millis }),
        3 => Just(Step::Pop),
        3 => (any::<usize>(), 0..6u8).prop_map(|(which, how)| Step::Finish { which, how }),
        2 => (0..40u64).prop_map(|millis| Step::Pass { millis }),
    ];
    proptest::collection::vec(step, 0..200)
}

fn finish_of(how: u8) -> Finish {
    match how {
        0 => Finish::Success { again_after: None },
        1 => Finish::Success { again_after: Some(at(7)) },
        2 => Finish::Failure,
        3 => Finish::Again,
        4 => Finish::Later(at(3)),
        _ => Finish::Terminal,
    }
}

proptest! {
    /// No key is with two workers; whatever was added is served after it was added; and when all is served and
    /// succeeded, nothing is left.
    #[test]
    fn nothing_is_lost_and_no_key_is_worked_on_twice(steps in steps()) {
        let mut queue = QueueState::new(QueueConfig::default());
        let (mut now, mut running, mut owed) = (at(0), Vec::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Add { key, priority } => {
                    queue.add(&key, priority, WHY, now);
                    owed.insert(key);
                }
                Step::AddAt { key, millis } => {
                    queue.add_at(&key, now + at(millis), WHY, now);
                    owed.insert(key);
                }
                Step::Pop => if let Some(key) = pop(&mut queue, now) {
                    prop_assert!(!running.contains(&key));
                    running.push(key);
                },
                Step::Finish { which, how } if !running.is_empty() => {
                    let key = running.swap_remove(which % running.len());
                    prop_assert!(queue.finish(&key, finish_of(how), now).is_some());
                }
                Step::Finish { .. } => {}
                Step::Pass { millis } => now += at(millis),
            }
        }
        // Everything still owed is served once the workers are done and time passes.
        let mut served = BTreeSet::new();
        for key in running.drain(..) {
            queue.add(&key, NORMAL_PRIORITY, WHY, now);
            queue.finish(&key, Finish::Success { again_after: None }, now);
        }
        for key in &owed {
            queue.add(key, LOW_PRIORITY, WHY, now);
        }
        now += Duration::from_secs(60);
        while let Some(key) = pop(&mut queue, now) {
            served.insert(key);
            queue.finish(&key, Finish::Success { again_after: None }, now);
        }
        prop_assert!(owed.is_subset(&served));
        prop_assert!(matches!(queue.next(now), Next::Idle), "{queue:?}");
        prop_assert_eq!(format!("{queue:?}").contains("entries: {}"), true, "{:?}", queue);
    }

    /// What is added while a worker has the key, or with a time, is served without any further call.
    #[test]
    fn every_add_leads_to_a_turn_that_starts_after_it(steps in steps()) {
        let mut queue = QueueState::new(QueueConfig::default());
        let (mut now, mut running) = (at(0), Vec::new());
        let mut pending = BTreeSet::new();
        for step in steps {
            match step {
                Step::Add { key, priority } => {
                    queue.add(&key, priority, WHY, now);
                    pending.insert(key);
                }
                Step::AddAt { key, millis } => {
                    queue.add_at(&key, now + at(millis), WHY, now);
                    pending.insert(key);
                }
                Step::Pop => if let Some(key) = pop(&mut queue, now) {
                    running.push(key);
                    pending.remove(&key);
                },
                Step::Finish { which, how } if !running.is_empty() => {
                    let key = running.swap_remove(which % running.len());
                    queue.finish(&key, finish_of(how), now);
                }
                Step::Finish { .. } => {}
                Step::Pass { millis } => now += at(millis),
            }
        }
        for key in running.drain(..) {
            queue.finish(&key, Finish::Failure, now);
        }
        now += Duration::from_secs(60);
        while let Some(key) = pop(&mut queue, now) {
            pending.remove(&key);
            queue.finish(&key, Finish::Success { again_after: None }, now);
        }
        prop_assert!(pending.is_empty(), "lost: {pending:?}");
    }
}

/// The shell around the state machine: no wake-up is lost however adds, timers and workers interleave.
#[tokio::test(start_paused = true)]
async fn workers_are_woken_for_every_key_and_end_at_shut_down() {
    let queue = Queue::new("sails", &Metrics::new());
    let (done, mut served) = tokio::sync::mpsc::unbounded_channel();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (queue, done) = (queue.clone(), done.clone());
            tokio::spawn(async move {
                while let Some(item) = queue.next().await {
                    tokio::time::sleep(at(1)).await;
                    queue.finish(&item.key, Finish::Success { again_after: None });
                    done.send(item.key).unwrap();
                }
            })
        })
        .collect();
    for key in 0..50u32 {
        queue.add(&key, WHY);
        queue.add_after(&(key + 100), at(u64::from(key)), WHY);
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 100 {
        seen.insert(served.recv().await.unwrap());
    }
    queue.shut_down();
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(queue.next().await.is_none());
}

/// An early attempt that is still running when the retry comes due takes its place: it must count like it, or
/// events that come with every attempt keep the delay at its beginning for ever.
#[test]
fn an_attempt_that_outlasts_the_retry_counts_as_the_retry() {
    let mut queue = QueueState::new(QueueConfig::default());
    let mut now = at(0);
    queue.add(&1, NORMAL_PRIORITY, WHY, now);
    assert_eq!(pop(&mut queue, now), Some(1));
    queue.finish(&1, Finish::Failure, now);
    for failures in 1..5 {
        queue.add(&1, NORMAL_PRIORITY, WHY, now);
        let Next::At(early) = queue.next(now) else { panic!("an event runs it early, but not at once") };
        now = early;
        let Next::Item(item) = queue.next(now) else { panic!("it may run early") };
        assert_eq!(item.failures, failures);
        now += at(60);
        queue.finish(&1, Finish::Failure, now);
    }
}

/// What its own writes wake is looked at, unless it failed: then its backoff counts. Whoever is held back waits
/// for nothing else.
#[test]
fn a_released_key_runs_at_once_if_it_was_held_and_waits_for_its_retry_if_it_failed() {
    let mut queue = QueueState::new(QueueConfig::default());
    queue.release(&1, WHY, at(0));
    assert_eq!(pop(&mut queue, at(0)), Some(1));
    queue.finish(&1, Finish::Retry, at(0));
    queue.release(&1, WHY, at(1));
    assert!(matches!(queue.next(at(4)), Next::At(time) if time == at(5)));

    let Next::Item(item) = queue.next(at(5)) else { panic!("the retry") };
    queue.hold(item, at(5));
    assert!(matches!(queue.next(at(5)), Next::Idle));
    queue.release(&1, WHY, at(6));
    assert_eq!(pop(&mut queue, at(6)), Some(1));

    // Released while it was about to be held.
    queue.finish(&1, Finish::Success { again_after: None }, at(6));
    queue.add(&1, NORMAL_PRIORITY, WHY, at(7));
    let Next::Item(item) = queue.next(at(7)) else { panic!("an event") };
    queue.release(&1, WHY, at(7));
    queue.hold(item, at(7));
    assert_eq!(pop(&mut queue, at(7)), Some(1));
}

/// "Never" is a delay too, and so is whatever a proxy asks for: it must not cost a worker.
#[tokio::test(start_paused = true)]
async fn a_delay_without_end_is_only_long() {
    let queue = Queue::new("sails", &Metrics::new());
    let forever = Duration::MAX;
    queue.add_after(&1u32, forever, WHY);
    for finish in [Finish::Success { again_after: Some(forever) }, Finish::Later(forever)] {
        queue.add(&2, WHY);
        assert_eq!(queue.next().await.unwrap().key, 2);
        queue.finish(&2, finish);
    }
    let early = tokio::time::timeout(Duration::from_secs(3600), queue.next()).await;
    assert!(early.is_err(), "{early:?}");
    queue.add(&1, WHY);
    assert_eq!(queue.next().await.unwrap().key, 1);
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_depth_and_running_work() {
    let metrics = Metrics::new();
    let queue = Queue::new("sails", &metrics);
    queue.add(&1, WHY);
    queue.add_with(&2, LOW_PRIORITY, WHY);
    let item = queue.next().await.unwrap();
    tokio::time::advance(at(2000)).await;
    let text = metrics.encode();
    for line in [
        r#"workqueue_depth{name="sails",controller="sails",priority="0"} 0"#,
        r#"workqueue_depth{name="sails",controller="sails",priority="-100"} 1"#,
        r#"workqueue_longest_running_processor_seconds{name="sails",controller="sails"} 2.0"#,
        r#"workqueue_adds_total{name="sails",controller="sails"} 2"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    queue.finish(&item.key, Finish::Failure);
    assert!(metrics.encode().contains(r#"workqueue_retries_total{name="sails",controller="sails"} 1"#));
}
