//! The one door to the API server: JSON in, JSON out, and every failure in words with a remedy.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, DynamicObject, Request},
};
use serde_json::{Value, value::RawValue};
use trysail_core::Resource;

use crate::failure::{Attempt, Failure};

/// How long the server may take to be connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A page of a list, as kubectl asks for.
const PAGE: u32 = 500;

/// Where to connect, as kubectl's flags say it.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Namespace of the workload [default: that of the context]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Path of the kubeconfig [default: $KUBECONFIG, then ~/.kube/config, then the pod's service account]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// A connection to an API server, and the namespace that names are looked up in.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    server: String,
    pub(crate) namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig. Nothing is sent yet. With `retries`, what the server is too busy for is sent again.
    pub(crate) async fn connect(connection: &Connection, retries: bool) -> Result<Self> {
        let mut config = load(connection).await?;
        config.default_retry = retries;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        if let Some(namespace) = &connection.namespace {
            config.default_namespace.clone_from(namespace);
        }
        let server = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).with_context(|| {
            format!("cannot set up a connection to {server}; check the kubeconfig's certificates and proxy")
        })?;
        Ok(Self { client, server, namespace })
    }

    /// With a client of the caller's making.
    #[cfg(test)]
    pub(crate) fn with_client(client: Client) -> Self {
        Self { client, server: "http://test/".into(), namespace: "shop".into() }
    }

    /// For kube's typed APIs: logs, exec, port-forward, watch.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// A dynamic API for watching.
    pub(crate) fn dynamic(&self, resource: Resource) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: resource.group.to_owned(),
            version: resource.version.to_owned(),
            api_version: resource.api_version(),
            kind: resource.kind.to_owned(),
            plural: resource.plural.to_owned(),
        };
        Api::namespaced_with(self.client(), &self.namespace, &resource)
    }

    /// The object of that name in the namespace.
    pub(crate) async fn get(&self, resource: Resource, name: &str) -> Result<Value, Failure> {
        let attempt = self.attempt("get", resource).name(name);
        let request = self.request(resource).get(name, &GetParams::default());
        self.send(attempt, request.map_err(kube::Error::BuildRequest)).await
    }

    /// Every object of the namespace that the label selector matches, exactly as sent.
    pub(crate) async fn list_raw(
        &self,
        resource: Resource,
        selector: &str,
    ) -> Result<Vec<Box<RawValue>>, Failure> {
        let params = ListParams::default().labels(selector);
        self.list_at(resource.path(Some(&self.namespace), None, None), resource, params).await
    }

    /// Every object of the namespace that the label selector matches.
    pub(crate) async fn list(&self, resource: Resource, selector: &str) -> Result<Vec<Value>, Failure> {
        Ok(parse_all(&self.list_raw(resource, selector).await?))
    }

    /// Every object of the cluster.
    pub(crate) async fn list_everywhere(&self, resource: Resource) -> Result<Vec<Value>, Failure> {
        self.list_everywhere_where(resource, "").await
    }

    /// Every object of the cluster that the field selector matches.
    pub(crate) async fn list_everywhere_where(
        &self,
        resource: Resource,
        fields: &str,
    ) -> Result<Vec<Value>, Failure> {
        let params = ListParams::default();
        let params = if fields.is_empty() { params } else { params.fields(fields) };
        Ok(parse_all(&self.list_at(resource.path(None, None, None), resource, params).await?))
    }

    async fn list_at(
        &self,
        path: String,
        resource: Resource,
        params: ListParams,
    ) -> Result<Vec<Box<RawValue>>, Failure> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            metadata: Continue,
            #[serde(default)]
            items: Vec<Box<RawValue>>,
        }
        #[derive(serde::Deserialize, Default)]
        struct Continue {
            #[serde(rename = "continue", default)]
            token: String,
        }
        let mut params = params.limit(PAGE);
        let mut all = Vec::new();
        loop {
            let request = Request::new(path.clone()).list(&params).map_err(kube::Error::BuildRequest);
            let page: Page = self.send(self.attempt("list", resource), request).await?;
            all.extend(page.items);
            if page.metadata.token.is_empty() {
                return Ok(all);
            }
            params = params.continue_token(&page.metadata.token);
        }
    }

    /// Sends a JSON merge patch for an object of the namespace; answers what became of it.
    pub(crate) async fn patch(
        &self,
        resource: Resource,
        name: &str,
        body: &Value,
        params: &PatchParams,
    ) -> Result<Value, Failure> {
        let attempt = self.attempt("patch", resource).name(name);
        let request = self.request(resource).patch(name, params, &Patch::Merge(body));
        self.send(attempt, request.map_err(kube::Error::BuildRequest)).await
    }

    /// Sends a body to a subresource of an object of the namespace.
    pub(crate) async fn post(
        &self,
        resource: Resource,
        name: &str,
        subresource: &'static str,
        body: &Value,
    ) -> Result<(), Failure> {
        let attempt = self.attempt("create", resource).name(name);
        let request = self.request(resource).create_subresource(
            subresource,
            name,
            &PostParams::default(),
            body.to_string().into_bytes(),
        );
        self.send::<Value>(attempt, request.map_err(kube::Error::BuildRequest)).await.map(|_| ())
    }

    /// Deletes an object of the namespace.
    pub(crate) async fn delete(
        &self,
        resource: Resource,
        name: &str,
        params: &DeleteParams,
    ) -> Result<(), Failure> {
        let attempt = self.attempt("delete", resource).name(name);
        let request = self.request(resource).delete(name, params);
        self.send::<Value>(attempt, request.map_err(kube::Error::BuildRequest)).await.map(|_| ())
    }

    /// The same cluster, another namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    fn request(&self, resource: Resource) -> Request {
        // Cluster-scoped resources are asked for with an empty namespace.
        let namespace = (!self.namespace.is_empty()).then_some(self.namespace.as_str());
        Request::new(resource.path(namespace, None, None))
    }

    /// What is about to be tried, for the error message.
    pub(crate) fn attempt(&self, verb: &'static str, resource: Resource) -> Attempt {
        Attempt::new(verb, resource, &self.namespace, &self.server)
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        attempt: Attempt,
        request: Result<http::Request<Vec<u8>>, kube::Error>,
    ) -> Result<T, Failure> {
        let answer = match request {
            Ok(request) => self.client.request(request).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| attempt.failed(error))
    }
}

fn parse_all(objects: &[Box<RawValue>]) -> Vec<Value> {
    // A RawValue was checked when it was read: this cannot fail on what a server sent.
    objects.iter().filter_map(|object| serde_json::from_str(object.get()).ok()).collect()
}

async fn load(connection: &Connection) -> Result<Config> {
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    let Some(path) = &connection.kubeconfig else {
        if connection.context.is_some() {
            return Config::from_kubeconfig(&options)
                .await
                .context("cannot use that --context; `kubectl config get-contexts` lists them");
        }
        return Config::infer()
            .await
            .context("found no cluster to talk to: set KUBECONFIG, or name a file with --kubeconfig");
    };
    let kubeconfig = Kubeconfig::read_from(path)
        .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .with_context(|| format!("the kubeconfig {} is not usable", path.display()))
}
