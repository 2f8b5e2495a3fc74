//! Native mode while kube-controller-manager still runs the same controllers would mean two writers on every
//! object. Nothing in the API says which controllers it runs, so canaries ask: one object of each kind that wants no
//! pods and that our own controllers leave alone. Whoever reports on it is somebody else.
//!
//! There is none for the deletion of finished Jobs: two who delete the same Job at the same time do no harm.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::{
    Client, ResourceExt,
    api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams},
};
use serde_json::{Value, json};
use trysail_core::{Face, Resource};

use crate::options::ControllerName;

/// Marks a canary; objects with this label are not reconciled by us.
pub(crate) const CANARY: &str = "trysail.dev/canary";

/// kube-controller-manager reacts within tens of milliseconds where its controllers run.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often an API server that cannot be reached is tried.
const TRY_EVERY: Duration = Duration::from_secs(2);

/// An object that shows whether a controller acts.
struct Canary {
    resource: Resource,
    /// What it says of itself; metadata aside.
    fields: Value,
    /// Where a controller's report appears.
    report: &'static str,
}

impl Canary {
    fn of(controller: ControllerName) -> Self {
        let labels = json!({CANARY: "true"});
        let template = json!({
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "none", "image": "registry.k8s.io/pause:3.10.2"}]},
        });
        let selector = json!({"matchLabels": labels});
        let replicas = json!({"spec": {"replicas": 0, "selector": selector, "template": template}});
        let observed = "/status/observedGeneration";
        let (resource, fields, report) = match controller {
            ControllerName::Deployment => (Resource::deployments(Face::Native), replicas, observed),
            ControllerName::ReplicaSet => (Resource::replica_sets(Face::Native), replicas, observed),
            ControllerName::ReplicationController => {
                let fields = json!({"spec": {"replicas": 0, "selector": labels, "template": template}});
                (Resource::replication_controllers(Face::Native), fields, observed)
            }
        };
        Self { resource, fields, report }
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
        let created = api.create(&PostParams::default(), &self.object()?).await.with_context(|| {
            let kind = self.resource.kind;
            format!("failed to create the canary that shows whether kube-controller-manager acts on {kind}s")
        })?;
        let name = created.name_any();
        let acted = self.watch(&api, &name).await;
        let deleted = api.delete(&name, &DeleteParams::background()).await;
        let acted = acted?;
        deleted.with_context(|| format!("failed to delete the canary {namespace}/{name}"))?;
        Ok(acted)
    }

    async fn watch(&self, api: &Api<DynamicObject>, name: &str) -> Result<bool> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let seen = api.get_opt(name).await.context("failed to read the canary")?;
            if seen.is_some_and(|canary| canary.data.pointer(self.report).is_some()) {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }
}

/// The kinds whose canaries are needed for these controllers.
pub(crate) fn watched(controllers: &[ControllerName]) -> Vec<Resource> {
    controllers.iter().map(|controller| Canary::of(*controller)).map(|canary| canary.resource).collect()
}

/// Fails when somebody else acts on the native kinds of these controllers.
pub(crate) async fn nobody_else_acts(
    client: Client,
    namespace: &str,
    controllers: &[ControllerName],
) -> Result<()> {
    let canaries: Vec<Canary> = controllers.iter().map(|controller| Canary::of(*controller)).collect();
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
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

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
