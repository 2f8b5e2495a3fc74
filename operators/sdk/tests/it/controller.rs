//! Controllers against a real API server: a small planner that keeps as many ConfigMaps as its owner says, and
//! the first operator of the examples.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use trysail_sdk::{
    client::{Client, Options},
    controller::{Controller, Outcome, PlanController, Request, Wiring},
    core::{
        Action, Json, Key, Object, Plan, Uid, View,
        plan::{Context, EventNote, OwnerReference, Planner, Target, Verb, Violation},
    },
    informer::{Event, Scope},
    manager::{Manager, ManagerError},
    metrics::Metrics,
};

use crate::{
    apiserver::{self, CONFIG_MAPS, NAMESPACES},
    wire::{self, Log},
};

const SOON: Duration = Duration::from_secs(20);

/// A manager on its own task.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ManagerError>>,
    metrics: Metrics,
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.encode();
        let value = text.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{line} is missing in\n{text}")).parse().unwrap()
    }
}

async fn start(
    client: &Client,
    add: impl FnOnce(trysail_sdk::manager::Builder) -> trysail_sdk::manager::Builder,
) -> Running {
    let metrics = Metrics::new();
    let builder = Manager::builder("test").client(client.clone()).metrics(metrics.clone());
    let manager = add(builder).build().await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(manager.run_until(async {
        let _ = stopped.await;
    }));
    Running { stop, task, metrics }
}

/// Waits until the API server shows it.
pub(crate) async fn eventually<F: Future<Output = Option<R>>, R>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> R {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Keeps `data.children` ConfigMaps beside each ConfigMap labelled `fleet`.
pub(crate) struct Fleet;

pub(crate) struct Snapshot {
    owner: Arc<ConfigMap>,
    children: Vec<Arc<ConfigMap>>,
    context: Context<u32>,
}

fn action(verb: Verb, target: Target, reason: &'static str) -> Action {
    Action { target, verb, reason, because: String::new(), on_success: None, on_failure: None }
}

impl Snapshot {
    fn wish(&self, name: &str) -> Option<&str> {
        self.owner.data.as_ref()?.get(name).map(String::as_str)
    }

    fn create(&self, number: usize) -> Action {
        let owners = self.owner.key().namespace;
        let namespace = self.wish("adrift").map_or(&*owners, |_| "no-such-namespace");
        let key = Key::new(namespace, format!("{}-{number}", self.owner.key().name));
        let owner = OwnerReference { resource: CONFIG_MAPS, key: self.owner.key(), uid: self.owner.uid() };
        // The API server refuses this label's value.
        let label = if self.wish("poison").is_some() { "no good!" } else { "good" };
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": &*key.name, "labels": {"ship": label}, "ownerReferences": [owner.to_value()]},
        });
        let target = Target { resource: CONFIG_MAPS, key: key.clone(), uid: None, resource_version: 0 };
        let verb = Verb::Create { controller: Some(self.owner.uid()), body: Json::Value(body) };
        let mut action = action(verb, target, "Launch");
        action.on_success = Some(EventNote::normal("Launched", format!("Launched {}", key.name)));
        action.on_failure = Some(EventNote::warning("FailedLaunch", "Error launching"));
        action
    }

    fn note(&self, data: &Value) -> Action {
        let target = Target {
            resource: CONFIG_MAPS,
            key: self.owner.key(),
            uid: Some(self.owner.uid()),
            resource_version: Object::resource_version(&*self.owner),
        };
        action(Verb::Patch { subresource: None, body: json!({"data": data}) }, target, "Note")
    }
}

impl Planner for Fleet {
    type Snapshot = Snapshot;
    type Memory = u32;

