//! Informers against a real API server.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use trysail_sdk::{
    client,
    core::{Key, Meta, Object, Resource, View, pod::Pod, resource::PODS, slim_object},
    informer::{Event, Handle, Informers, Options, Scope, Status},
};

use crate::{
    apiserver::{self, ApiServer, CONFIG_MAPS, NOBODY, config_map, pod},
    wire::{self, BoxError, Log},
};

const SOON: Duration = Duration::from_secs(20);

/// What subscribers of these tests keep: verb and name.
type Told = mpsc::UnboundedReceiver<String>;

fn listen<T: Object>(handle: &Handle<T>) -> Told {
    let (tell, told) = mpsc::unbounded_channel();
    let subscription = handle.subscribe(move |event| {
        let text = match event {
            Event::Applied { old: None, new } => format!("new {}", new.key().name),
            Event::Applied { old: Some(_), new } => format!("changed {}", new.key().name),
            Event::Deleted { last } => format!("deleted {}", last.key().name),
        };
        let _ = tell.send(text);
    });
    drop(subscription);
    told
}

async fn next(told: &mut Told) -> String {
    timeout(SOON, told.recv()).await.expect("nothing was told in time").unwrap()
}

#[tokio::test]
async fn it_lists_watches_and_tells() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    client.create(&PODS, &namespace, &pod("first", &json!({"app": "a"}))).await.unwrap();

    let informers = Informers::new(client.clone(), Options::default());
    let pods: Handle<Pod> = informers.informer(PODS, Scope::namespace(namespace.as_str()));
    let mut early = listen(&pods);
    timeout(SOON, informers.wait_synced()).await.unwrap();
    assert_eq!(next(&mut early).await, "new first");

    let reply = client.create(&PODS, &namespace, &pod("second", &json!({}))).await.unwrap();
    assert_eq!(next(&mut early).await, "new second");
    assert!(pods.store().last_version() >= reply.resource_version());
    let second = Key::new(namespace.as_str(), "second");
    assert_eq!(pods.store().get(&second).unwrap().meta.uid, reply.meta.uid);

    client.merge_patch(&PODS, &second, None, &json!({"metadata": {"labels": {"app": "b"}}})).await.unwrap();
    assert_eq!(next(&mut early).await, "changed second");
    assert_eq!(pods.store().get(&second).unwrap().meta.labels.get("app"), Some("b"));

    let mut late = listen(&pods);
    let mut content = [next(&mut late).await, next(&mut late).await];
    content.sort();
    assert_eq!(content, ["new first", "new second"]);

    // Unscheduled pods go at once.
    client.delete(&PODS, &second, &reply.meta.uid, None).await.unwrap();
    for told in [&mut early, &mut late] {
        let mut text = next(told).await;
        if text == "changed second" {
            text = next(told).await;
        }
        assert_eq!(text, "deleted second");
    }
    assert_eq!(pods.store().get(&second), None);
    assert_eq!(pods.store().len(), 1);

    // One watch, whoever asks.
    let again: Handle<Pod> = informers.informer(PODS, Scope::namespace(namespace.as_str()));
    assert!(Arc::ptr_eq(again.store(), pods.store()));
    timeout(SOON, informers.stop()).await.unwrap();
}

/// What is kept of a ConfigMap here. One that is labelled `readable: no` cannot be decoded.
#[derive(Clone, Debug, PartialEq)]
struct Picky {
    meta: Meta,
}

slim_object!(Picky);

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Meta,
        }
        let Wire { metadata: meta } = Wire::deserialize(deserializer)?;
        match meta.labels.get("readable") {
            Some("no") => Err(serde::de::Error::custom("labelled as unreadable")),
            _ => Ok(Self { meta }),
        }
    }
}

async fn label(client: &client::Client, key: &Key, name: &str, value: &str) -> u64 {
    let patch = json!({"metadata": {"labels": {name: value}}});
    client.merge_patch(&CONFIG_MAPS, key, None, &patch).await.unwrap().resource_version()
}

async fn waiting(handle: &Handle<impl Object>) -> String {
    let mut status = handle.status_changes();
    let wait = status.wait_for(|status| matches!(status, Status::Waiting { .. }));
    match &*timeout(SOON, wait).await.expect("it does not say that it waits").unwrap() {
        Status::Waiting { why } => why.clone(),
        other => panic!("{other:?}"),
    }
}

