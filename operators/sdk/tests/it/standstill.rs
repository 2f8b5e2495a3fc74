//! A leader that stands still exactly between the check of the fence and the departure of a write, for longer than
//! its lease: what leaves when it wakes must change nothing.
//!
//! Each candidate is a thread with a runtime of its own. The trap blocks that thread, so everything of the leader
//! stands still, as under SIGSTOP; the end-to-end tests do the same to processes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use futures::FutureExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use tokio::{sync::oneshot, time::timeout};
use trysail_sdk::{
    client::{Client, Fence, Options, Timeouts},
    election::{ElectionConfig, ElectionError},
    manager::{Manager, ManagerError},
};

use crate::{
    apiserver,
    controller::{eventually, fleet, owner, set},
    wire::{self, Answer, Far},
};

const SOON: Duration = Duration::from_secs(20);
/// One that is awaited though the machine is busy.
const WRITE: Duration = Duration::from_millis(800);

/// Catches one write behind the fence.
struct Trap {
    wanted: Mutex<Option<(http::Method, String)>>,
    caught: mpsc::Sender<()>,
    release: Mutex<mpsc::Receiver<()>>,
    /// Status code of the write that was caught, when it has left at last.
    late: mpsc::Sender<u16>,
    left: tokio::sync::Notify,
}

/// The test's end of a [`Trap`].
struct Hands {
    trap: Arc<Trap>,
    caught: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
    late: mpsc::Receiver<u16>,
}

impl Hands {
    fn new() -> Self {
        let (tell_caught, caught) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let (tell_late, late) = mpsc::channel();
        let wanted = Mutex::default();
        let trap = Trap {
            wanted,
            caught: tell_caught,
            release: Mutex::new(released),
            late: tell_late,
            left: tokio::sync::Notify::new(),
        };
        Self { trap: Arc::new(trap), caught, release, late }
    }

    fn arm(&self, method: http::Method, part: &str) {
        *self.trap.wanted.lock().unwrap() = Some((method, part.to_owned()));
    }
}

impl Trap {
    /// What the network does with a request that has passed the fence.
    fn on_the_line(
        self: Arc<Self>,
        far: Far,
        request: http::Request<kube::client::Body>,
    ) -> futures::future::BoxFuture<'static, Answer> {
        async move {
            let matches = |wanted: &mut (http::Method, String)| {
                wanted.0 == *request.method() && request.uri().path().contains(&wanted.1)
            };
            if self.wanted.lock().unwrap().take_if(matches).is_none() {
                return far.pass(request).await;
            }
            self.caught.send(()).unwrap();
            // The thread, not the task: nothing else of this candidate runs on.
            self.release.lock().unwrap().recv().unwrap();
            // Whoever waited for the answer has long given up; the write leaves all the same.
            let left = tokio::spawn(async move {
                let answer = far.pass(request).await;
                self.late.send(answer.as_ref().map_or(0, |answer| answer.status().as_u16())).unwrap();
                self.left.notify_one();
                answer
            });
            left.await?
        }
        .boxed()
    }
}

struct Candidate {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), ManagerError>>,
}

impl Candidate {
    fn start(namespace: &str, identity: &'static str, trap: Option<Arc<Trap>>) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let namespace = namespace.to_owned();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let election = ElectionConfig {
                    identity: identity.to_owned(),
                    lease_duration: Duration::from_secs(3),
                    renew_deadline: Duration::from_secs(2),
                    retry_period: Duration::from_millis(200),
                    request_timeout: WRITE,
                    ..ElectionConfig::new(&namespace, "manager")
                };
                let left = trap.clone();
                let manager = Manager::builder(identity)
                    .client(client(trap).await)
                    .election(election)
                    .controller(fleet(&namespace))
                    .build()
                    .await?;
                let stopped = async {
                    let _ = stopped.await;
                };
                let ended = manager.run_until(stopped).await;
                if let Some(trap) = left {
                    // The runtime would take it along.
                    timeout(SOON, trap.left.notified()).await.expect("the write never left");
                }
                ended
            })
        });
        Self { stop, thread }
    }

    async fn ended(self) -> Result<(), ManagerError> {
        let Self { thread, stop: _stop } = self;
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap()
    }
}

