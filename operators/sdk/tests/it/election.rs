//! Who leads, on a paused clock where the fault is time itself, and against a real API server.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use trysail_sdk::{
    client::{Client, Fence, Options, Timeouts},
    core::{Key, Resource},
    election::{Election, ElectionConfig, ElectionError},
    metrics::Metrics,
};

use crate::{
    apiserver::{self, CONFIG_MAPS, config_map},
    wire::{self, answer, refusal},
};

const LEASES: Resource =
    Resource { group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases" };

/// One lease with optimistic locking, in memory.
#[derive(Clone, Default)]
struct Lease(Arc<Mutex<Option<Value>>>);

impl Lease {
    /// A client that reaches it for as long as `reachable` says so; requests into the void never end.
    fn client(&self, reachable: &Arc<AtomicBool>) -> Client {
        self.client_with(reachable, Options { fence: Fence::closed(), ..Options::default() })
    }

    fn client_with(&self, reachable: &Arc<AtomicBool>, options: Options) -> Client {
        let (lease, reachable) = (self.clone(), Arc::clone(reachable));
        wire::scripted(options, move |request| {
            let (lease, reachable) = (lease.clone(), Arc::clone(&reachable));
            async move {
                sleep(Duration::from_millis(10)).await;
                if !reachable.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                lease.serve(&parts.method, serde_json::from_slice(&body).unwrap_or_default())
            }
            .boxed()
        })
    }

    fn serve(&self, method: &Method, mut body: Value) -> wire::Answer {
        let mut held = self.0.lock().unwrap();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        match (method, &mut *held) {
            (&Method::GET, None) => refusal(404, "NotFound", "not found"),
            (&Method::GET, Some(lease)) => answer(200, lease),
            (&Method::POST, Some(_)) => refusal(409, "AlreadyExists", "exists"),
            (&Method::PUT, Some(lease)) if version(&body) != version(lease) => {
                refusal(409, "Conflict", "the object has been modified")
            }
            (_, held) => {
                let next = held.as_ref().map_or(1, |lease| version(lease).parse::<u64>().unwrap() + 1);
                body["metadata"]["resourceVersion"] = json!(next.to_string());
                *held = Some(body.clone());
                answer(200, &body)
            }
        }
    }

    fn holder(&self) -> String {
        let held = self.0.lock().unwrap();
        held.as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }
}

fn config(identity: &str) -> ElectionConfig {
    ElectionConfig { identity: identity.to_owned(), ..ElectionConfig::new("default", "manager") }
}

fn reachable() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

/// A leader that stands still (SIGSTOP, swap, a starved CPU) is not asked for anything: nothing it does
/// afterwards may leave, and another leads by then.
#[tokio::test(start_paused = true)]
async fn a_leader_that_stood_still_is_fenced_before_another_leads() {
    let (lease, metrics) = (Lease::default(), Metrics::new());
    let (first, second) = (lease.client(&reachable()), lease.client(&reachable()));
    let mut one = Election::new(&first, config("one"), &metrics).unwrap();
    let mut two = Election::new(&second, config("two"), &metrics).unwrap();
    assert!(!first.fence().is_open());
    one.acquire().await;
    assert!(first.fence().is_open());
    {
        // The standby has seen the leader renew for a minute.
        let (mut hold, mut stand) = (Box::pin(one.hold()), Box::pin(two.acquire()));
        tokio::select! {
            _ = &mut hold => panic!("lost for no reason"),
            _ = &mut stand => panic!("there is a leader"),
            () = sleep(Duration::from_secs(60)) => {}
        }
        // From here on the leader is not polled: it stands still.
        let stopped = Instant::now();
        stand.await;
        assert!(stopped.elapsed() >= Duration::from_secs(13), "{:?}", stopped.elapsed());
        assert!(!first.fence().is_open(), "the old leader's writes are held back before the new one leads");
        assert!(second.fence().is_open());
        let lost = hold.await;
        assert!(matches!(lost, ElectionError::NotRenewed { .. } | ElectionError::Taken { .. }), "{lost}");
    }
    assert!(!first.fence().is_open());
    assert_eq!(lease.holder(), "two");
}

/// Six seconds: ten to renew, less the four that a request may take.
#[tokio::test(start_paused = true)]
async fn the_fence_closes_a_requests_time_before_the_renew_deadline() {
    let (lease, metrics, line) = (Lease::default(), Metrics::new(), reachable());
    let client = lease.client(&line);
    let mut election = Election::new(&client, config("one"), &metrics).unwrap();
    election.acquire().await;
    line.store(false, Ordering::Relaxed);
    let cut = Instant::now();
    let fence = client.fence().clone();
    let closed = tokio::spawn(async move {
        while fence.is_open() {
            sleep(Duration::from_millis(1)).await;
        }
        Instant::now()
    });
    let lost = election.hold().await;
    assert!(matches!(lost, ElectionError::NotRenewed { .. }), "{lost}");
    let (closed, lost) = (closed.await.unwrap() - cut, cut.elapsed());
    assert!((Duration::from_millis(5900)..=Duration::from_secs(6)).contains(&closed), "{closed:?}");
    assert!((Duration::from_millis(9900)..=Duration::from_secs(10)).contains(&lost), "{lost:?}");
}

/// A hiccup of the API server costs nothing while it is shorter than the deadline.
#[tokio::test(start_paused = true)]
async fn a_short_outage_is_survived() {
    let (lease, metrics, line) = (Lease::default(), Metrics::new(), reachable());
    let client = lease.client(&line);
    let mut election = Election::new(&client, config("one"), &metrics).unwrap();
    election.acquire().await;
    line.store(false, Ordering::Relaxed);
    let restore = async {
        sleep(Duration::from_millis(5500)).await;
        line.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(60)).await;
    };
    tokio::select! {
        lost = election.hold() => panic!("{lost}"),
        () = restore => {}
    }
    assert!(client.fence().is_open());
    assert!(metrics.encode().contains(r#"leader_election_master_status{name="manager"} 1"#));
}

#[tokio::test]
async fn times_that_do_not_fit_together_are_refused() {
    let client = Lease::default().client(&reachable());
    let broken = ElectionConfig { renew_deadline: Duration::from_secs(20), ..config("one") };
    let error = Election::new(&client, broken, &Metrics::new()).unwrap_err().to_string();
    assert!(error.contains("lease_duration") && error.contains("renew_deadline"), "{error}");
}

/// The fence keeps a write's time clear before another may lead: that of the client's writes, not only that of
/// the election's own requests.
#[tokio::test(start_paused = true)]
async fn slow_writes_move_the_fence() {
    let patient = |write: u64| {
        let timeouts = Timeouts { write: Duration::from_secs(write), ..Timeouts::default() };
        Lease::default()
            .client_with(&reachable(), Options { timeouts, fence: Fence::closed(), ..Options::default() })
    };
    let error = Election::new(&patient(9), config("one"), &Metrics::new()).unwrap_err().to_string();
    assert!(error.contains("write") && error.contains("renew_deadline"), "{error}");

    let client = patient(7);
    let mut election = Election::new(&client, config("one"), &Metrics::new()).unwrap();
    election.acquire().await;
    sleep(Duration::from_millis(2800)).await;
    assert!(client.fence().is_open());
    sleep(Duration::from_millis(300)).await;
    assert!(!client.fence().is_open(), "a write of 7 s would end after the renew deadline");
}

/// Two candidates and a real Lease: the second waits, and takes over at once when the first lets go.
#[tokio::test]
async fn a_released_lease_is_taken_over_at_once() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let namespace = server.namespace().await;
    let metrics = Metrics::new();
    let candidate = |identity: &str| {
        let options = Options { fence: Fence::closed(), ..Options::default() };
        let client = server.client_of("admin-token", options);
        let config = ElectionConfig {
            identity: identity.to_owned(),
            retry_period: Duration::from_millis(200),
            ..ElectionConfig::new(&namespace, "manager")
        };
        (Election::new(&client, config, &metrics).unwrap(), client)
    };
    let ((mut one, first), (mut two, second)) = (candidate("one"), candidate("two"));
    timeout(Duration::from_secs(10), one.acquire()).await.unwrap();
    first.create(&CONFIG_MAPS, &namespace, &config_map("by-the-leader", &json!({}))).await.unwrap();
    let early = timeout(Duration::from_secs(2), two.acquire()).await;
    assert!(early.is_err(), "there is a leader");
    assert_eq!(two.leader(), Some("one"));
    let refused = second.create(&CONFIG_MAPS, &namespace, &config_map("by-a-standby", &json!({}))).await;
    assert!(refused.unwrap_err().to_string().contains("does not hold the lease"));

    one.release().await;
    timeout(Duration::from_secs(3), two.acquire()).await.expect("a released lease is free at once");
    assert!(!first.fence().is_open() && second.fence().is_open());
    let lease: Value = server.client().get(&LEASES, &Key::new(namespace.as_str(), "manager")).await.unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "two");
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
}