/// One bad object must not stop the rest, and what was known of it before stays until it is deleted.
#[tokio::test]
async fn an_undecodable_object_is_reported_and_skipped() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    let bad = config_map("bad-from-the-start", &json!({"readable": "no"}));
    client.create(&CONFIG_MAPS, &namespace, &bad).await.unwrap();
    let turning = config_map("turning", &json!({}));
    let turning_uid = client.create(&CONFIG_MAPS, &namespace, &turning).await.unwrap().meta.uid;

    let (tell, mut reported) = mpsc::unbounded_channel();
    let options = Options {
        on_undecodable: Some(Arc::new(move |object| {
            let _ = tell.send(object.clone());
        })),
        ..Options::default()
    };
    let metrics = options.metrics.clone();
    let informers = Informers::new(client.clone(), options);
    let maps: Handle<Picky> = informers.informer(CONFIG_MAPS, Scope::namespace(namespace.as_str()));
    let mut told = listen(&maps);
    timeout(SOON, maps.wait_synced()).await.unwrap();
    let report = timeout(SOON, reported.recv()).await.unwrap().unwrap();
    assert_eq!(report.key, Some(Key::new(namespace.as_str(), "bad-from-the-start")));
    assert!(report.error.contains("labelled as unreadable"), "{}", report.error);
    assert_eq!(next(&mut told).await, "new turning");

    let key = Key::new(namespace.as_str(), "turning");
    let version = label(&client, &key, "readable", "no").await;
    timeout(SOON, reported.recv()).await.unwrap().unwrap();
    assert_eq!(metrics.undecodable_of(&CONFIG_MAPS), 2);
    assert!(maps.store().get(&key).is_some(), "what was known of it was forgotten");
    assert!(maps.store().last_version() >= version, "a gate would wait for ever");

    client.create(&CONFIG_MAPS, &namespace, &config_map("good", &json!({}))).await.unwrap();
    assert_eq!(next(&mut told).await, "new good");
    client.delete(&CONFIG_MAPS, &key, &turning_uid, None).await.unwrap();
    assert_eq!(next(&mut told).await, "deleted turning");
    assert_eq!(maps.store().get(&key), None);
}

#[tokio::test]
async fn a_server_that_does_not_stream_lists_is_listed_in_pages() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    for n in 0..5 {
        let map = config_map(&format!("m{n}"), &json!({}));
        client.create(&CONFIG_MAPS, &namespace, &map).await.unwrap();
    }
    let log = Log::default();
    let noted = log.clone();
    let old_server = wire::tapped(&client, client::Options::default(), move |far, request| {
        noted.note(&request);
        async move {
            if request.uri().query().is_some_and(|query| query.contains("sendInitialEvents")) {
                return wire::refusal(422, "Invalid", "sendInitialEvents: Forbidden");
            }
            far.pass(request).await
        }
        .boxed()
    });
    let informers = Informers::new(old_server, Options { page_size: 2, ..Options::default() });
    let maps: Handle<Picky> = informers.informer(CONFIG_MAPS, Scope::namespace(namespace.as_str()));
    let mut told = listen(&maps);
    timeout(SOON, maps.wait_synced()).await.unwrap();
    assert_eq!(maps.store().len(), 5);
    assert_eq!(log.count("limit=2"), 3, "{:?}", log.lines());
    assert_eq!(log.count("resourceVersion=0"), 0, "a list that may be answered from the past");
    for _ in 0..5 {
        next(&mut told).await;
    }
    client.create(&CONFIG_MAPS, &namespace, &config_map("later", &json!({}))).await.unwrap();
    assert_eq!(next(&mut told).await, "new later");
}

