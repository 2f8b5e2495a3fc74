//! What kube-runtime gets wrong, kept as tests of what stands in its place. The others of these probes are
//! `queue::order`, `queue::starvation`, `controller::panic`, `tests/memory.rs` and `ssa::tests::ssa`.

use std::time::Duration;

use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use trysail_sdk::{
    core::{Key, Object, pod::Pod, resource::PODS},
    informer::{Event, Informers, Options, Scope},
};

use crate::apiserver::{self, pod};

/// Probe "stall": kube-runtime's shared streams lose a wake-up when an object is gone before its subscriber is
/// polled, and never tell of deletions.
#[tokio::test]
async fn stall() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    let informers = Informers::new(server.client(), Options::default());
    let pods = informers.informer::<Pod>(PODS, Scope::namespace(namespace.as_str()));
    pods.wait_synced().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let _subscription = pods.subscribe(move |event| {
        let (what, object) = match event {
            Event::Applied { new, .. } => ("applied", new),
            Event::Deleted { last } => ("deleted", last),
        };
        let _: Result<(), _> = tell.send((what, object.key().name.to_string()));
    });
    client.create(&PODS, &namespace, &pod("a", &json!({}))).await.unwrap();
    let key = Key::new(namespace.as_str(), "a");
    let live = client.get_meta(&PODS, &key).await.unwrap();
    client.delete(&PODS, &key, &live.meta.uid, None).await.unwrap();
    client.create(&PODS, &namespace, &pod("b", &json!({}))).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&("applied", "b".to_owned())) {
        // Nobody else polls: what is told here was pushed.
        let next = timeout(Duration::from_secs(3), told.recv()).await;
        seen.push(next.unwrap_or_else(|_| panic!("b is not told; only {seen:?}")).unwrap());
    }
    assert!(
        seen.contains(&("applied", "a".to_owned())) && seen.contains(&("deleted", "a".to_owned())),
        "{seen:?}"
    );
    informers.stop().await;
}
