//! What a burst of a thousand pods costs a controller that paces its keys: looks and writes are counted, on a
//! paused clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use trysail_sdk::{
    client::{Client, Options},
    controller::{PlanController, Wiring},
    core::{
        Action, Key, Plan, Uid,
        plan::{Context, Planner, Target, Verb, Violation},
        pod::Pod,
        resource::PODS,
    },
    informer::Scope,
    manager::Manager,
    queue::QueueConfig,
};

use crate::{apiserver::CONFIG_MAPS, wire};

/// Pods of the burst, one millisecond apart.
const BURST: usize = 1000;
const OWNER: &str = "owner";

/// Counts the pods, as a controller of replicas does, and reports when a hundred more have come.
struct Census {
    looks: Arc<AtomicUsize>,
    looked: mpsc::UnboundedSender<Instant>,
}

struct Snapshot {
    pods: usize,
    context: Context<usize>,
}

impl Planner for Census {
    type Snapshot = Snapshot;
    type Memory = usize;

    fn name(&self) -> &'static str {
        "census"
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan<usize> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let _ = self.looked.send(Instant::now());
        let hundreds = snapshot.pods / 100;
        let mut plan = Plan { memory: hundreds, ..Plan::default() };
        if hundreds > snapshot.context.memory {
            let target = Target {
                resource: CONFIG_MAPS,
                key: Key::new("n", OWNER),
                uid: Some(Uid::from("u")),
                resource_version: 1,
            };
            let verb = Verb::Patch { subresource: None, body: json!({"data": {"n": hundreds.to_string()}}) };
            plan.wave(vec![Action {
                target,
                verb,
                reason: "Report",
                because: String::new(),
                on_success: None,
                on_failure: None,
            }]);
        }
        plan
    }

    fn audit(&self, _: &Snapshot, _: &Plan<usize>) -> Result<(), Violation> {
        Ok(())
    }
}

fn line(kind: &str, object: &Value) -> String {
    json!({"type": kind, "object": object}).to_string() + "\n"
}

fn listed(version: usize) -> String {
    let annotations = json!({"k8s.io/initial-events-end": "true"});
    line(
        "BOOKMARK",
        &json!({"metadata": {"resourceVersion": version.to_string(), "annotations": annotations}}),
    )
}

fn pod(n: usize) -> String {
    line(
        "ADDED",
        &json!({"metadata": {"name": format!("p{n}"), "namespace": "n", "uid": format!("uid-{n}"),
            "resourceVersion": (100 + n).to_string()}}),
    )
}

/// One owner; pods that come when they are sent.
fn server(pods: mpsc::UnboundedReceiver<String>, writes: Arc<AtomicUsize>) -> Client {
    let pods = Arc::new(std::sync::Mutex::new(Some(pods)));
    wire::scripted(Options::default(), move |request| {
        if *request.method() != Method::GET {
            writes.fetch_add(1, Ordering::Relaxed);
            // An old version, so that no store has to follow.
            let answer = wire::answer(200, &json!({"metadata": {"name": OWNER, "resourceVersion": "1"}}));
            return async { answer }.boxed();
        }
        let lines = if request.uri().path().ends_with("/pods") {
            let pods = pods.lock().unwrap().take();
            stream::once(async { listed(2) })
                .chain(stream::unfold(pods, async |mut pods| Some((pods.as_mut()?.recv().await?, pods))))
                .boxed()
        } else {
            let owner =
                json!({"metadata": {"name": OWNER, "namespace": "n", "uid": "u", "resourceVersion": "1"}});
            stream::iter([line("ADDED", &owner), listed(2)]).chain(stream::pending()).boxed()
        };
        let frames = lines.map(|line| Ok::<_, wire::BoxError>(Frame::data(Bytes::from(line))));
        async { Ok(Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))) }.boxed()
    })
}

/// What the burst cost with that pace, and how long after a lone pod it was looked at.
struct Cost {
    looks: usize,
    writes: usize,
    first: Duration,
    alone: Duration,
}

async fn burst(pace: Duration) -> Cost {
    let (send, pods) = mpsc::unbounded_channel();
    let (looks, writes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (tell, mut looked) = mpsc::unbounded_channel();
    let census = Census { looks: Arc::clone(&looks), looked: tell };
    let controller = PlanController::new(census, |services| {
        let owners = services.informers.informer::<Pod>(CONFIG_MAPS, Scope::all());
        let pods = services.informers.informer::<Pod>(PODS, Scope::all());
        let store = Arc::clone(pods.store());
        Wiring::new(&owners, move |_, context| Some(Snapshot { pods: store.len(), context }))
            .watch(&pods, |_: &Pod| vec![Key::new("n", OWNER)])
    })
    .queue(QueueConfig { pace, ..QueueConfig::default() });
    let client = server(pods, Arc::clone(&writes));
    let manager = Manager::builder("test").client(client).controller(controller).build().await.unwrap();
    let running = tokio::spawn(manager.run_until(std::future::pending()));
    looked.recv().await.unwrap();
    let settle = async || tokio::time::sleep(Duration::from_secs(1)).await;
    settle().await;

    let before = looks.load(Ordering::Relaxed);
    let begun = Instant::now();
    for n in 0..BURST {
        send.send(pod(n)).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let first = looked.recv().await.unwrap() - begun;
    settle().await;
    let looks = looks.load(Ordering::Relaxed) - before;
    while looked.try_recv().is_ok() {}
    let begun = Instant::now();
    send.send(pod(BURST)).unwrap();
    let alone = looked.recv().await.unwrap() - begun;
    running.abort();
    Cost { looks, writes: writes.load(Ordering::Relaxed), first, alone }
}

/// A thousand pods that come within a second: without a pace every one of them is a look.
#[tokio::test(start_paused = true)]
async fn a_pace_saves_looks_and_delays_no_single_change() {
    let unpaced = burst(Duration::ZERO).await;
    let paced = burst(Duration::from_millis(20)).await;
    assert!(unpaced.looks >= BURST, "{}", unpaced.looks);
    // One every 20 ms.
    assert!((BURST / 25..=BURST / 20 + 2).contains(&paced.looks), "{}", paced.looks);
    assert_eq!((unpaced.writes, paced.writes), (BURST / 100, BURST / 100), "what is reported stays the same");
    for cost in [unpaced, paced] {
        assert!(cost.first < Duration::from_millis(5), "{:?} until the burst's first look", cost.first);
        assert!(cost.alone < Duration::from_millis(5), "{:?} until the look at a lone change", cost.alone);
    }
}