/// What happens while a watch is down, for longer than the server's history reaches, is made up for.
#[tokio::test]
async fn after_a_410_deletions_are_told_and_nothing_goes_back_in_time() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    let mut uids = Vec::new();
    for name in ["stays", "goes", "changes"] {
        let reply = client.create(&CONFIG_MAPS, &namespace, &config_map(name, &json!({}))).await.unwrap();
        uids.push(reply.meta.uid);
    }
    let target: Arc<Mutex<Option<kube::Client>>> = Arc::new(Mutex::new(Some(client.kube())));
    let (switch, cut) = (Arc::clone(&target), Arc::new(tokio::sync::Notify::new()));
    let line_cut = Arc::clone(&cut);
    let switched = wire::scripted(client::Options::default(), move |request| {
        let (server, cut) = (switch.lock().unwrap().clone(), Arc::clone(&line_cut));
        async move {
            let Some(server) = server else { return Err("the line is down".into()) };
            let answer = server.send(request).await?;
            let body = answer.map(|body| until(body, cut));
            Ok(body)
        }
        .boxed()
    });
    let options = Options::default();
    let metrics = options.metrics.clone();
    let informers = Informers::new(switched, options);
    let maps: Handle<Picky> = informers.informer(CONFIG_MAPS, Scope::namespace(namespace.as_str()));
    timeout(SOON, maps.wait_synced()).await.unwrap();
    let mut told = listen(&maps);
    for _ in 0..3 {
        next(&mut told).await;
    }

    *target.lock().unwrap() = None;
    cut.notify_waiters();
    waiting(&maps).await;
    let key = |name: &str| Key::new(namespace.as_str(), name);
    client.delete(&CONFIG_MAPS, &key("goes"), &uids[1], None).await.unwrap();
    let newest = label(&client, &key("changes"), "a", "b").await;
    // Its history begins after these changes.
    let sibling: ApiServer = server.sibling().await;
    *target.lock().unwrap() = Some(sibling.client().kube());

    let mut heard = [next(&mut told).await, next(&mut told).await];
    heard.sort();
    assert_eq!(heard, ["changed changes", "deleted goes"]);
    assert_eq!(metrics.lists_of(&CONFIG_MAPS), 2, "no list was needed: nothing was tested");
    assert!(maps.store().last_version() >= newest);
    let mut names: Vec<_> = maps.store().all().iter().map(|map| map.meta.key.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["changes", "stays"]);
    assert!(told.try_recv().is_err(), "what had not changed was told again");
}

/// A body that breaks when told to.
fn until(body: kube::client::Body, cut: Arc<tokio::sync::Notify>) -> wire::Body {
    let stream = futures::stream::unfold((body, cut, false), |(mut body, cut, ended)| async move {
        if ended {
            return None;
        }
        let frame = tokio::select! {
            frame = body.frame() => frame?.map_err(BoxError::from),
            () = cut.notified() => Err(BoxError::from("the line was cut")),
        };
        let ended = frame.is_err();
        Some((frame, (body, cut, ended)))
    });
    BodyExt::boxed_unsync(StreamBody::new(stream))
}

/// A server whose lists are those of a script, the last one for ever, and whose first watch is "too old".
fn replica(script: Vec<Value>) -> client::Client {
    let script = Arc::new(Mutex::new(script));
    let watched = Arc::new(AtomicBool::new(false));
    wire::scripted(client::Options::default(), move |request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let (script, watched) = (Arc::clone(&script), Arc::clone(&watched));
        async move {
            if query.contains("sendInitialEvents") {
                return wire::refusal(422, "Invalid", "no");
            }
            if query.contains("watch=true") {
                if watched.swap(true, Ordering::Relaxed) {
                    let silent = StreamBody::new(futures::stream::pending());
                    return Ok(Response::new(BodyExt::boxed_unsync(silent)));
                }
                return wire::refusal(410, "Expired", "too old resource version");
            }
            let mut script = script.lock().unwrap();
            let page = if script.len() > 1 { script.remove(0) } else { script[0].clone() };
            wire::answer(200, &page)
        }
        .boxed()
    })
}

fn list(version: u64, items: &[(u64, &str)]) -> Value {
    let items: Vec<_> = items
        .iter()
        .map(|(version, label)| {
            json!({"metadata": {"name": "m", "namespace": "n", "uid": "u", "labels": {"is": label},
                   "resourceVersion": version.to_string()}})
        })
        .collect();
    json!({"metadata": {"resourceVersion": version.to_string()}, "items": items})
}

/// Tells the label `is` of what is applied.
fn listen_to_labels(maps: &Handle<Picky>) -> Told {
    let (tell, told) = mpsc::unbounded_channel();
    drop(maps.subscribe(move |event| {
        let text = match event {
            Event::Applied { new, .. } => new.meta.labels.get("is").unwrap_or_default(),
            Event::Deleted { .. } => "deleted",
        };
        let _ = tell.send(text.to_owned());
    }));
    told
}

