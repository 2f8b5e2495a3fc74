//! The gate where no real server is needed: an API server that cannot be asked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use trysail_sdk::{
    client::Options,
    core::{Key, Uid, resource::PODS},
    gate::{Attempt, Gate, GateMetrics, Passage, WaitingFor},
    informer::{self, Informers},
};

use crate::wire;

fn attempt() -> Attempt {
    Attempt { resource: PODS, object: Key::new("shop", "p"), uid: Some(Uid::from("u")), delete: true }
}

/// While the API server cannot be asked what became of a write, the key stays held: no time that passes makes
/// it safe to act.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_holds_until_the_server_answers() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let client = wire::scripted(Options::default(), move |_| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        async move {
            match nth {
                0..20 => wire::refusal(503, "", "down"),
                _ => wire::refusal(404, "NotFound", "no such pod"),
            }
        }
        .boxed()
    });
    let informers = Informers::new(client.clone(), informer::Options::default());
    let (wake, mut woken) = mpsc::unbounded_channel();
    let gate =
        Gate::new("test", &informers, &client, GateMetrics::default(), move |key| drop(wake.send(key)));
    let web = Key::new("shop", "web");
    gate.unknown(&web, attempt());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(gate.check(&web), Passage::Waiting(WaitingFor::Answers { count: 1 }));
    assert!(asked.load(Ordering::Relaxed) < 20, "the server is asked too often");
    assert_eq!(timeout(Duration::from_secs(600), woken.recv()).await.unwrap(), Some(web.clone()));
    assert_eq!(gate.check(&web), Passage::Open);
}

/// Nobody will ever be told of a resource that nobody watches.
#[tokio::test]
async fn what_nobody_watches_is_not_waited_for() {
    let client = wire::scripted(Options::default(), |_| async { wire::answer(200, &json!({})) }.boxed());
    let informers = Informers::new(client.clone(), informer::Options::default());
    let gate = Gate::new("test", &informers, &client, GateMetrics::default(), |_| {});
    let web = Key::new("shop", "web");
    gate.wrote(&web, &PODS, "shop", 7);
    gate.deleted(&web, &PODS, &Key::new("shop", "p"), &Uid::from("u"));
    assert_eq!(gate.check(&web), Passage::Open);
}