async fn client(trap: Option<Arc<Trap>>) -> Client {
    let timeouts = Timeouts { write: WRITE, ..Timeouts::default() };
    let options = Options { fence: Fence::closed(), timeouts, ..Options::default() };
    let server = apiserver::shared().await;
    match trap {
        Some(trap) => wire::tapped(&server.client(), options, move |far, request| {
            Arc::clone(&trap).on_the_line(far, request)
        }),
        None => server.client_of("admin-token", options),
    }
}

async fn on_a_thread<R: Send + 'static>(receiver: mpsc::Receiver<R>) -> (R, mpsc::Receiver<R>) {
    let wait = move || (receiver.recv_timeout(SOON).expect("it did not happen"), receiver);
    tokio::task::spawn_blocking(wait).await.unwrap()
}

/// The armada's ships by name: which incarnation each is.
async fn ships(client: &Client, namespace: &str) -> BTreeMap<String, String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.kube(), namespace);
    let all = maps.list(&ListParams::default()).await.unwrap().items;
    let ships = all.iter().filter(|map| map.name_any().starts_with("armada-"));
    ships.map(|map| (map.name_any(), map.uid().unwrap())).collect()
}

async fn wait_for_ships(client: &Client, namespace: &str, count: usize) -> BTreeMap<String, String> {
    eventually(&format!("{count} ships"), || async {
        let ships = ships(client, namespace).await;
        (ships.len() == count).then_some(ships)
    })
    .await
}

/// Stops the leader at that write while the armada grows or shrinks to `count`, lets the standby finish that and
/// `meanwhile`, then lets the write leave. Says what the API server answered to it.
async fn stand_still(
    (from, to): (usize, usize),
    (method, part): (http::Method, &str),
    meanwhile: impl AsyncFn(&Client, &str),
) -> u16 {
    let server = apiserver::shared().await;
    let (admin, namespace) = (server.client(), server.namespace().await);
    let Hands { trap, caught, release, late } = Hands::new();
    let hands = Hands { trap: Arc::clone(&trap), caught, release, late };
    owner(&admin, &namespace, "armada", json!({"children": from.to_string()})).await;
    let leader = Candidate::start(&namespace, "leader", Some(trap));
    wait_for_ships(&admin, &namespace, from).await;
    let standby = Candidate::start(&namespace, "standby", None);

    hands.arm(method, &format!("/namespaces/{namespace}/configmaps{part}"));
    set(&admin, &namespace, "armada", json!({"children": to.to_string()})).await;
    let Hands { caught, release, late, .. } = hands;
    on_a_thread(caught).await;
    wait_for_ships(&admin, &namespace, to).await;
    meanwhile(&admin, &namespace).await;
    let before = ships(&admin, &namespace).await;

    release.send(()).unwrap();
    let (answer, _late) = on_a_thread(late).await;
    let lost = timeout(SOON, leader.ended()).await.unwrap();
    assert!(
        matches!(
            lost,
            Err(ManagerError::Election(ElectionError::NotRenewed { .. } | ElectionError::Taken { .. }))
        ),
        "{lost:?}"
    );
    assert_eq!(ships(&admin, &namespace).await, before, "the late write did something");
    standby.stop.send(()).unwrap();
    drop(standby.thread);
    answer
}

#[tokio::test]
async fn a_create_that_leaves_after_another_leads_makes_nothing_twice() {
    if apiserver::switched_off() {
        return;
    }
    let answer = stand_still((1, 4), (http::Method::POST, ""), async |_, _| {}).await;
    assert_eq!(answer, 409, "the name was taken by the standby's create of the same plan");
}

/// By the time the delete leaves, the name belongs to another incarnation.
#[tokio::test]
async fn a_delete_that_leaves_after_another_leads_takes_nothing_new() {
    if apiserver::switched_off() {
        return;
    }
    let back = async |admin: &Client, namespace: &str| {
        set(admin, namespace, "armada", json!({"children": "3"})).await;
        wait_for_ships(admin, namespace, 3).await;
    };
    let answer = stand_still((3, 1), (http::Method::DELETE, "/armada-1"), back).await;
    assert_eq!(answer, 409, "the uid is another's");
}
