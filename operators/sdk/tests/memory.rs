//! What a pod costs, in a process of its own: an allocator that counts, and nothing else that allocates.
//!
//! Run with `--release` for the time per event; the bytes are the same.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though clippy cannot tell")]

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use peak_alloc::PeakAlloc;
use trysail_sdk::{
    client::{self, Client},
    core::{Uid, View, pod::Pod, resource::PODS},
    informer::{Handle, Informers, Options, Scope},
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Half of the 50,000 of the budget, for the sake of debug builds: 250 per namespace leave its table as empty as
/// a table gets.
const PODS_HELD: usize = 25_000;
const PODS_PER_OWNER: usize = 10;
/// All in: the object, its strings, every index.
const BUDGET: usize = 500;

/// A pod as a cluster has it, 5 KB: the template, four conditions, two container statuses, managed fields.
fn pod(n: usize, version: usize) -> String {
    let owner = n / PODS_PER_OWNER;
    let padding = "x".repeat(1200);
    format!(
        r#"{{"type":"ADDED","object":{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"shop-frontend-{owner:05}-{n:05}","generateName":"shop-frontend-{owner:05}-","namespace":"team-{ns:03}","uid":"0b6e6d9c-3c61-4d50-8a50-{n:012x}","resourceVersion":"{version}","generation":1,"creationTimestamp":"2026-01-02T03:04:05Z","labels":{{"app":"shop","tier":"frontend-{ns:03}","pod-template-hash":"hash{owner:05}"}},"annotations":{{"example.com/config":"{padding}"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"shop-frontend-{owner:05}","uid":"7b6e6d9c-3c61-4d50-8a50-{owner:012x}","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{{"manager":"trysail-manager","operation":"Update","apiVersion":"v1","time":"2026-01-02T03:04:05Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:annotations":{{".":{{}},"f:x":{{}}}}}},"f:padding":"{padding}"}}}}]}},"spec":{{"volumes":[{{"name":"kube-api-access","projected":{{"sources":[{{"serviceAccountToken":{{"expirationSeconds":3607,"path":"token"}}}}],"defaultMode":420}}}}],"containers":[{{"name":"app","image":"registry.example.com/shop/frontend:1.2.3","env":[{{"name":"A","value":"{padding}"}}],"resources":{{"requests":{{"cpu":"100m","memory":"128Mi"}}}}}},{{"name":"proxy","image":"registry.example.com/proxy:2"}}],"restartPolicy":"Always","nodeName":"worker-{node:04}","priority":0}},"status":{{"phase":"Running","conditions":[{{"type":"PodReadyToStartContainers","status":"True","lastTransitionTime":"2026-01-02T03:04:06Z"}},{{"type":"Initialized","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z"}},{{"type":"Ready","status":"True","lastTransitionTime":"2026-01-02T03:04:09Z"}},{{"type":"PodScheduled","status":"True","lastTransitionTime":"2026-01-02T03:04:05Z"}}],"hostIP":"10.0.0.1","podIP":"10.1.2.3","containerStatuses":[{{"name":"app","state":{{"running":{{"startedAt":"2026-01-02T03:04:08Z"}}}},"ready":true,"restartCount":0,"image":"registry.example.com/shop/frontend:1.2.3","imageID":"sha256:{padding}","containerID":"containerd://1"}},{{"name":"proxy","state":{{}},"ready":true,"restartCount":1}}],"qosClass":"Burstable"}}}}}}
"#,
        ns = owner % 100,
        node = n % 1000,
    )
}

fn end_of_list(version: usize) -> String {
    format!(
        r#"{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"{version}","annotations":{{"k8s.io/initial-events-end":"true"}}}}}}}}
"#
    )
}

/// A server that streams its pods twice, every one of them changed in between: the first watch ends with
/// "too old", the second does not end.
fn server() -> Client {
    static LISTS: AtomicUsize = AtomicUsize::new(0);
    let service = tower::service_fn(|_request| async {
        let list = LISTS.fetch_add(1, Ordering::Relaxed);
        let version = move |n: usize| 1 + n + list * 1_000_000;
        let pods = (0..PODS_HELD).map(move |n| pod(n, version(n)));
        let lines = pods.chain([end_of_list(version(PODS_HELD))]);
        let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(line))));
        let gone = r#"{"type":"ERROR","object":{"code":410,"reason":"Expired"}}"#.to_owned() + "\n";
        let last = futures::stream::once(async move {
            if list > 0 {
                futures::future::pending::<()>().await;
            }
            // Until the steady state was looked at.
            MEASURED.notified().await;
            Ok(Frame::data(Bytes::from(gone)))
        });
        let stream = futures::StreamExt::chain(futures::stream::iter(frames), last);
        Ok::<_, Infallible>(Response::new(BodyExt::boxed_unsync(StreamBody::new(stream))))
    });
    Client::over_service(service, client::Options::default()).unwrap()
}

static MEASURED: tokio::sync::Notify = tokio::sync::Notify::const_new();

async fn reaches(pods: &Handle<Pod>, version: u64) -> Duration {
    let begun = Instant::now();
    while pods.store().last_version() < version {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_pod_costs_at_most_500_bytes_and_a_relist_a_tenth_more() {
    let informers = Informers::new(server(), Options::default());
    let before = MEMORY.current_usage();
    let pods: Handle<Pod> = informers.informer(PODS, Scope::all());
    let took = reaches(&pods, PODS_HELD as u64).await;
    let steady = MEMORY.current_usage() - before;
    let per_pod = steady / PODS_HELD;
    eprintln!("{per_pod} B per pod, {:?} per event", took / PODS_HELD as u32);
    assert_eq!(pods.store().len(), PODS_HELD);
    let owner = Uid::from("7b6e6d9c-3c61-4d50-8a50-000000000007");
    assert_eq!(pods.store().controlled_by(&owner).len(), PODS_PER_OWNER);
    assert!(per_pod <= BUDGET, "{per_pod} B per pod");

    MEMORY.reset_peak_usage();
    MEASURED.notify_one();
    reaches(&pods, 1_000_000).await;
    let peak = MEMORY.peak_usage() - before;
    eprintln!("peak of a relist that changes everything: {:.3} of steady", peak as f64 / steady as f64);
    assert!(peak * 10 <= steady * 11, "{peak} B at the peak, {steady} B steady");
    let first = pods.store().get(&trysail_sdk::core::Key::new("team-000", "shop-frontend-00000-00000"));
    assert_eq!(first.unwrap().meta.resource_version, 1_000_001);
}
