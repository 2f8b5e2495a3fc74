//! Native mode while kube-controller-manager still runs the same controllers would mean two writers on every
//! object. Nothing in the API says which controllers it runs, so a canary asks: a Deployment of no replicas that
//! our own controllers leave alone. Whoever reports on it is somebody else.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

/// Marks the canary; objects with this label are not reconciled by us.
pub(crate) const CANARY: &str = "trysail.dev/canary";

/// kube-controller-manager reacts within tens of milliseconds where its controllers run.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often an API server that cannot be reached is tried.
const TRY_EVERY: Duration = Duration::from_secs(2);

/// Fails when somebody else acts on native Deployments.
pub(crate) async fn nobody_else_acts(client: Client, namespace: &str) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client, namespace);
    let canary = deployments.create(&PostParams::default(), &canary()?).await.context(
        "failed to create the canary that shows whether kube-controller-manager acts on Deployments",
    )?;
    let name = canary.name_any();
    let acted = watch(&deployments, &name).await;
    let deleted = deployments.delete(&name, &DeleteParams::background()).await;
    if acted? {
        bail!(
            "somebody else already acts on Deployments of apps/v1: start kube-controller-manager with \
             --controllers=*,-deployment-controller,-replicaset-controller,-replicationcontroller-controller, \
             or serve our own kinds with --api crd (--skip-native-check starts anyway)"
        );
    }
    deleted.with_context(|| format!("failed to delete the canary {namespace}/{name}"))?;
    Ok(())
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

async fn watch(deployments: &Api<Deployment>, name: &str) -> Result<bool> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let seen = deployments.get_opt(name).await.context("failed to read the canary")?;
        let reported = seen.and_then(|canary| canary.status?.observed_generation);
        if reported.is_some() {
            return Ok(true);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(false)
}

fn canary() -> Result<Deployment> {
    let labels = json!({CANARY: "true"});
    let canary = json!({
        "metadata": {"generateName": "trysail-canary-", "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "none", "image": "registry.k8s.io/pause:3.10.2"}]},
            },
        },
    });
    serde_json::from_value(canary).context("failed to build the canary")
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
