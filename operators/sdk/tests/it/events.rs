//! Events as people see them, against a real API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use serde_json::json;
use trysail_sdk::{
    core::{Key, plan::EventNote},
    events::{Events, Regarding},
    metrics::Metrics,
};

use crate::apiserver::{self, CONFIG_MAPS, config_map};

#[tokio::test]
async fn equal_events_are_one_object_with_a_count_and_an_expired_one_begins_anew() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    let map = client.create(&CONFIG_MAPS, &namespace, &config_map("ship", &json!({}))).await.unwrap();
    let regarding = Regarding { resource: CONFIG_MAPS, key: map.meta.key.clone(), uid: map.meta.uid };
    let api: kube::Api<Event> = kube::Api::namespaced(client.kube(), &namespace);

    let events = Events::start(&client, &Metrics::new());
    let recorder = events.recorder("harbour");
    for _ in 0..3 {
        recorder.record(&regarding, EventNote::normal("Moored", "at pier 3"));
    }
    recorder.record(&regarding, EventNote::warning("Leaking", "below the waterline"));
    let list = loop {
        let list = api.list(&kube::api::ListParams::default()).await.unwrap().items;
        if list.len() == 2 && list.iter().any(|event| event.count == Some(3)) {
            break list;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let moored = list.iter().find(|event| event.reason.as_deref() == Some("Moored")).unwrap();
    assert_eq!(moored.message.as_deref(), Some("at pier 3"));
    assert_eq!(moored.type_.as_deref(), Some("Normal"));
    assert_eq!(moored.source.as_ref().unwrap().component.as_deref(), Some("harbour"));
    assert_eq!(moored.involved_object.uid.as_deref(), Some(regarding.uid.to_string().as_str()));
    assert_eq!(moored.involved_object.kind.as_deref(), Some("ConfigMap"));
    assert!(moored.first_timestamp <= moored.last_timestamp);

    // The API server forgets events after an hour.
    let name = moored.metadata.name.clone().unwrap();
    api.delete(&name, &kube::api::DeleteParams::default()).await.unwrap();
    recorder.record(&regarding, EventNote::normal("Moored", "at pier 3"));
    // What was recorded before a stop is written before its end.
    events.stop(Duration::from_secs(10)).await;
    assert_eq!(api.get(&name).await.unwrap().count, Some(4));
    recorder.record(&regarding, EventNote::normal("Moored", "after the end"));
}

/// Recording never waits and never fails, whatever the sink does.
#[tokio::test]
async fn what_does_not_fit_is_dropped_and_counted() {
    let (options, metrics) = (trysail_sdk::client::Options::default(), Metrics::new());
    let client = crate::wire::scripted(options, |_| Box::pin(std::future::pending()));
    let events = Events::start(&client, &metrics);
    let recorder = events.recorder("harbour");
    for number in 0..2000 {
        let key = Key::new("shop", format!("ship-{number}"));
        let regarding = Regarding { resource: CONFIG_MAPS, key, uid: "u".into() };
        recorder.record(&regarding, EventNote::normal("Moored", "at pier 3"));
    }
    assert!(metrics.encode().contains("trysail_events_dropped_total 1000"), "{}", metrics.encode());
}
