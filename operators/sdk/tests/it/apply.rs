//! Plans against a real API server: what is done twice, too late or to the wrong object must do no harm.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use trysail_sdk::{
    apply::{Applier, Next, Verdict, WRITES_IN_FLIGHT, WRITES_OF_A_PLAN, apply},
    client::{Client, LiveMeta, Options},
    core::{
        Action, Key, Object, Resource, Uid, View,
        plan::{OwnerReference, Target, Verb},
        pod::Pod,
        resource::PODS,
    },
    gate::{Gate, GateMetrics, Passage},
    informer::{self, Handle, Informers, Scope},
};

use crate::{
    apiserver::{self, CONFIG_MAPS, NAMESPACES, config_map, pod},
    wire::{self, Log},
};

const SOON: Duration = Duration::from_secs(20);

/// A controller's hands: a pod informer, a gate and an applier in a namespace of their own.
struct Hands {
    client: Client,
    namespace: String,
    pods: Handle<Pod>,
    maps: Handle<Pod>,
    gate: Gate,
    applier: Applier,
    woken: mpsc::UnboundedReceiver<Key>,
    key: Key,
}

impl Hands {
    /// `line` stands between the applier and the server; informers have a line of their own.
    async fn new(line: impl Fn(&Client) -> Client, delay: Duration) -> Self {
        let server = apiserver::shared().await;
        let (client, namespace) = (server.client(), server.namespace().await);
        let options = informer::Options { delay: Some(Arc::new(move |_| delay)), ..Default::default() };
        let informers = Informers::new(client.clone(), options);
        let pods = informers.informer(PODS, Scope::namespace(namespace.as_str()));
        let maps = informers.informer(CONFIG_MAPS, Scope::namespace(namespace.as_str()));
        timeout(SOON, informers.wait_synced()).await.unwrap();
        let (wake, woken) = mpsc::unbounded_channel();
        let tapped = line(&client);
        let gate =
            Gate::new("test", &informers, &tapped, GateMetrics::default(), move |key| drop(wake.send(key)));
        let key = Key::new(namespace.as_str(), "owner");
        Self { client, namespace, pods, maps, gate, applier: Applier::new(tapped), woken, key }
    }

    async fn direct() -> Self {
        Self::new(Client::clone, Duration::ZERO).await
    }

    async fn apply(&self, waves: Vec<Vec<Action>>) -> (Vec<Verdict>, Next) {
        let outcome = apply(&self.applier, &self.gate, &self.key, waves).await;
        let next = outcome.next();
        (outcome.reports.into_iter().map(|report| report.verdict).collect(), next)
    }

    async fn one(&self, action: Action) -> Verdict {
        self.apply(vec![vec![action]]).await.0.remove(0)
    }

    /// Waits for the gate to open for the key, then for what it has left to say.
    async fn wait_open(&mut self) {
        while self.gate.check(&self.key) != Passage::Open {
            let woken = timeout(SOON, self.woken.recv()).await.expect("the gate did not open").unwrap();
            assert_eq!(woken, self.key);
        }
    }

    fn at(&self, name: &str) -> Key {
        Key::new(self.namespace.as_str(), name)
    }

    async fn live(&self, resource: Resource, name: &str) -> LiveMeta {
        self.client.get_meta(&resource, &self.at(name)).await.unwrap()
    }

    /// A ConfigMap that owns things here, as the informer shows it.
    async fn owner(&self, name: &str) -> OwnerReference {
        let body = config_map(name, &json!({}));
        let reply = self.client.create(&CONFIG_MAPS, &self.namespace, &body).await.unwrap();
        let key = self.at(name);
        while self.maps.store().get(&key).is_none() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        OwnerReference { resource: CONFIG_MAPS, key, uid: reply.meta.uid }
    }

    fn create(&self, name: &str, owner: Option<&OwnerReference>) -> Action {
        let mut body = pod(name, &json!({}));
        if let Some(owner) = owner {
            body["metadata"]["ownerReferences"] = json!([owner.to_value()]);
        }
        let controller = owner.map(|owner| owner.uid.clone());
        self.action(name, None, 0, Verb::Create { controller, body: body.into() })
    }

    fn on(&self, live: &LiveMeta, verb: Verb) -> Action {
        let meta = &live.meta;
        self.action(&meta.key.name, Some(meta.uid.clone()), meta.resource_version, verb)
    }

