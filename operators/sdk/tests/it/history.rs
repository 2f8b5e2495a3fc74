//! Informers behind a server whose history is not what it was, or whose objects are not what they should be:
//! none may end, go silent, show what is long gone, or hold a key for good.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt, stream};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use trysail_sdk::{
    client,
    core::{Key, Meta, Object, Uid, slim_object},
    gate::{Gate, GateMetrics, Passage},
    informer::{Event, Handle, Informers, Options, Scope, Status},
};

use crate::{
    apiserver::CONFIG_MAPS,
    wire::{self, BoxError},
};

const SOON: Duration = Duration::from_secs(20);

/// A ConfigMap that cannot be decoded when labelled `is: unreadable`, and whose decoder has a bug when it is
/// labelled `is: explosive`.
#[derive(Clone, Debug, PartialEq)]
struct Touchy {
    meta: Meta,
}

slim_object!(Touchy);

impl<'de> Deserialize<'de> for Touchy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            metadata: Meta,
        }
        let Wire { metadata: meta } = Wire::deserialize(deserializer)?;
        match meta.labels.get("is") {
            Some("unreadable") => Err(serde::de::Error::custom("labelled as unreadable")),
            Some("explosive") => panic!("a bug in a decoder"),
            _ => Ok(Self { meta }),
        }
    }
}

/// What the server does with one request.
#[derive(Clone)]
enum Turn {
    /// Answers with these lines, then says nothing more.
    Lines(Vec<String>),
    /// Answers with these lines and ends.
    Cut(Vec<String>),
    /// `410 Gone`.
    TooOld,
}

/// A client of a server that streams its lists and follows a script, request by request; the last for ever.
fn server(script: Vec<Turn>) -> client::Client {
    let script = Arc::new(Mutex::new(script));
    wire::scripted(client::Options::default(), move |_| {
        let mut script = script.lock().unwrap();
        let turn = if script.len() > 1 { script.remove(0) } else { script[0].clone() };
        async move {
            match turn {
                Turn::TooOld => wire::refusal(410, "Expired", "too old resource version"),
                Turn::Lines(lines) => Ok(body(stream::iter(lines).chain(stream::pending()))),
                Turn::Cut(lines) => Ok(body(stream::iter(lines))),
            }
        }
        .boxed()
    })
}

fn body(lines: impl Stream<Item = String> + Send + 'static) -> Response<wire::Body> {
    let frames = lines.map(|line| Ok::<_, BoxError>(Frame::data(line.into())));
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

fn line(kind: &str, name: &str, version: u64, is: &str) -> String {
    let object = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"is": is},
        "resourceVersion": version.to_string()}});
    json!({"type": kind, "object": object}).to_string() + "\n"
}

fn end_of_list(version: u64) -> String {
    let object: Value = json!({"metadata": {"resourceVersion": version.to_string(),
        "annotations": {"k8s.io/initial-events-end": "true"}}});
    json!({"type": "BOOKMARK", "object": object}).to_string() + "\n"
}

fn follow(client: &client::Client) -> (Informers, Handle<Touchy>, mpsc::UnboundedReceiver<String>) {
    let informers = Informers::new(client.clone(), Options::default());
    let maps: Handle<Touchy> = informers.informer(CONFIG_MAPS, Scope::all());
    let (tell, told) = mpsc::unbounded_channel();
    drop(maps.subscribe(move |event| {
        let text = match event {
            Event::Applied { new, .. } => format!("{} {}", new.key().name, new.meta.resource_version),
            Event::Deleted { last } => format!("{} gone", last.key().name),
        };
        let _ = tell.send(text);
    }));
    (informers, maps, told)
}

async fn next(told: &mut mpsc::UnboundedReceiver<String>, within: Duration) -> String {
    timeout(within, told.recv()).await.expect("nothing was told in time").unwrap()
}