    fn name(&self) -> &'static str {
        "fleet"
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan<u32> {
        assert!(snapshot.wish("panic").is_none(), "it hit a reef");
        let mut plan = Plan { memory: snapshot.context.memory + 1, ..Plan::default() };
        let now = snapshot.context.now;
        if let Some(refusal) = snapshot.context.refusal.as_ref().filter(|refusal| refusal.retry_at > now) {
            if snapshot.wish("refused") != Some(&refusal.message) {
                plan.wave(vec![snapshot.note(&json!({"refused": refusal.message}))]);
            }
            return plan;
        }
        let want: usize = snapshot.wish("children").unwrap_or("0").parse().unwrap();
        let have: Vec<String> = snapshot.children.iter().map(|child| child.key().name.to_string()).collect();
        let named = |number: usize| format!("{}-{number}", snapshot.owner.key().name);
        let missing = (0..want).filter(|number| !have.contains(&named(*number)));
        plan.wave(missing.map(|number| snapshot.create(number)).collect());
        let surplus =
            snapshot.children.iter().filter(|child| !(0..want).any(|n| *child.key().name == named(n)));
        plan.wave(
            surplus
                .map(|child| {
                    let target = Target {
                        resource: CONFIG_MAPS,
                        key: child.key(),
                        uid: Some(child.uid()),
                        resource_version: 0,
                    };
                    action(Verb::Delete { propagation: None }, target, "Scuttle")
                })
                .collect(),
        );
        if snapshot.wish("looks").is_some_and(|looks| looks == "wanted") {
            if plan.memory < 4 {
                plan.requeue_by(now + Duration::from_millis(100));
            } else {
                plan.wave(vec![snapshot.note(&json!({"looks": plan.memory.to_string()}))]);
            }
        }
        plan
    }

    fn audit(&self, snapshot: &Snapshot, plan: &Plan<u32>) -> Result<(), Violation> {
        let creates = plan.actions().filter(|action| matches!(action.verb, Verb::Create { .. })).count();
        if snapshot.children.len() + creates > 50 {
            return Err(Violation("more than 50 ships".to_owned()));
        }
        Ok(())
    }
}

pub(crate) fn fleet(namespace: &str) -> PlanController<Fleet> {
    let scope = Scope::namespace(namespace);
    PlanController::new(Fleet, move |services| {
        let maps = services.informers.informer::<ConfigMap>(CONFIG_MAPS, scope);
        let (store, by_owner) = (Arc::clone(maps.store()), Arc::clone(maps.store()));
        by_owner.index_by("uid", |map| vec![map.uid().to_string().as_str().into()]);
        Wiring::new(&maps, move |key, context| {
            let owner = store.get(key).filter(|map| map.labels().contains_key("fleet"))?;
            let children = store.controlled_by(&owner.uid());
            Some(Snapshot { owner, children, context })
        })
        .watch(&maps, move |child: &ConfigMap| {
            let owner: Option<Uid> = child.controller();
            let owners = owner.map(|uid| by_owner.by_index("uid", &uid.to_string())).unwrap_or_default();
            owners.iter().map(|owner| owner.key()).collect()
        })
    })
    .workers(2)
}

/// As [`fleet`], but only fleets in commission are looked at.
fn commissioned(namespace: &str) -> PlanController<Fleet> {
    let scope = Scope::namespace(namespace);
    PlanController::new(Fleet, move |services| {
        let maps = services.informers.informer::<ConfigMap>(CONFIG_MAPS, scope);
        let store = Arc::clone(maps.store());
        let keys = |event: &Event<ConfigMap>, add: &mut dyn FnMut(Key)| {
            if let Event::Applied { new, .. } = event
                && new.labels().contains_key("commission")
            {
                add(new.key());
            }
        };
        Wiring::of_some(&maps, keys, move |key, context| {
            let owner = store.get(key)?;
            let children = store.controlled_by(&owner.uid());
            Some(Snapshot { owner, children, context })
        })
    })
}

pub(crate) async fn owner(client: &Client, namespace: &str, name: &str, data: Value) {
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": name, "labels": {"fleet": "yes"}},
    });
    client.create(&CONFIG_MAPS, namespace, &body).await.unwrap();
}

async fn data(client: &Client, namespace: &str, name: &str) -> Value {
    let map: Value = client.get(&CONFIG_MAPS, &Key::new(namespace, name)).await.unwrap_or_default();
    map["data"].clone()
}

async fn exists(client: &Client, namespace: &str, name: &str) -> bool {
    client.get_meta(&CONFIG_MAPS, &Key::new(namespace, name)).await.is_ok()
}

pub(crate) async fn set(client: &Client, namespace: &str, name: &str, data: Value) {
    let key = Key::new(namespace, name);
    client.merge_patch(&CONFIG_MAPS, &key, None, &json!({"data": data})).await.unwrap();
}