    fn action(&self, name: &str, uid: Option<Uid>, resource_version: u64, verb: Verb) -> Action {
        Action {
            target: Target { resource: PODS, key: self.at(name), uid, resource_version },
            verb,
            reason: "Test",
            because: String::new(),
            on_success: None,
            on_failure: None,
        }
    }
}

fn delete() -> Verb {
    Verb::Delete { propagation: None }
}

fn patch(body: Value) -> Verb {
    Verb::Patch { subresource: None, body }
}

#[tokio::test]
async fn a_key_is_held_until_the_store_shows_what_was_done() {
    if apiserver::switched_off() {
        return;
    }
    let mut hands = Hands::new(Client::clone, Duration::from_millis(700)).await;
    let owner = hands.owner("owner").await;
    assert_eq!(hands.gate.check(&hands.key), Passage::Open);
    let names: Vec<_> = (0..5).map(|n| format!("p{n}")).collect();
    let creates = names.iter().map(|name| hands.create(name, Some(&owner))).collect();
    let (verdicts, next) = hands.apply(vec![creates]).await;
    assert_eq!((verdicts, next), (vec![Verdict::Done; 5], Next::Wait));
    assert!(matches!(hands.gate.check(&hands.key), Passage::Waiting(_)), "the store cannot show them yet");
    assert_eq!(hands.gate.check(&hands.at("another")), Passage::Open);
    hands.wait_open().await;
    let children = hands.pods.store().controlled_by(&owner.uid);
    assert_eq!(children.len(), 5, "the gate opened before the store showed our creates");

    let deletes = children.iter().map(|pod| {
        let uid = Some(pod.meta.uid.clone());
        hands.action(&pod.meta.key.name, uid, pod.meta.resource_version, delete())
    });
    let (verdicts, _) = hands.apply(vec![deletes.collect()]).await;
    assert_eq!(verdicts, vec![Verdict::Done; 5]);
    assert!(matches!(hands.gate.check(&hands.key), Passage::Waiting(_)));
    hands.wait_open().await;
    let left = hands.pods.store().controlled_by(&owner.uid);
    assert!(
        left.iter().all(|pod| Object::is_terminating(&**pod)),
        "the gate opened before our deletes showed"
    );
    assert_eq!(hands.gate.held(), 0);
}

/// The create arrives, its reply does not: one object, and the repeated create is content with it.
#[tokio::test]
async fn a_lost_reply_makes_no_second_object() {
    if apiserver::switched_off() {
        return;
    }
    let lose = Arc::new(AtomicBool::new(true));
    let losing = Arc::clone(&lose);
    let line = move |client: &Client| {
        let losing = Arc::clone(&losing);
        wire::tapped(client, Options::default(), move |far, request| {
            let lost = request.method() == http::Method::POST && losing.swap(false, Ordering::Relaxed);
            async move {
                let answer = far.pass(request).await;
                if lost { Err("connection reset by peer".into()) } else { answer }
            }
            .boxed()
        })
    };
    let mut hands = Hands::new(line, Duration::from_millis(300)).await;
    let owner = hands.owner("owner").await;
    let (verdicts, next) = hands.apply(vec![vec![hands.create("p", Some(&owner))]]).await;
    assert!(matches!(&verdicts[..], [Verdict::Unknown { .. }]), "{verdicts:?}");
    assert!(matches!(next, Next::BackOff { .. }));
    assert!(matches!(hands.gate.check(&hands.key), Passage::Waiting(_)), "the outcome is unknown");
    hands.wait_open().await;
    assert_eq!(hands.pods.store().controlled_by(&owner.uid).len(), 1, "what became of it was not awaited");

    assert_eq!(hands.one(hands.create("p", Some(&owner))).await, Verdict::Done);
    assert_eq!(hands.pods.store().len(), 1);
    let foreign = hands.owner("foreign").await;
    let verdict = hands.one(hands.create("p", Some(&foreign))).await;
    assert_eq!(verdict, Verdict::NameTaken { name: hands.at("p") });
}

/// A sync that is cancelled, or panics, between a write and its reply.
#[tokio::test]
async fn a_dropped_write_holds_its_key() {
    if apiserver::switched_off() {
        return;
    }
    let line = |client: &Client| {
        wire::tapped(client, Options::default(), |far, request| {
            async move {
                let write = request.method() == http::Method::POST;
                let answer = far.pass(request).await;
                if write { futures::future::pending().await } else { answer }
            }
            .boxed()
        })
    };
    let mut hands = Hands::new(line, Duration::from_millis(300)).await;
    let owner = hands.owner("owner").await;
    let create = hands.create("p", Some(&owner));
    let sync = apply(&hands.applier, &hands.gate, &hands.key, vec![vec![create]]);
    timeout(Duration::from_millis(500), sync).await.expect_err("the reply never comes");
    assert!(matches!(hands.gate.check(&hands.key), Passage::Waiting(_)));
    hands.wait_open().await;
    assert_eq!(hands.pods.store().len(), 1);
}

