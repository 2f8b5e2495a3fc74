//! The process around controllers: probes, order, and an end that is bounded and loses nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use trysail_sdk::{
    client::{Client, Fence, Options},
    controller::{Controller, Outcome, Request, TypedController},
    core::{Key, Resource},
    election::ElectionConfig,
    informer::{self, Scope},
    manager::{Manager, ManagerError},
};

use crate::apiserver::{self, ApiServer, CONFIG_MAPS, config_map};

const SOON: Duration = Duration::from_secs(20);
const LEASES: Resource =
    Resource { group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases" };

fn elected_client(server: &ApiServer) -> Client {
    server.client_of("admin-token", Options { fence: Fence::closed(), ..Options::default() })
}

fn election(namespace: &str, identity: &str) -> ElectionConfig {
    ElectionConfig {
        identity: identity.to_owned(),
        retry_period: Duration::from_millis(200),
        ..ElectionConfig::new(namespace, "manager")
    }
}

/// Tells of every ConfigMap it looks at.
fn teller(namespace: &str, tell: mpsc::UnboundedSender<String>) -> TypedController<ConfigMap> {
    Controller::new("teller").for_kind().within(Scope::namespace(namespace)).reconcile(
        move |request: Request<ConfigMap>| {
            let tell = tell.clone();
            async move {
                tell.send(request.key.name.to_string()).map_err(|_| "nobody listens")?;
                Ok::<_, &str>(Outcome::Done)
            }
        },
    )
}

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn eventually_ready(address: std::net::SocketAddr) {
    let begun = Instant::now();
    while get(address, "/readyz").await.0 != 200 {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_standby_is_warm_ready_and_silent_and_takes_over_what_changed_meanwhile() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (admin, namespace) = (server.client(), server.namespace().await);
    let (tell, mut told) = mpsc::unbounded_channel();
    let start = async |identity: &'static str| {
        let (tell_us, forward) = (tell.clone(), mpsc::unbounded_channel());
        let (sender, mut receiver) = forward;
        tokio::spawn(async move {
            while let Some(name) = receiver.recv().await {
                let _: Result<(), _> = tell_us.send(format!("{identity} {name}"));
            }
        });
        let manager = Manager::builder(identity)
            .client(elected_client(server))
            .election(election(&namespace, identity))
            .listen("127.0.0.1:0".parse().unwrap())
            .controller(teller(&namespace, sender))
            .build()
            .await
            .unwrap();
        let address = manager.address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(manager.run_until(async {
            let _ = stopped.await;
        }));
        (stop, task, address)
    };
    let mut next = async || timeout(SOON, told.recv()).await.unwrap().unwrap();

    let (stop_one, one, address) = start("one").await;
    admin.create(&CONFIG_MAPS, &namespace, &config_map("first", &json!({}))).await.unwrap();
    assert_eq!(next().await, "one first");
    assert!(get(address, "/metrics").await.1.contains(r#"leader_election_master_status{name="manager"} 1"#));
    let (stop_two, two, address) = start("two").await;
    eventually_ready(address).await;
    assert!(get(address, "/metrics").await.1.contains(r#"leader_election_master_status{name="manager"} 0"#));
    admin.create(&CONFIG_MAPS, &namespace, &config_map("second", &json!({}))).await.unwrap();
    assert_eq!(next().await, "one second");

    stop_one.send(()).unwrap();
    timeout(SOON, one).await.unwrap().unwrap().unwrap();
    let released = Instant::now();
    let mut taken_over = [next().await, next().await];
    assert!(released.elapsed() < Duration::from_secs(5), "the lease was released, not left to run out");
    taken_over.sort();
    assert_eq!(taken_over, ["two first", "two second"]);
    stop_two.send(()).unwrap();
    timeout(SOON, two).await.unwrap().unwrap().unwrap();
    assert_eq!(
        lease_events(&admin, &namespace).await,
        ["one became leader", "one stopped leading", "two became leader", "two stopped leading"],
    );
}

/// What the predecessor wrote last may not have reached a standby yet: a watch lags, or the machine stood still. A
/// leader that goes by such a view would do once more what was done.
#[tokio::test]
async fn a_new_leader_sees_what_its_predecessor_saw() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (admin, namespace) = (server.client(), server.namespace().await);
    let (tell_one, mut one_told) = mpsc::unbounded_channel();
    let (tell_two, mut two_told) = mpsc::unbounded_channel();
    let start = async |identity: &'static str, tell, informers: informer::Options| {
        let manager = Manager::builder(identity)
            .client(elected_client(server))
            .election(election(&namespace, identity))
            .informers(informers)
            .controller(teller(&namespace, tell))
            .build()
            .await
            .unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(manager.run_until(async {
            let _ = stopped.await;
        }));
        (stop, task)
    };
    let (stop_one, one) = start("one", tell_one, informer::Options::default()).await;
    admin.create(&CONFIG_MAPS, &namespace, &config_map("first", &json!({}))).await.unwrap();
    assert_eq!(timeout(SOON, one_told.recv()).await.unwrap().unwrap(), "first");

    // Its first watch is soon over, and of the second it hears nothing for an hour.
    let watches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&watches);
    let lagging = informer::Options {
        watch_lifetime: Duration::from_secs(1),
        delay: Some(Arc::new(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
            1 => Duration::from_secs(3600),
            _ => Duration::ZERO,
        })),
        ..informer::Options::default()
    };
    let (stop_two, two) = start("two", tell_two, lagging).await;
    let begun = Instant::now();
    while watches.load(Ordering::SeqCst) < 2 {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    admin.create(&CONFIG_MAPS, &namespace, &config_map("second", &json!({}))).await.unwrap();
    assert_eq!(timeout(SOON, one_told.recv()).await.unwrap().unwrap(), "second");

    stop_one.send(()).unwrap();
    timeout(SOON, one).await.unwrap().unwrap().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(timeout(SOON, two_told.recv()).await.expect("it goes by an old view").unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["first", "second"]);
    stop_two.send(()).unwrap();
    timeout(SOON, two).await.unwrap().unwrap().unwrap();
}

/// What `kubectl describe lease` tells, in client-go's words.
async fn lease_events(admin: &Client, namespace: &str) -> Vec<String> {
    let lease = admin.get_meta(&LEASES, &Key::new(namespace, "manager")).await.unwrap().meta;
    let events: kube::Api<Event> = kube::Api::namespaced(admin.kube(), namespace);
    let events = events.list(&kube::api::ListParams::default()).await.unwrap().items.into_iter();
    let about = events.filter(|event| {
        let object = &event.involved_object;
        event.reason.as_deref() == Some("LeaderElection")
            && event.type_.as_deref() == Some("Normal")
            && object.kind.as_deref() == Some("Lease")
            && object.api_version.as_deref() == Some("coordination.k8s.io/v1")
            && object.uid.as_deref() == Some(&*lease.uid.to_string())
    });
    let mut messages: Vec<_> = about.filter_map(|event| event.message).collect();
    messages.sort();
    messages
}

/// In-flight keys are finished, their writes still leave, and only then is the lease given up.
#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_then_releases_the_lease() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (admin, namespace) = (server.client(), server.namespace().await);
    let (began, mut beginning) = mpsc::unbounded_channel();
    let controller = Controller::new("slow")
        .for_kind()
        .within(Scope::namespace(namespace.as_str()))
        .reconcile(move |request: Request<ConfigMap>| {
            let began = began.clone();
            async move {
                let _: Result<(), _> = began.send(());
                tokio::time::sleep(Duration::from_millis(800)).await;
                let api: kube::Api<ConfigMap> = kube::Api::namespaced(request.client, &request.key.namespace);
                let patch = kube::api::Patch::Merge(json!({"data": {"finished": "yes"}}));
                api.patch(&request.key.name, &kube::api::PatchParams::default(), &patch).await?;
                Ok::<_, kube::Error>(Outcome::Done)
            }
        });
    let manager = Manager::builder("slow")
        .client(elected_client(server))
        .election(election(&namespace, "slow"))
        .controller(controller)
        .build()
        .await
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(manager.run_until(async {
        let _ = stopped.await;
    }));
    admin.create(&CONFIG_MAPS, &namespace, &config_map("work", &json!({}))).await.unwrap();
    timeout(SOON, beginning.recv()).await.unwrap().unwrap();
    stop.send(()).unwrap();
    timeout(SOON, running).await.unwrap().unwrap().unwrap();
    let work: Value = admin.get(&CONFIG_MAPS, &Key::new(namespace.as_str(), "work")).await.unwrap();
    assert_eq!(work["data"]["finished"], "yes");
    let lease: Value = admin.get(&LEASES, &Key::new(namespace.as_str(), "manager")).await.unwrap();
    assert!(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().is_empty(), "{lease}");
}

/// A reconcile that does not end must not hold up the process: it is cut off, and the lease is left to run out.
#[tokio::test]
async fn a_stop_is_bounded() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (admin, namespace) = (server.client(), server.namespace().await);
    let begun = Arc::new(AtomicUsize::new(0));
    let looks = Arc::clone(&begun);
    let controller = Controller::new("stuck")
        .for_kind()
        .within(Scope::namespace(namespace.as_str()))
        .reconcile(move |_: Request<ConfigMap>| {
            let looks = Arc::clone(&looks);
            async move {
                while looks.fetch_add(1, Ordering::Relaxed) < usize::MAX {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok::<_, String>(Outcome::Done)
            }
        });
    let manager = Manager::builder("stuck")
        .client(elected_client(server))
        .election(election(&namespace, "stuck"))
        .grace(Duration::from_millis(500))
        .controller(controller)
        .build()
        .await
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(manager.run_until(async {
        let _ = stopped.await;
    }));
    admin.create(&CONFIG_MAPS, &namespace, &config_map("work", &json!({}))).await.unwrap();
    let started = Instant::now();
    while begun.load(Ordering::Relaxed) == 0 {
        assert!(started.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.send(()).unwrap();
    let stopping = Instant::now();
    let ended = timeout(SOON, running).await.unwrap().unwrap();
    assert!(matches!(ended, Err(ManagerError::Grace(_))), "{ended:?}");
    assert!(stopping.elapsed() < Duration::from_secs(3), "{:?}", stopping.elapsed());
    // Cut off is cut off: nobody works on for a manager that has returned.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let worked = begun.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(begun.load(Ordering::Relaxed), worked);
    let lease: Value = admin.get(&LEASES, &Key::new(namespace.as_str(), "manager")).await.unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "stuck", "what was cut off may still be at work");
}

/// Two controllers of one name would overwrite each other's metrics.
#[tokio::test]
async fn every_controller_has_a_name_of_its_own() {
    let client = crate::wire::scripted(Options::default(), |_| {
        Box::pin(async { crate::wire::refusal(403, "Forbidden", "no") })
    });
    let (tell, _told) = mpsc::unbounded_channel();
    let built = Manager::builder("twins")
        .client(client)
        .controller(teller("a", tell.clone()))
        .controller(teller("b", tell))
        .build()
        .await;
    let error = built.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("\"teller\""), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_before_anything_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = Manager::builder("late").listen(address).build().await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
}

#[tokio::test]
async fn probes_answer_while_caches_fill() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (tell, _told) = mpsc::unbounded_channel();
    let manager = Manager::builder("probes")
        .client(server.client())
        .listen("127.0.0.1:0".parse().unwrap())
        .controller(teller("default", tell))
        .build()
        .await
        .unwrap();
    let address = manager.address().unwrap();
    assert_eq!(get(address, "/healthz").await, (200, "ok".to_owned()));
    assert_eq!(get(address, "/readyz").await.0, 503);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(manager.run_until(async {
        let _ = stopped.await;
    }));
    eventually_ready(address).await;
    let metrics = get(address, "/metrics").await.1;
    for name in ["rest_client_requests_total{", "workqueue_depth", "process_cpu_seconds_total", "# EOF"] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
    stop.send(()).unwrap();
    timeout(SOON, running).await.unwrap().unwrap().unwrap();
}
