//! The client's edges: nothing is sent twice, nothing is waited for without end, nothing passes a closed fence.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Response, header::USER_AGENT};
use http_body_util::{BodyExt, StreamBody};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use tokio::time::Instant;
use trysail_sdk::{
    client::{Class, Client, Error, Fence, Options},
    core::{Key, Uid, resource::PODS},
};

use crate::wire::{self, BoxError, Log};

fn options(fence: &Fence) -> Options {
    Options { fence: fence.clone(), ..Options::default() }
}

/// Answers everything with that refusal and counts.
fn refusing(fence: &Fence, code: u16) -> (Client, Log) {
    let log = Log::default();
    let noted = log.clone();
    let client = wire::scripted(options(fence), move |request| {
        noted.note(&request);
        async move { wire::refusal(code, "", "busy") }.boxed()
    });
    (client, log)
}

/// kube's own client repeats any method up to 15 times on these codes.
#[tokio::test]
async fn no_request_is_repeated() {
    for code in [429, 503, 504] {
        let (client, log) = refusing(&Fence::always_open(), code);
        let error = client.create(&PODS, "shop", &json!({})).await.unwrap_err();
        let expected = if code == 429 { Class::Throttled(None) } else { Class::Unknown };
        assert_eq!(error.class(), expected);
        assert_eq!(log.lines().len(), 1, "{code}: {:?}", log.lines());
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(client.kube(), "shop");
        pods.delete("web", &kube::api::DeleteParams::default()).await.unwrap_err();
        assert_eq!(log.lines().len(), 2, "{code} through kube: {:?}", log.lines());
    }
}

#[tokio::test(start_paused = true)]
async fn writes_pass_only_while_the_fence_is_open() {
    let fence = Fence::closed();
    let (client, log) = refusing(&fence, 503);
    let web = Key::new("shop", "web");
    let write = async || client.delete(&PODS, &web, &Uid::from("u"), None).await.unwrap_err();
    let error = write().await;
    assert_eq!(error.class(), Class::Fenced, "{error}");
    assert!(matches!(&error, Error::Fenced { what, .. } if what == "delete Pod shop/web"));
    let config_maps: kube::Api<ConfigMap> = kube::Api::namespaced(client.kube(), "shop");
    config_maps.create(&kube::api::PostParams::default(), &ConfigMap::default()).await.unwrap_err();
    assert_eq!(log.lines(), [""; 0], "a write left behind a closed fence");

    fence.open_until(Instant::now() + Duration::from_secs(6));
    assert_eq!(write().await.class(), Class::Unknown);
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(write().await.class(), Class::Fenced);
    assert_eq!(log.count("DELETE"), 1);

    // Reads, the lease and events go on.
    client.get_meta(&PODS, &web).await.unwrap_err();
    client.exempt().create(&PODS, "shop", &json!({})).await.unwrap_err();
    assert_eq!(log.count("GET") + log.count("POST"), 2);
}

/// The fence is closed so long before another process may lead as a write may take.
#[tokio::test(start_paused = true)]
async fn a_write_ends_in_time_and_the_server_is_told() {
    let log = Log::default();
    let noted = log.clone();
    let client = wire::scripted(Options::default(), move |request| {
        noted.note(&request);
        futures::future::pending().boxed()
    });
    let begun = Instant::now();
    let error = client.create(&PODS, "shop", &json!({})).await.unwrap_err();
    assert_eq!((error.class(), begun.elapsed()), (Class::Unknown, Duration::from_secs(4)));
    assert_eq!(log.lines(), ["POST /api/v1/namespaces/shop/pods?timeout=4000ms"]);
    let begun = Instant::now();
    client.get_meta(&PODS, &Key::new("shop", "web")).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_halfway_ends_in_time_too() {
    let client = wire::scripted(Options::default(), |_| {
        async {
            let part = futures::stream::once(async {
                Ok::<_, BoxError>(http_body::Frame::data(Bytes::from_static(b"{\"meta")))
            });
            let body = StreamBody::new(futures::StreamExt::chain(part, futures::stream::pending()));
            Ok(Response::new(BodyExt::boxed_unsync(body)))
        }
        .boxed()
    });
    let error = client.create(&PODS, "shop", &json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn what_cannot_be_reached_was_not_sent() {
    // Nobody listens on port 1.
    let mut config = kube::Config::new("https://127.0.0.1:1".parse().unwrap());
    config.accept_invalid_certs = true;
    let client = Client::new(&config, Options::default()).unwrap();
    let error = client.create(&PODS, "shop", &json!({})).await.unwrap_err();
    assert_eq!(error.class(), Class::NotSent, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn it_says_who_it_is() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let client = wire::scripted(Options::default(), move |request| {
        let agent = request.headers()[USER_AGENT].to_str().unwrap().to_owned();
        count.fetch_add(usize::from(agent.starts_with("trysail-manager/")), Ordering::Relaxed);
        async { wire::refusal(404, "NotFound", "no") }.boxed()
    });
    client.get_meta(&PODS, &Key::new("a", "b")).await.unwrap_err();
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}