#[tokio::test]
async fn only_the_judged_incarnation_is_deleted_or_patched() {
    if apiserver::switched_off() {
        return;
    }
    let mut hands = Hands::direct().await;
    assert_eq!(hands.one(hands.create("p", None)).await, Verdict::Done);
    let before = hands.live(PODS, "p").await;
    assert_eq!(hands.one(hands.on(&before, delete())).await, Verdict::Done);
    assert_eq!(hands.one(hands.on(&before, delete())).await, Verdict::Done, "gone is gone");
    hands.wait_open().await;
    assert_eq!(hands.one(hands.create("p", None)).await, Verdict::Done);
    let after = hands.live(PODS, "p").await;
    assert_ne!(before.meta.uid, after.meta.uid);

    assert_eq!(hands.one(hands.on(&before, delete())).await, Verdict::Done, "that one is gone");
    let label = || patch(json!({"metadata": {"labels": {"a": "b"}}}));
    let verdict = hands.one(hands.on(&before, label())).await;
    assert!(matches!(verdict, Verdict::Conflict { .. }), "{verdict:?}");
    assert_eq!(hands.live(PODS, "p").await, after, "the wrong incarnation was touched");

    assert_eq!(hands.one(hands.on(&after, label())).await, Verdict::Done);
    let verdict = hands.one(hands.on(&after, label())).await;
    assert!(matches!(verdict, Verdict::Conflict { .. }), "an old version was patched: {verdict:?}");
    hands.wait_open().await;
    let shown = hands.pods.store().get(&hands.at("p")).unwrap();
    assert_eq!(shown.meta.labels.get("a"), Some("b"), "looking again would repeat the conflict");
}

#[tokio::test]
async fn orphans_are_adopted_and_let_go() {
    if apiserver::switched_off() {
        return;
    }
    let mut hands = Hands::direct().await;
    let (owner, other) = (hands.owner("owner").await, hands.owner("other").await);
    assert_eq!(hands.one(hands.create("p", None)).await, Verdict::Done);
    let orphan = hands.live(PODS, "p").await;
    let adopt = |owner: &OwnerReference| Verb::Adopt { owner: owner.clone() };
    assert_eq!(hands.one(hands.on(&orphan, adopt(&owner))).await, Verdict::Done);
    let adopted = hands.live(PODS, "p").await;
    assert_eq!(adopted.meta.controller, Some(owner.uid.clone()));
    assert_eq!(adopted.owner_references, [owner.to_value()]);
    assert_eq!(hands.one(hands.on(&orphan, adopt(&owner))).await, Verdict::Done, "it is ours already");
    let verdict = hands.one(hands.on(&orphan, adopt(&other))).await;
    assert!(matches!(verdict, Verdict::Conflict { .. }), "another's was taken: {verdict:?}");

    let release = || Verb::Release { owner: owner.uid.clone() };
    assert_eq!(hands.one(hands.on(&adopted, release())).await, Verdict::Done);
    assert_eq!(hands.live(PODS, "p").await.owner_references, [Value::Null; 0]);
    assert_eq!(hands.one(hands.on(&adopted, release())).await, Verdict::Done);
    let gone = hands.action("gone", Some(Uid::from("x")), 1, release());
    assert_eq!(hands.one(gone).await, Verdict::Done, "what is gone needs no release");
    hands.wait_open().await;

    // The owner is gone, though a cache may still show it: its children would be collected as garbage.
    hands.client.delete(&CONFIG_MAPS, &owner.key, &owner.uid, None).await.unwrap();
    let verdict = hands.one(hands.on(&orphan, adopt(&owner))).await;
    assert!(matches!(verdict, Verdict::Conflict { .. }), "{verdict:?}");
    assert_eq!(hands.live(PODS, "p").await.meta.controller, None);
}