#[tokio::test]
async fn of_many_objects_only_those_are_looked_at_that_are_added() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    owner(&client, &namespace, "rotten", json!({"children": "1"})).await;
    owner(&client, &namespace, "proud", json!({"children": "1"})).await;
    let key = Key::new(namespace.as_str(), "proud");
    let label = json!({"metadata": {"labels": {"commission": "yes"}}});
    let running = start(&server.client(), |builder| builder.controller(commissioned(&namespace))).await;
    client.merge_patch(&CONFIG_MAPS, &key, None, &label).await.unwrap();
    eventually("a ship", || async { exists(&client, &namespace, "proud-0").await.then_some(()) }).await;
    // Both fleets were there from the start, the other one's look would have come first.
    assert!(!exists(&client, &namespace, "rotten-0").await);
    running.stop().await;
}

#[tokio::test]
async fn plans_are_carried_out_and_a_plan_without_actions_writes_nothing() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    owner(&client, &namespace, "armada", json!({"children": "5"})).await;
    let writer = server.client();
    let running = start(&writer, |builder| builder.controller(fleet(&namespace))).await;
    eventually("five children", || async { exists(&client, &namespace, "armada-4").await.then_some(()) })
        .await;
    set(&client, &namespace, "armada", json!({"children": "2"})).await;
    eventually("two children", || async { (!exists(&client, &namespace, "armada-2").await).then_some(()) })
        .await;
    eventually("the last is gone", || async {
        (!exists(&client, &namespace, "armada-4").await).then_some(())
    })
    .await;
    assert!(exists(&client, &namespace, "armada-0").await && exists(&client, &namespace, "armada-1").await);

    let writes = || {
        ["POST", "PATCH", "DELETE"].map(|method| {
            ["200", "201", "409", "422"]
                .map(|code| writer.metrics().requests(method, code))
                .iter()
                .sum::<u64>()
        })
    };
    // Events are written in the background: they settle first.
    let mut before = writes();
    eventually("no more writes", || {
        let now = writes();
        let quiet = now == before;
        before = now;
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            quiet.then_some(())
        }
    })
    .await;
    let reconciles = r#"controller_runtime_reconcile_total{controller="fleet",result="success"}"#;
    let looked = running.metric(reconciles);
    set(&client, &namespace, "armada", json!({"remark": "nothing to do"})).await;
    eventually("another look", || async { (running.metric(reconciles) > looked).then_some(()) }).await;
    assert_eq!(writes(), before, "a look without a plan writes nothing");
    running.stop().await;
}

#[tokio::test]
async fn a_refusal_is_told_to_the_planner_backed_off_and_recorded() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    owner(&client, &namespace, "armada", json!({"children": "1", "poison": "yes"})).await;
    let writer = server.client();
    let running = start(&writer, |builder| builder.controller(fleet(&namespace))).await;
    let told = eventually("the refusal is told", || async {
        data(&client, &namespace, "armada").await["refused"].as_str().map(ToOwned::to_owned)
    })
    .await;
    assert!(told.contains("no good!"), "{told}");
    let errors = r#"controller_runtime_reconcile_errors_total{controller="fleet"}"#;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let attempts = writer.metrics().requests("POST", "422");
    assert!((3..=14).contains(&attempts), "{attempts} attempts: 5 ms, 10 ms, … one more per doubling");
    assert_eq!(running.metric(errors), 0, "a refusal is not a failure of ours");
    let refused = r#"trysail_actions_total{controller="fleet",reason="Launch",result="refused"}"#;
    assert!(running.metric(refused) >= attempts);
    // The user repairs it; the next attempt succeeds by itself.
    set(&client, &namespace, "armada", json!({"poison": null})).await;
    eventually("the child", || async { exists(&client, &namespace, "armada-0").await.then_some(()) }).await;
    let events: Value = eventually("the event", || async {
        let api: kube::Api<k8s_openapi::api::core::v1::Event> =
            kube::Api::namespaced(client.kube(), &namespace);
        let list = api.list(&kube::api::ListParams::default()).await.ok()?;
        let failed = list.items.iter().find(|event| event.reason.as_deref() == Some("FailedLaunch"))?;
        list.items.iter().find(|event| event.reason.as_deref() == Some("Launched"))?;
        Some(serde_json::to_value(failed).unwrap())
    })
    .await;
    assert_eq!(events["source"]["component"], "fleet");
    assert_eq!(events["involvedObject"]["name"], "armada");
    assert_eq!(events["type"], "Warning");
    assert!(events["message"].as_str().unwrap().starts_with("Error launching: "), "{events}");
    running.stop().await;
}

