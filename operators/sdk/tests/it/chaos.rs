//! An informer behind a server and a line that misbehave in every way they may: whatever happens, its store
//! ends up as the server's, and those who were told of every change believe the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use futures::{FutureExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};
use trysail_sdk::{
    client::{self, Client},
    core::{Object, pod::Pod, resource::PODS},
    informer::{Event, Handle, Informers, Options, Scope},
};

use crate::wire::{self, Answer, BoxError};

/// A collection with its history, as etcd keeps it.
#[derive(Default)]
struct Server {
    version: u64,
    objects: BTreeMap<String, Value>,
    history: Vec<(u64, &'static str, Value)>,
    /// Events up to here are forgotten.
    compacted: u64,
    incarnations: u64,
}

impl Server {
    fn change(&mut self, rng: &mut Rng) {
        let name = format!("p{}", rng.u8(0..12));
        self.version += 1 + rng.u64(0..3);
        let version = self.version.to_string();
        let (kind, object) = match self.objects.get(&name) {
            Some(held) if rng.u8(0..3) == 0 => {
                let mut last = held.clone();
                last["metadata"]["resourceVersion"] = json!(version);
                self.objects.remove(&name);
                ("DELETED", last)
            }
            Some(held) => {
                let mut new = held.clone();
                new["metadata"]["resourceVersion"] = json!(version);
                self.objects.insert(name, new.clone());
                ("MODIFIED", new)
            }
            None => {
                self.incarnations += 1;
                let uid = format!("uid-{}", self.incarnations);
                let new = json!({"metadata":
                    {"name": name, "namespace": "n", "uid": uid, "resourceVersion": version}});
                self.objects.insert(name, new.clone());
                ("ADDED", new)
            }
        };
        self.history.push((self.version, kind, object));
        if rng.u8(0..20) == 0 {
            self.compacted = self.version;
        }
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        self.objects.iter().map(|(name, object)| (name.clone(), version(object))).collect()
    }
}

fn line(kind: &str, object: &Value) -> String {
    json!({"type": kind, "object": object}).to_string() + "\n"
}

fn bookmark(version: u64, end: bool) -> String {
    let annotations = if end { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
    line(
        "BOOKMARK",
        &json!({"metadata": {"resourceVersion": version.to_string(), "annotations": annotations}}),
    )
}

/// One connection of a watch: what is still to be sent, and when the line breaks.
struct Connection {
    server: Arc<Mutex<Server>>,
    changes: watch::Receiver<u64>,
    position: u64,
    pending: Vec<u8>,
    rng: Rng,
    broken: bool,
}

impl Connection {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, BoxError>, Self)> {
        if self.broken {
            return None;
        }
        while self.pending.is_empty() {
            self.changes.borrow_and_update();
            let news: Vec<_> = {
                let server = self.server.lock().unwrap();
                let news = server.history.iter().filter(|(version, ..)| *version > self.position);
                news.map(|(version, kind, object)| (*version, line(kind, object))).collect()
            };
            for (version, text) in news {
                self.position = version;
                self.pending.extend(text.bytes());
            }
            if self.rng.u8(0..4) == 0 {
                self.pending.extend(bookmark(self.position, false).bytes());
            }
            if self.pending.is_empty() && self.changes.changed().await.is_err() {
                return None;
            }
        }
        match self.rng.u8(0..40) {
            // In the middle of a line, with or without a word.
            0 => return None,
            1 => {
                self.broken = true;
                return Some((Err("connection reset by peer".into()), self));
            }
            2 => {
                self.broken = true;
                let gone = json!({"kind": "Status", "code": 410, "reason": "Expired"});
                // A server ends a line before it says so.
                let text = "\n".to_owned() + &line("ERROR", &gone);
                return if self.pending.starts_with(b"{") {
                    Some((Ok(Frame::data(Bytes::from(text))), self))
                } else {
                    None
                };
            }
            _ => {}
        }
        let size = self.rng.usize(1..=self.pending.len().min(400));
        let piece: Vec<u8> = self.pending.drain(..size).collect();
        Some((Ok(Frame::data(Bytes::from(piece))), self))
    }
}

fn serve(
    server: Arc<Mutex<Server>>,
    changes: watch::Receiver<u64>,
    request: &Request<kube::client::Body>,
    mut rng: Rng,
) -> Answer {
    match rng.u8(0..10) {
        0 => return Err("connection refused".into()),
        1 => return wire::refusal(429, "TooManyRequests", "busy"),
        2 => return wire::refusal(500, "InternalError", "etcdserver: leader changed"),
        _ => {}
    }
    let query = request.uri().query().unwrap_or_default();
    let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
    let mut pending = Vec::new();
    let position = {
        let state = server.lock().unwrap();
        if let Some(from) = from {
            let from: u64 = from.parse()?;
            if from < state.compacted {
                return wire::refusal(410, "Expired", "too old resource version");
            }
            from
        } else {
            for object in state.objects.values() {
                pending.extend(line("ADDED", object).bytes());
            }
            pending.extend(bookmark(state.version, true).bytes());
            state.version
        }
    };
    let connection = Connection { server, changes, position, pending, rng, broken: false };
    Ok(Response::new(BodyExt::boxed_unsync(StreamBody::new(stream::unfold(connection, Connection::next)))))
}

/// What a subscriber believes, from events alone. Checks each of them against what it believes already.
#[derive(Default)]
struct Believer {
    versions: BTreeMap<String, (u64, String)>,
}

impl Believer {
    fn hear(&mut self, event: &Event<Pod>) -> Result<(), String> {
        match event {
            Event::Applied { old, new } => {
                let (name, version) = (new.meta.key.name.to_string(), new.meta.resource_version);
                let before = self.versions.insert(name.clone(), (version, new.uid().to_string()));
                match (before, old) {
                    (None, None) => Ok(()),
                    (Some((held, uid)), Some(old)) if held == old.meta.resource_version && held < version => {
                        if uid == new.uid().to_string() {
                            Ok(())
                        } else {
                            Err(format!("the end of {name} {uid} was not told"))
                        }
                    }
                    (before, _) => Err(format!("{name} at {version} after {before:?}: {event:?}")),
                }
            }
            Event::Deleted { last } => match self.versions.remove(&*last.meta.key.name) {
                Some((_, uid)) if uid == last.uid().to_string() => Ok(()),
                before => Err(format!("deletion of {:?} after {before:?}", last.meta.key)),
            },
        }
    }
}

async fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let server = Arc::new(Mutex::new(Server::default()));
    let (changed, changes) = watch::channel(0);
    for _ in 0..20 {
        server.lock().unwrap().change(&mut rng);
    }
    let (served, dice) = (Arc::clone(&server), Arc::new(Mutex::new(rng.fork())));
    let client: Client = wire::scripted(client::Options::default(), move |request| {
        let rng = dice.lock().unwrap().fork();
        let answer = serve(Arc::clone(&served), changes.clone(), &request, rng);
        async move { answer }.boxed()
    });
    let informers = Informers::new(client, Options::default());
    let pods: Handle<Pod> = informers.informer(PODS, Scope::all());
    let believer = Arc::new(Mutex::new(Believer::default()));
    let (hearing, errors) = (Arc::clone(&believer), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&errors);
    drop(pods.subscribe(move |event| {
        if let Err(error) = hearing.lock().unwrap().hear(event) {
            noted.lock().unwrap().push(error);
        }
    }));
    for _ in 0..200 {
        server.lock().unwrap().change(&mut rng);
        changed.send_modify(|count| *count += 1);
        tokio::time::sleep(Duration::from_millis(rng.u64(0..3000))).await;
    }
    let target = server.lock().unwrap().version;
    let reached = async {
        while pods.store().last_version() < target {
            // A change that is none wakes watches that wait to break.
            changed.send_modify(|count| *count += 1);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_secs(3600), reached)
        .await
        .unwrap_or_else(|_| panic!("seed {seed}: never caught up"));
    assert_eq!(*errors.lock().unwrap(), [""; 0], "seed {seed}");
    let held = pods.store().all();
    let held: BTreeMap<_, _> =
        held.iter().map(|p| (p.meta.key.name.to_string(), p.meta.resource_version.to_string())).collect();
    assert_eq!(held, server.lock().unwrap().versions(), "seed {seed}: the store");
    let believed: BTreeMap<_, _> = believer
        .lock()
        .unwrap()
        .versions
        .iter()
        .map(|(name, (version, _))| (name.clone(), version.to_string()))
        .collect();
    assert_eq!(believed, held, "seed {seed}: a subscriber");
    informers.stop().await;
}

#[test]
fn every_store_ends_up_as_the_server_is() {
    for seed in 0..60 {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(seed));
    }
}