/// A cache may not show an owner that lives: what it owns is its own business.
#[tokio::test]
async fn an_orphan_is_patched_when_its_owner_is_gone() {
    if apiserver::switched_off() {
        return;
    }
    let mut hands = Hands::direct().await;
    let owner = hands.owner("owner").await;
    assert_eq!(hands.one(hands.create("p", Some(&owner))).await, Verdict::Done);
    let owned = hands.live(PODS, "p").await;
    let orphan = |owner: &OwnerReference, label: &str| Verb::PatchOrphan {
        owner: owner.clone(),
        body: json!({"metadata": {"labels": {"a": label}}}),
    };
    let verdict = hands.one(hands.on(&owned, orphan(&owner, "b"))).await;
    assert!(matches!(verdict, Verdict::Conflict { .. }), "its owner lives: {verdict:?}");
    hands.wait_open().await;
    assert_eq!(hands.live(PODS, "p").await.meta.resource_version, owned.meta.resource_version);

    let earlier = OwnerReference { uid: Uid::from("earlier"), ..owner.clone() };
    assert_eq!(hands.one(hands.on(&owned, orphan(&earlier, "b"))).await, Verdict::Done);
    let again = hands.live(PODS, "p").await;
    hands.client.delete(&CONFIG_MAPS, &owner.key, &owner.uid, None).await.unwrap();
    assert_eq!(hands.one(hands.on(&again, orphan(&owner, "c"))).await, Verdict::Done);
    assert_ne!(hands.live(PODS, "p").await.meta.resource_version, again.meta.resource_version);
}

/// A template that the server refuses costs one refusal, in the server's words; later waves do not start.
#[tokio::test]
async fn a_refusal_stops_the_plan() {
    if apiserver::switched_off() {
        return;
    }
    let log = Log::default();
    let noted = log.clone();
    let line = move |client: &Client| {
        let noted = noted.clone();
        wire::tapped(client, Options::default(), move |far, request| {
            noted.note(&request);
            async move { far.pass(request).await }.boxed()
        })
    };
    let hands = Hands::new(line, Duration::ZERO).await;
    let bad = |name: &str| {
        let mut body = pod(name, &json!({}));
        body["spec"]["restartPolicy"] = json!("Sometimes");
        hands.action(name, None, 0, Verb::Create { controller: None, body: body.into() })
    };
    let waves = vec![(0..8).map(|n| bad(&format!("bad{n}"))).collect(), vec![hands.create("good", None)]];
    let outcome = apply(&hands.applier, &hands.gate, &hands.key, waves).await;
    let (action, message) = outcome.refusal().unwrap();
    assert_eq!((action.reason, &*action.target.key.name), ("Test", "bad0"));
    assert!(message.contains("restartPolicy: Unsupported value: \"Sometimes\""), "{message}");
    assert_eq!(outcome.reports.len(), 9);
    assert!(outcome.reports[1..].iter().all(|report| report.verdict == Verdict::Skipped));
    assert_eq!(outcome.next(), Next::BackOff { at_least: None });
    assert_eq!(log.count("POST"), 1);
    assert_eq!(hands.gate.check(&hands.key), Passage::Open, "nothing was written");
}

#[tokio::test]
async fn quota_and_dying_namespaces_are_told_apart() {
    const QUOTAS: Resource =
        Resource { group: "", version: "v1", kind: "ResourceQuota", plural: "resourcequotas" };
    if apiserver::switched_off() {
        return;
    }
    let hands = Hands::direct().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"pods": "0"}}});
    let reply = hands.client.create(&QUOTAS, &hands.namespace, &quota).await.unwrap();
    // Nobody else computes a quota's use here.
    let status = json!({"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}});
    hands.client.merge_patch(&QUOTAS, &reply.meta.key, Some("status"), &status).await.unwrap();
    let verdict = hands.one(hands.create("p", None)).await;
    assert!(
        matches!(&verdict, Verdict::Refused { message } if message.contains("exceeded quota: q")),
        "{verdict:?}"
    );

    let namespace = Key::new("", hands.namespace.as_str());
    let live = hands.client.get_meta(&NAMESPACES, &namespace).await.unwrap();
    hands.client.delete(&NAMESPACES, &namespace, &live.meta.uid, None).await.unwrap();
    let (verdicts, next) = hands.apply(vec![vec![hands.create("p", None)]]).await;
    assert_eq!((&verdicts[..], next), (&[Verdict::NamespaceTerminating][..], Next::Wait));
}

/// Replies would otherwise carry whole pods, of which nothing is read.
#[tokio::test]
async fn replies_to_writes_are_metadata_only() {
    if apiserver::switched_off() {
        return;
    }
    let fat = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fat);
    let line = move |client: &Client| {
        let counted = Arc::clone(&counted);
        wire::tapped(client, Options::default(), move |far, request| {
            let counted = Arc::clone(&counted);
            async move {
                let answer = far.pass(request).await?;
                let (_, body) = answer.into_parts();
                let body: Value =
                    serde_json::from_slice(&http_body_util::BodyExt::collect(body).await?.to_bytes())?;
                let slim = ["PartialObjectMetadata", "Status"].contains(&body["kind"].as_str().unwrap());
                counted.fetch_add(usize::from(!slim), Ordering::Relaxed);
                wire::answer(200, &body)
            }
            .boxed()
        })
    };
    let hands = Hands::new(line, Duration::ZERO).await;
    assert_eq!(hands.one(hands.create("p", None)).await, Verdict::Done);
    let live = hands.live(PODS, "p").await;
    let label = patch(json!({"metadata": {"labels": {"a": "b"}}}));
    assert_eq!(hands.one(hands.on(&live, label)).await, Verdict::Done);
    assert_eq!(hands.one(hands.on(&live, delete())).await, Verdict::Done);
    assert_eq!(fat.load(Ordering::Relaxed), 0);
}