/// The task of an informer is all that keeps a store alive: a bug on its way must not end it in silence.
#[tokio::test(start_paused = true)]
async fn a_bug_in_a_decoder_does_not_end_the_informer() {
    let client = server(vec![
        Turn::Lines(vec![
            line("ADDED", "a", 90, "calm"),
            end_of_list(100),
            line("MODIFIED", "a", 101, "explosive"),
        ]),
        Turn::Lines(vec![line("ADDED", "a", 102, "calm"), end_of_list(110)]),
    ]);
    let (_informers, maps, mut told) = follow(&client);
    let mut status = maps.status_changes();
    assert_eq!(next(&mut told, SOON).await, "a 90");
    let waits = status.wait_for(|status| matches!(status, Status::Waiting { .. }));
    drop(timeout(SOON, waits).await.expect("nobody is told that the informer does not follow").unwrap());
    assert_eq!(next(&mut told, SOON).await, "a 102");
}

/// A streamed list tells its version last. Until then nothing in it may bring back what was seen to go: a
/// controller would work for an owner that is gone.
#[tokio::test(start_paused = true)]
async fn a_streamed_list_from_the_past_brings_nothing_back() {
    let client = server(vec![
        Turn::Cut(vec![
            line("ADDED", "a", 90, ""),
            line("ADDED", "b", 80, ""),
            end_of_list(100),
            line("DELETED", "b", 101, ""),
        ]),
        Turn::TooOld,
        Turn::Lines(vec![line("ADDED", "a", 90, ""), line("ADDED", "b", 80, ""), end_of_list(95)]),
        Turn::Lines(vec![line("ADDED", "a", 120, ""), line("ADDED", "b", 110, ""), end_of_list(130)]),
    ]);
    let (_informers, maps, mut told) = follow(&client);
    let mut all = Vec::new();
    while all.last().is_none_or(|last| last != "b 110") {
        all.push(next(&mut told, Duration::from_secs(60)).await);
    }
    assert_eq!(all, ["a 90", "b 80", "b gone", "a 120", "b 110"]);
    assert_eq!(maps.store().len(), 2);
}

/// A watch from a version that the server has not reached yet is answered with silence: that is what an API
/// server does whose storage was restored from a backup.
#[tokio::test(start_paused = true)]
async fn a_watch_from_the_future_is_not_waited_at_for_ever() {
    let client = server(vec![
        Turn::Lines(vec![line("ADDED", "a", 90, ""), end_of_list(100)]),
        Turn::Lines(vec![line("ADDED", "a", 40, ""), end_of_list(50)]),
    ]);
    let (informers, maps, mut told) = follow(&client);
    let (wake, mut woken) = mpsc::unbounded_channel();
    let gate =
        Gate::new("test", &informers, &client, GateMetrics::default(), move |key| drop(wake.send(key)));
    assert_eq!(next(&mut told, SOON).await, "a 90");
    maps.wait_synced().await;
    let key = Key::new("n", "owner");
    gate.wrote(&key, &CONFIG_MAPS, "n", 105);
    assert_eq!(next(&mut told, Duration::from_secs(600)).await, "a 40");
    // What was written in the history that is no more will never show.
    let opened = timeout(SOON, woken.recv()).await.expect("the key is held for good");
    assert_eq!((opened, gate.check(&key)), (Some(key), Passage::Open));
}

/// An object that goes while the list streams, and whose end cannot be read, is gone all the same.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_cannot_be_read_opens_the_gate() {
    let client = server(vec![
        Turn::Cut(vec![line("ADDED", "a", 90, ""), end_of_list(100)]),
        Turn::TooOld,
        Turn::Lines(vec![
            line("ADDED", "a", 90, ""),
            line("DELETED", "a", 105, "unreadable"),
            end_of_list(110),
        ]),
    ]);
    let (informers, maps, mut told) = follow(&client);
    let (wake, mut woken) = mpsc::unbounded_channel();
    let gate =
        Gate::new("test", &informers, &client, GateMetrics::default(), move |key| drop(wake.send(key)));
    assert_eq!(next(&mut told, SOON).await, "a 90");
    maps.wait_synced().await;
    let key = Key::new("n", "owner");
    gate.deleted(&key, &CONFIG_MAPS, &Key::new("n", "a"), &Uid::from("a"));
    assert!(matches!(gate.check(&key), Passage::Waiting(_)));
    assert_eq!(next(&mut told, Duration::from_secs(600)).await, "a gone");
    let opened = timeout(SOON, woken.recv()).await.expect("the key is held for good");
    assert_eq!(opened, Some(key));
}