/// A list that is older than what has been seen would make a controller repeat itself.
#[tokio::test(start_paused = true)]
async fn a_list_from_the_past_is_refused() {
    let lagging = [list(50, &[(40, "old")]), list(50, &[])];
    let [old, empty] = lagging;
    let client = replica(vec![list(100, &[(90, "new")]), old, empty, list(120, &[(110, "newest")])]);
    let informers = Informers::new(client, Options::default());
    let maps: Handle<Picky> = informers.informer(CONFIG_MAPS, Scope::all());
    let mut told = listen_to_labels(&maps);
    assert!(waiting(&maps).await.contains("version 100 has been seen already"));
    assert_eq!([next(&mut told).await, next(&mut told).await], ["new", "newest"]);
    assert_eq!(maps.store().last_version(), 120);
}

/// An API server whose storage was restored from a backup is in the past for good: after a while that is the
/// truth, and to refuse it for ever would be a controller that is dead until someone restarts it.
#[tokio::test(start_paused = true)]
async fn a_past_that_stays_becomes_the_present() {
    let client = replica(vec![list(100, &[(90, "new")]), list(50, &[(40, "restored")])]);
    let informers = Informers::new(client, Options::default());
    let maps: Handle<Picky> = informers.informer(CONFIG_MAPS, Scope::all());
    let mut told = listen_to_labels(&maps);
    assert_eq!(next(&mut told).await, "new");
    assert!(timeout(Duration::from_secs(25), told.recv()).await.is_err(), "believed too soon");
    let restored = timeout(Duration::from_secs(120), told.recv()).await.unwrap().unwrap();
    assert_eq!((restored.as_str(), maps.store().last_version()), ("restored", 50));
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_where_it_was() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    let (log, cut) = (Log::default(), Arc::new(tokio::sync::Notify::new()));
    let (noted, line_cut, far) = (log.clone(), Arc::clone(&cut), client.kube());
    let flaky = wire::scripted(client::Options::default(), move |request| {
        noted.note(&request);
        let (far, cut) = (far.clone(), Arc::clone(&line_cut));
        async move { Ok(far.send(request).await?.map(|body| until(body, cut))) }.boxed()
    });
    let options = Options::default();
    let metrics = options.metrics.clone();
    let informers = Informers::new(flaky, options);
    let maps: Handle<Picky> = informers.informer(CONFIG_MAPS, Scope::namespace(namespace.as_str()));
    timeout(SOON, maps.wait_synced()).await.unwrap();
    let mut told = listen(&maps);
    cut.notify_waiters();
    waiting(&maps).await;
    client.create(&CONFIG_MAPS, &namespace, &config_map("missed", &json!({}))).await.unwrap();
    assert_eq!(next(&mut told).await, "new missed");
    assert_eq!(metrics.lists_of(&CONFIG_MAPS), 1, "{:?}", log.lines());
}

/// A connection that died without a word looks like a watch with no news.
#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_taken_for_dead() {
    let log = Log::default();
    let noted = log.clone();
    let client = wire::scripted(client::Options::default(), move |request| {
        noted.note(&request);
        let query = request.uri().query().unwrap_or_default().to_owned();
        async move {
            if query.contains("sendInitialEvents") {
                return wire::refusal(422, "Invalid", "no");
            }
            if query.contains("watch=true") {
                let silent = StreamBody::new(futures::stream::pending());
                return Ok(Response::new(BodyExt::boxed_unsync(silent)));
            }
            wire::answer(200, &json!({"metadata": {"resourceVersion": "7"}, "items": []}))
        }
        .boxed()
    });
    let informers = Informers::new(client, Options::default());
    let maps: Handle<Picky> = informers.informer(CONFIG_MAPS, Scope::all());
    maps.wait_synced().await;
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(log.count("resourceVersion=7"), 3, "{:?}", log.lines());
}

#[tokio::test]
async fn a_missing_permission_names_verb_and_resource() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let informers = Informers::new(server.client_of(NOBODY, client::Options::default()), Options::default());
    let pods: Handle<Pod> = informers.informer(PODS, Scope::all());
    let why = waiting(&pods).await;
    assert!(why.contains("no permission to list and watch pods in all namespaces"), "{why}");
    assert!(why.contains("nobody"), "{why}");
    assert_eq!(informers.not_following().len(), 1);
}