/// "Somebody was faster" explains a conflict or two. One that stays is a failure, and is told as one.
#[tokio::test]
async fn a_conflict_that_stays_is_told() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    owner(&client, &namespace, "armada", json!({"children": "1", "adrift": "yes"})).await;
    let writer = server.client();
    let running = start(&writer, |builder| builder.controller(fleet(&namespace))).await;
    let errors = r#"controller_runtime_reconcile_errors_total{controller="fleet"}"#;
    eventually("the failure is told", || async { (running.metric(errors) > 0).then_some(()) }).await;
    let attempts = writer.metrics().requests("POST", "404");
    assert!((4..=8).contains(&attempts), "{attempts} attempts before that");
    running.stop().await;
}

/// Everything that ends in a namespace that is being deleted wakes its owner, which would put something in its
/// place: that is refused, and refused again however often it is tried.
#[tokio::test]
async fn a_namespace_that_is_being_deleted_is_asked_once() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    owner(&client, &namespace, "armada", json!({"children": "4"})).await;
    let log = Log::default();
    let noted = log.clone();
    let tapped = wire::tapped(&server.client(), Options::default(), move |far, request| {
        noted.note(&request);
        async move { far.pass(request).await }.boxed()
    });
    let running = start(&tapped, |builder| builder.controller(fleet(&namespace))).await;
    let child = |number: usize| Key::new(namespace.as_str(), format!("armada-{number}"));
    eventually("four children", || async { client.get_meta(&CONFIG_MAPS, &child(3)).await.ok() }).await;
    let key = Key::new("", namespace.as_str());
    let live = client.get_meta(&NAMESPACES, &key).await.unwrap();
    client.delete(&NAMESPACES, &key, &live.meta.uid, None).await.unwrap();

    // Nobody here takes the namespace's content away: the test does, one after the other.
    let looks = r#"controller_runtime_reconcile_total{controller="fleet",result="success"}"#;
    for number in 0..4 {
        let (before, live) =
            (running.metric(looks), client.get_meta(&CONFIG_MAPS, &child(number)).await.unwrap());
        client.delete(&CONFIG_MAPS, &child(number), &live.meta.uid, None).await.unwrap();
        eventually("a look at the loss", || async { (running.metric(looks) > before).then_some(()) }).await;
    }
    let refused =
        r#"trysail_actions_total{controller="fleet",reason="Launch",result="namespace_terminating"}"#;
    assert!(running.metric(refused) >= 4, "every look still wants its ships");
    let creates =
        log.lines().iter().filter(|line| line.starts_with("POST") && line.contains("/configmaps?")).count();
    assert_eq!(creates, 4 + 1, "four ships, and one attempt to replace the first that was lost");
    running.stop().await;
}

/// Probe "panic": kube-runtime's controller ends when one reconcile panics.
#[tokio::test]
async fn panic() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    owner(&client, &namespace, "doomed", json!({"panic": "yes"})).await;
    owner(&client, &namespace, "too-many", json!({"children": "51"})).await;
    let running = start(&server.client(), |builder| builder.controller(fleet(&namespace))).await;
    let panics = r#"controller_runtime_reconcile_panics_total{controller="fleet"}"#;
    eventually("panics are counted", || async { (running.metric(panics) >= 4).then_some(()) }).await;
    owner(&client, &namespace, "armada", json!({"children": "1"})).await;
    eventually("another key's child", || async {
        exists(&client, &namespace, "armada-0").await.then_some(())
    })
    .await;
    assert!(!exists(&client, &namespace, "too-many-0").await, "a plan that breaks an invariant is dropped");
    assert!(running.metric(r#"controller_runtime_rejected_plans_total{controller="fleet"}"#) >= 1);
    let before = running.metric(panics);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(running.metric(panics) - before <= 8, "panicking keys are backed off");
    running.stop().await;
}

#[tokio::test]
async fn requeue_at_and_memory() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    let running = start(&server.client(), |builder| builder.controller(fleet(&namespace))).await;
    owner(&client, &namespace, "armada", json!({"looks": "wanted"})).await;
    let looks = eventually("the fourth look", || async {
        let looks = data(&client, &namespace, "armada").await["looks"].clone();
        looks.as_str().filter(|looks| *looks != "wanted").map(ToOwned::to_owned)
    })
    .await;
    assert_eq!(looks, "4");
    running.stop().await;
}