/// An API server whose every write takes ten milliseconds, with an applier before it.
struct Slow {
    gate: Gate,
    applier: Applier,
    most: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

impl Slow {
    const WRITE: Duration = Duration::from_millis(10);

    fn new() -> Self {
        let (now, most, begun): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (in_flight, high, count) = (now, Arc::clone(&most), Arc::clone(&begun));
        let client = wire::scripted(Options::default(), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let (in_flight, high) = (Arc::clone(&in_flight), Arc::clone(&high));
            async move {
                high.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Self::WRITE).await;
                in_flight.fetch_sub(1, Ordering::SeqCst);
                wire::answer(201, &json!({"metadata": {"name": "p", "resourceVersion": "1"}}))
            }
            .boxed()
        });
        let informers = Informers::new(client.clone(), informer::Options::default());
        let gate = Gate::new("test", &informers, &client, GateMetrics::default(), |_| {});
        Self { gate, applier: Applier::new(client), most, begun }
    }

    /// Applies a plan of so many creates; they all succeed.
    async fn apply(&self, key: &str, creates: usize) {
        let action = |n: usize| Action {
            target: Target {
                resource: PODS,
                key: Key::new("n", format!("p{n}")),
                uid: None,
                resource_version: 0,
            },
            verb: Verb::Create { controller: None, body: json!({}).into() },
            reason: "Test",
            because: String::new(),
            on_success: None,
            on_failure: None,
        };
        let waves = vec![(0..creates).map(action).collect()];
        assert!(apply(&self.applier, &self.gate, &Key::new("n", key), waves).await.is_success());
    }

    /// How long a single write takes that comes when so many others have begun.
    async fn behind(&self, others: usize) -> Duration {
        while self.begun.load(Ordering::SeqCst) < others {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let begun = tokio::time::Instant::now();
        self.apply("small", 1).await;
        begun.elapsed()
    }

    /// Most writes in flight at one moment since the last call.
    fn most(&self) -> usize {
        self.most.swap(0, Ordering::SeqCst)
    }
}

/// However many keys are at work: at most 32 writes, half of them for one plan, and inside a wave 1, 2, 4, …
#[tokio::test(start_paused = true)]
async fn writes_in_flight_are_bounded_and_start_slowly() {
    let slow = Slow::new();
    let mut seen = Vec::new();
    for wave in [1, 3, 7, 200] {
        slow.apply("k", wave).await;
        seen.push(slow.most());
    }
    assert_eq!(seen, [1, 2, 4, WRITES_OF_A_PLAN], "inside one wave");
    join_all(["a", "b", "c", "d"].map(|key| slow.apply(key, 100))).await;
    assert_eq!(slow.most(), WRITES_IN_FLIGHT);
}

/// The one write of another key does not wait for the five hundred of a plan that came before it, nor for those of
/// several such plans.
#[tokio::test(start_paused = true)]
async fn large_plans_leave_room_for_another_keys_write() {
    let slow = Slow::new();
    // By then its batch has 128 writes: 1 + 2 + … + 64 are done.
    let ((), waited) = tokio::join!(slow.apply("large", 500), slow.behind(140));
    assert!(waited < Slow::WRITE * 2, "it waited for {waited:?}");

    let slow = Slow::new();
    let large = join_all(["a", "b", "c", "d"].map(|key| slow.apply(key, 500)));
    let (_, waited) = tokio::join!(large, slow.behind(4 * 140));
    assert!(waited <= Slow::WRITE * 4, "it waited for {waited:?}");
}