/// A CRD may be installed after the controller: it waits, says so, and starts by itself.
#[tokio::test]
async fn a_crd_that_appears_later_is_watched() {
    const SAILS: Resource =
        Resource { group: "rigging.example.com", version: "v1", kind: "Sail", plural: "sails" };
    const CRDS: Resource = Resource {
        group: "apiextensions.k8s.io",
        version: "v1",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
    };
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    let informers = Informers::new(client.clone(), Options::default());
    let sails: Handle<Picky> = informers.informer(SAILS, Scope::all());
    let why = waiting(&sails).await;
    assert!(why.contains("sails.rigging.example.com v1 is not served: is its CRD installed?"), "{why}");

    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "sails.rigging.example.com"},
        "spec": {"group": "rigging.example.com", "scope": "Namespaced",
            "names": {"kind": "Sail", "plural": "sails"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    client.create(&CRDS, "", &crd).await.unwrap();
    timeout(SOON, sails.wait_synced()).await.expect("the CRD was not noticed");
    let mut told = listen(&sails);
    let sail = json!({"apiVersion": "rigging.example.com/v1", "kind": "Sail", "metadata": {"name": "jib"}});
    client.create(&SAILS, &namespace, &sail).await.unwrap();
    assert_eq!(next(&mut told).await, "new jib");
    assert_eq!(sails.status(), Status::Synced);
}

#[tokio::test]
async fn subscribers_come_and_go_and_may_fail() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    let informers = Informers::new(client.clone(), Options::default());
    let maps: Handle<Picky> = informers.informer(CONFIG_MAPS, Scope::namespace(namespace.as_str()));
    timeout(SOON, maps.wait_synced()).await.unwrap();
    let (tell, mut cancelled) = mpsc::unbounded_channel();
    let subscription = maps.subscribe(move |_| {
        let _ = tell.send(());
    });
    drop(maps.subscribe(|_| panic!("a careless subscriber")));
    let mut told = listen(&maps);
    client.create(&CONFIG_MAPS, &namespace, &config_map("one", &json!({}))).await.unwrap();
    assert_eq!(next(&mut told).await, "new one");
    assert!(cancelled.recv().await.is_some());
    subscription.cancel();
    assert_eq!(cancelled.recv().await, None, "its callback was kept");
    client.create(&CONFIG_MAPS, &namespace, &config_map("two", &json!({}))).await.unwrap();
    assert_eq!(next(&mut told).await, "new two");
    informers.remove(&maps);
}

/// Between the objects of a streamed list live events may come: they say nothing about what was not listed yet.
#[tokio::test]
async fn a_list_under_way_promises_nothing() {
    let (feed, lines) = futures::channel::mpsc::unbounded::<String>();
    let lines = Arc::new(Mutex::new(Some(lines)));
    let client = wire::scripted(client::Options::default(), move |_| {
        let lines = lines.lock().unwrap().take();
        async move {
            let frames = futures::StreamExt::map(lines.ok_or("one watch is enough")?, |line| {
                Ok::<_, BoxError>(http_body::Frame::data(bytes::Bytes::from(line)))
            });
            Ok(Response::new(BodyExt::boxed_unsync(StreamBody::new(frames))))
        }
        .boxed()
    });
    let send = |kind: &str, name: &str, version: u64, annotation: &str| {
        let object = json!({"metadata": {"name": name, "namespace": "n", "uid": name,
            "resourceVersion": version.to_string(), "annotations": {annotation: "true"}}});
        feed.unbounded_send(json!({"type": kind, "object": object}).to_string() + "\n").unwrap();
    };
    let informers = Informers::new(client, Options::default());
    let maps: Handle<Picky> = informers.informer(CONFIG_MAPS, Scope::all());
    let mut told = listen(&maps);
    send("ADDED", "a", 10, "");
    send("ADDED", "b", 90, "");
    send("DELETED", "a", 95, "");
    send("BOOKMARK", "", 96, "some.other/annotation");
    for expected in ["new a", "new b", "deleted a"] {
        assert_eq!(next(&mut told).await, expected);
    }
    send("ADDED", "c", 20, "");
    assert_eq!(next(&mut told).await, "new c");
    assert_eq!((maps.store().last_version(), maps.store().is_synced()), (0, false));
    send("BOOKMARK", "", 97, "k8s.io/initial-events-end");
    timeout(SOON, maps.wait_synced()).await.unwrap();
    assert_eq!(maps.store().last_version(), 97);
    send("DELETED", "c", 98, "");
    assert_eq!(next(&mut told).await, "deleted c");
    assert_eq!(maps.store().last_version(), 98);
}
