//! Informers against a real API server.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Deserializer};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use trysail_sdk::{
    core::{Key, Meta, Object, Resource, View, pod::Pod, resource::PODS, slim_object},
    informer::{Event, Handle, Informers, Options, Scope, Status},
};

use crate::apiserver::{self, CONFIG_MAPS, NOBODY, config_map, pod};

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

    client
        .merge_patch(&PODS, &second, None, &json!({"metadata": {"labels": {"app": "b"}}}))
        .await
        .unwrap();
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
