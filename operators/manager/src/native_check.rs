//! Native mode while kube-controller-manager still runs the same controllers would mean two writers on every
//! object. Nothing in the API says which controllers it runs, so canaries ask: one object of each kind that wants no
//! pods and that our own controllers leave alone. Whoever reports on it is somebody else.
//!
//! A report ends the check at once. That nobody reports takes time to be sure of: as much longer than usual as the
//! API server is slower than usual.
//!
//! There is none for the deletion of finished Jobs: two who delete the same Job at the same time do no harm.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use kube::{
    Client, ResourceExt,
    api::{
        Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use trysail_core::{Face, Resource};

use crate::options::ControllerName;

/// Marks a canary; objects with this label are not reconciled by us.
pub(crate) const CANARY: &str = "trysail.dev/canary";

/// kube-controller-manager reacts within tens of milliseconds where its controllers run and the machine is idle.
const SHORTEST: Duration = Duration::from_secs(3);
/// Nobody is so slow that a rollout would be of use.
const LONGEST: Duration = Duration::from_secs(30);
/// A controller's reaction passes through the API server a few times. On a busy machine each of them takes as
/// long as our own create took until our own watch showed it; so many of those are waited for.
const ECHOES: u32 = 100;
/// How often an API server that cannot be reached is tried.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// How soon a watch that broke is opened again.
const WATCH_AGAIN: Duration = Duration::from_millis(200);

/// An object that shows whether a controller acts.
struct Canary {
    resource: Resource,
    /// What it says of itself; metadata aside.
    fields: Value,
    sign: Sign,
}

/// How a controller betrays itself.
#[derive(Clone, Copy)]
enum Sign {
    /// Something appears there.
    Appears(&'static str),
    /// Of a CronJob that is suspended nothing is reported, except that a Job it is said to run is not there.
    ForgetsMissingJob,
}

impl Sign {
    fn shows(self, canary: &Value) -> bool {
        match self {
            Sign::Appears(place) => canary.pointer(place).is_some(),
            Sign::ForgetsMissingJob => {
                let status = &canary["status"];
                // Both were given together; see `Canary::prepare`.
                status["lastScheduleTime"].is_string()
                    && status["active"].as_array().is_none_or(Vec::is_empty)
            }
        }
    }
}

fn suspended_job(mut template: Value) -> Value {
    template["spec"]["restartPolicy"] = "Never".into();
    json!({"suspend": true, "template": template})
}

impl Canary {
    fn of(controller: ControllerName) -> Option<Self> {
        let labels = json!({CANARY: "true"});
        let template = json!({
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "none", "image": "registry.k8s.io/pause:3.10.2"}]},
        });
        let selector = json!({"matchLabels": labels});
        let replicas = json!({"spec": {"replicas": 0, "selector": selector, "template": template}});
        let observed = Sign::Appears("/status/observedGeneration");
        let (resource, fields, sign) = match controller {
            ControllerName::Deployment => (Resource::deployments(Face::Native), replicas, observed),
            ControllerName::ReplicaSet => (Resource::replica_sets(Face::Native), replicas, observed),
            ControllerName::ReplicationController => {
                let fields = json!({"spec": {"replicas": 0, "selector": labels, "template": template}});
                (Resource::replication_controllers(Face::Native), fields, observed)
            }
            ControllerName::StatefulSet => (Resource::stateful_sets(Face::Native), replicas, observed),
            ControllerName::DaemonSet => {
                let mut template = template;
                template["spec"]["nodeSelector"] = json!({CANARY: "no-node-has-this-label"});
                let fields = json!({"spec": {"selector": selector, "template": template}});
                (Resource::daemon_sets(Face::Native), fields, observed)
            }
            ControllerName::Job => {
                let fields = json!({"spec": suspended_job(template)});
                (Resource::jobs(Face::Native), fields, Sign::Appears("/status/conditions/0"))
            }
            ControllerName::CronJob => {
                let job = json!({"spec": suspended_job(template)});
                let fields = json!({"spec": {"schedule": "@yearly", "suspend": true, "jobTemplate": job}});
                (Resource::cron_jobs(Face::Native), fields, Sign::ForgetsMissingJob)
            }
            ControllerName::TtlAfterFinished => return None,
        };
        Some(Self { resource, fields, sign })
    }

    fn object(&self) -> Result<DynamicObject> {
        let mut object = self.fields.clone();
        object["apiVersion"] = self.resource.api_version().into();
        object["kind"] = self.resource.kind.into();
        object["metadata"] = json!({"generateName": "trysail-canary-", "labels": {CANARY: "true"}});
        serde_json::from_value(object).context("failed to build a canary")
    }

    fn api(&self, client: Client, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: self.resource.group.to_owned(),
            version: self.resource.version.to_owned(),
            api_version: self.resource.api_version(),
            kind: self.resource.kind.to_owned(),
            plural: self.resource.plural.to_owned(),
        };
        Api::namespaced_with(client, namespace, &resource)
    }

    /// True when somebody else reports on it.
    async fn is_acted_upon(&self, client: Client, namespace: &str) -> Result<bool> {
        let api = self.api(client, namespace);
        let sent = Instant::now();
        let created = api.create(&PostParams::default(), &self.object()?).await.with_context(|| {
            let kind = self.resource.kind;
            format!("failed to create the canary that shows whether kube-controller-manager acts on {kind}s")
        })?;
        let name = created.name_any();
        let acted = match self.prepare(&api, &name).await {
            Err(error) => Err(error),
            Ok(()) if self.reported(&api, &name, sent).await => Ok(true),
            // The watch may have been broken for all that time: a read has the last word.
            Ok(()) => {
                api.get_opt(&name).await.map(|canary| canary.is_some_and(|canary| self.is_reported(&canary)))
            }
        };
        let deleted = api.delete(&name, &DeleteParams::background()).await;
        let acted = acted.context("failed to read the canary")?;
        deleted.with_context(|| format!("failed to delete the canary {namespace}/{name}"))?;
        Ok(acted)
    }

    /// Gives a CronJob a Job that is not there.
    async fn prepare(&self, api: &Api<DynamicObject>, name: &str) -> Result<(), kube::Error> {
        if let Sign::ForgetsMissingJob = self.sign {
            let job = json!({"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": "of-no-job"});
            let status = json!({"active": [job], "lastScheduleTime": "2000-01-01T00:00:00Z"});
            let patch = Patch::Merge(json!({"status": status}));
            api.patch_status(name, &PatchParams::default(), &patch).await?;
        }
        Ok(())
    }

    /// Whether somebody writes the canary's status in time. A watch that breaks is opened again.
    async fn reported(&self, api: &Api<DynamicObject>, canary: &str, sent: Instant) -> bool {
        let mut deadline = sent + LONGEST;
        loop {
            match self.watch(api, canary, sent, &mut deadline).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the canary cannot be watched; trying again"),
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }

    /// Watches until somebody reports, the deadline passes or the watch ends. The first event, our own create, moves
    /// the deadline to where it can be.
    async fn watch(
        &self,
        api: &Api<DynamicObject>,
        canary: &str,
        sent: Instant,
        deadline: &mut Instant,
    ) -> Result<bool, kube::Error> {
        // Of one object, and only for what happens to it: its state at any version will do for a start.
        let params = WatchParams::default().fields(&format!("metadata.name={canary}"));
        let Ok(events) = timeout_at(*deadline, api.watch(&params, "0")).await else { return Ok(false) };
        let mut events = events?.boxed();
        while let Ok(Some(event)) = timeout_at(*deadline, events.next()).await {
            let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event? else { continue };
            if self.is_reported(&object) {
                return Ok(true);
            }
            let echo = sent.elapsed();
            *deadline = (*deadline).min(sent + echo + patience(echo));
        }
        Ok(false)
    }

    fn is_reported(&self, canary: &DynamicObject) -> bool {
        self.sign.shows(&canary.data)
    }
}