/// The program of `examples/first_operator.rs`, as its readers would run it.
#[tokio::test]
async fn first_operator() {
    if apiserver::switched_off() {
        return;
    }
    let source = include_str!("../../examples/first_operator.rs");
    assert!(source.lines().count() <= 25, "a first operator fits 25 lines");
    let program = std::env::current_exe().unwrap().parent().unwrap().join("../examples/first_operator");
    assert!(program.exists(), "build it first: `cargo test` does, `cargo test --test it` does not");
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(kubeconfig.path(), server.kubeconfig()).unwrap();
    let mut operator = tokio::process::Command::new(program)
        .env("KUBECONFIG", kubeconfig.path())
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"motto": "fair winds"},
        "metadata": {"name": "letter", "labels": {"seal": ""}},
    });
    client.create(&CONFIG_MAPS, &namespace, &body).await.unwrap();
    let secrets: kube::Api<Secret> = kube::Api::namespaced(client.kube(), &namespace);
    let sealed = eventually("the secret", || async { secrets.get_opt("letter").await.unwrap() }).await;
    assert_eq!(sealed.data.unwrap()["motto"].0, b"fair winds");
    secrets.delete("letter", &kube::api::DeleteParams::default()).await.unwrap();
    eventually("the secret again: it is owned", || async { secrets.get_opt("letter").await.unwrap() }).await;

    let pid = operator.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
    let ended = tokio::time::timeout(SOON, operator.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "SIGTERM ends it well: {ended}");
}

/// Causes reach the reconcile function, and its own requeue wish and errors are heeded.
#[tokio::test]
async fn a_typed_controller_knows_why_and_retries() {
    if apiserver::switched_off() {
        return;
    }
    let server = apiserver::shared().await;
    let (client, namespace) = (server.client(), server.namespace().await);
    owner(&client, &namespace, "before", json!({})).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let controller = Controller::new("causes")
        .for_kind::<ConfigMap>()
        .within(Scope::namespace(namespace.as_str()))
        .reconcile(move |request: Request<ConfigMap>| {
            let tell = tell.clone();
            async move {
                let deleted = request.object.is_none();
                tell.send((request.causes.to_string(), request.failures, deleted)).unwrap();
                match request.failures {
                    _ if deleted => Ok(Outcome::Done),
                    0 | 1 => Err("not yet"),
                    _ => Ok(Outcome::After(Duration::from_millis(100))),
                }
            }
        });
    let running = start(&server.client(), |builder| builder.controller(controller)).await;
    let mut next = async || tokio::time::timeout(SOON, told.recv()).await.unwrap().unwrap();
    let (first, failures, _) = next().await;
    assert!(
        first.starts_with(&format!("ConfigMap {namespace}/before@")) && first.ends_with("listed"),
        "{first}"
    );
    assert_eq!(failures, 0);
    assert_eq!(next().await, ("retry 1".to_owned(), 1, false));
    assert_eq!(next().await, ("retry 2".to_owned(), 2, false));
    assert_eq!(next().await, ("timer".to_owned(), 0, false));
    let key = Key::new(namespace.as_str(), "before");
    let live = client.get_meta(&CONFIG_MAPS, &key).await.unwrap();
    client.delete(&CONFIG_MAPS, &key, &live.meta.uid, None).await.unwrap();
    loop {
        let (cause, _, deleted) = next().await;
        if deleted {
            assert!(cause.contains("deleted"), "{cause}");
            break;
        }
    }
    running.stop().await;
}