/// How long to wait for a report, given how long our own create took to come back to us.
fn patience(echo: Duration) -> Duration {
    echo.saturating_mul(ECHOES).clamp(SHORTEST, LONGEST)
}

/// The kinds whose canaries are needed for these controllers.
pub(crate) fn watched(controllers: &[ControllerName]) -> Vec<Resource> {
    controllers
        .iter()
        .filter_map(|controller| Canary::of(*controller))
        .map(|canary| canary.resource)
        .collect()
}

/// Fails when somebody else acts on the native kinds of these controllers.
pub(crate) async fn nobody_else_acts(
    client: Client,
    namespace: &str,
    controllers: &[ControllerName],
) -> Result<()> {
    let canaries: Vec<Canary> = controllers.iter().filter_map(|controller| Canary::of(*controller)).collect();
    // All at once: one silence is waited for, not eight. None is cut short: a canary would stay.
    let looks = canaries.iter().map(|canary| canary.is_acted_upon(client.clone(), namespace));
    let found = futures::future::join_all(looks).await;
    let mut acted = Vec::new();
    for (canary, found) in canaries.iter().zip(found) {
        if found? {
            acted.push(canary);
        }
    }
    if acted.is_empty() {
        return Ok(());
    }
    let kinds: Vec<String> = acted.iter().map(|canary| format!("{}s", canary.resource.kind)).collect();
    let off: Vec<String> =
        controllers.iter().map(|controller| format!("-{}-controller", controller.as_str())).collect();
    bail!(
        "somebody else already acts on native {}: start kube-controller-manager with --controllers=*,{}, or serve \
         our own kinds with --api crd (--skip-native-check starts anyway)",
        kinds.join(", "),
        off.join(",")
    )
}

/// Returns when the API server answers, whatever it says. On a control plane that boots, this program is there
/// first: to end would cost the kubelet's growing pauses between restarts.
pub(crate) async fn reachable(client: &Client) {
    let mut told = String::new();
    while let Err(error) = client.apiserver_version().await {
        if matches!(&error, kube::Error::Api(status) if status.code < 500) {
            return;
        }
        let error = error.to_string();
        if told != error {
            tracing::warn!(%error, "waiting for the API server");
            told = error;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use futures::stream;
    use http::{Request, Response};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use kube::client::Body;
    use tokio::{io::AsyncWriteExt, net::TcpListener, time::sleep};

    use super::*;

    const REPLICAS: [ControllerName; 3] =
        [ControllerName::Deployment, ControllerName::ReplicaSet, ControllerName::ReplicationController];

    /// An API server that takes `slow` to show what was created, and where somebody reports on canaries of
    /// `acting` that long after they were created.
    #[derive(Clone)]
    struct Server {
        slow: Duration,
        acting: Option<(&'static str, Duration)>,
        log: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        fn new(slow: u64, acting: Option<(&'static str, u64)>) -> Self {
            let acting = acting.map(|(plural, after)| (plural, Duration::from_millis(after)));
            Self { slow: Duration::from_millis(slow), acting, log: Arc::default() }
        }

        /// Asks as the manager does; says what came of it, and after how long.
        async fn ask(&self, controllers: &[ControllerName]) -> (Result<()>, Duration) {
            let (server, begun) = (self.clone(), Instant::now());
            let service = tower::service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, std::convert::Infallible>(server.serve(&request)) }
            });
            let client = Client::new(service, "default");
            let answer = nobody_else_acts(client, "kube-system", controllers).await;
            (answer, begun.elapsed())
        }

        fn serve(&self, request: &Request<Body>) -> Response<StreamBody<stream::BoxStream<'static, Event>>> {
            let path = request.uri().path().to_owned();
            self.log.lock().unwrap().push(format!("{} {path}", request.method()));
            let plural = path.split('/').skip_while(|part| *part != "kube-system").nth(1).unwrap().to_owned();
            let canary = |status: Value| json!({"metadata": {"name": "trysail-canary-x"}, "status": status});
            let text = |value: Value| Ok(Frame::data(Bytes::from(value.to_string() + "\n")));
            let watched = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let events = if watched {
                let added = json!({"type": "ADDED", "object": canary(json!({"replicas": 0}))});
                let reported =
                    json!({"type": "MODIFIED", "object": canary(json!({"observedGeneration": 1}))});
                let (slow, acting) = (self.slow, self.acting.filter(|(acting, _)| *acting == plural));
                stream::once(async move {
                    sleep(slow).await;
                    text(added)
                })
                .chain(stream::once(async move {
                    match acting {
                        Some((_, after)) => sleep(after.saturating_sub(slow)).await,
                        None => std::future::pending().await,
                    }
                    text(reported)
                }))
                .boxed()
            } else {
                stream::iter([text(canary(json!({})))]).boxed()
            };
            Response::new(StreamBody::new(events))
        }

        fn count(&self, start: &str) -> usize {
            self.log.lock().unwrap().iter().filter(|line| line.starts_with(start)).count()
        }
    }

    type Event = Result<Frame<Bytes>, std::convert::Infallible>;

    /// Each of them alone would write the same objects as ours does.
    #[tokio::test(start_paused = true)]
    async fn every_selected_kind_is_asked_for_and_nothing_is_left() {
        for (plural, kind) in [
            ("deployments", "Deployments"),
            ("replicasets", "ReplicaSets"),
            ("replicationcontrollers", "ReplicationControllers"),
        ] {
            let server = Server::new(5, Some((plural, 80)));
            let (answer, _) = server.ask(&REPLICAS).await;
            let error = answer.unwrap_err().to_string();
            assert!(error.contains(kind) && error.contains("-replicationcontroller-controller"), "{error}");
            assert_eq!((server.count("POST"), server.count("DELETE")), (3, 3));
            let (answer, _) = server.ask(&[ControllerName::Deployment]).await;
            assert_eq!(answer.is_err(), plural == "deployments");
        }
    }

    /// On a busy machine a controller may take many seconds, and so does everything else.
    #[tokio::test(start_paused = true)]
    async fn patience_grows_with_the_api_servers_slowness() {
        let (answer, took) = Server::new(5, None).ask(&REPLICAS).await;
        answer.unwrap();
        assert!(took >= SHORTEST && took < SHORTEST + Duration::from_millis(500), "{took:?}");
        let (answer, took) = Server::new(150, None).ask(&REPLICAS).await;
        answer.unwrap();
        assert!(took > Duration::from_secs(15), "{took:?}");
        let (answer, _) = Server::new(150, Some(("replicasets", 12_000))).ask(&REPLICAS).await;
        answer.unwrap_err();
        let (answer, took) = Server::new(40_000, None).ask(&REPLICAS).await;
        answer.unwrap();
        assert!(took >= LONGEST && took < LONGEST + Duration::from_secs(1), "{took:?}");
    }

    /// A control plane that boots: the port is closed when this program starts.
    #[tokio::test]
    async fn an_api_server_that_comes_later_is_waited_for() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let wait = tokio::spawn(async move { reachable(&client).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!wait.is_finished(), "nothing answers yet");
        let listener = TcpListener::bind(address).await.unwrap();
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut rest = Vec::new();
                drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await);
            }
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(Duration::from_secs(20), wait) => ended,
            () = serve => return,
        };
        ended.expect("it waits though the server answers").unwrap();
    }
}
