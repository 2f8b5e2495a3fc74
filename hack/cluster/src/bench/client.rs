//! A small client of the bench's own API server: requests, paged lists and watches over HTTP/1.1.
//!
//! It reads of an object only what the caller's type names, so that watching a subject stays cheaper than the
//! subject's own work. It retries nothing: on loopback a failed request is a fault of the bench.

use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

const JSON: &str = "application/json";
pub(crate) const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";

/// Objects per page of a list: a page of pods stays below 10 MB.
const PAGE: usize = 1000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than any phase.
const WATCH_SECONDS: u32 = 36_000;
/// Between the end of a watch and the next, so that a server in trouble is not hammered.
const REOPEN: Duration = Duration::from_millis(20);
/// As many as threads that send at the same time.
const CONNECTIONS: usize = 16;

/// The API server as one user sees it. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    agent: Agent,
    base: String,
    token: String,
}

#[derive(Debug, Deserialize)]
struct Page<T> {
    metadata: PageMeta,
    items: Vec<T>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

impl Api {
    pub(crate) fn new(port: u16, authority_pem: &[u8], token: &str) -> Result<Self> {
        let authority = Certificate::from_pem(authority_pem).context("the bench's CA is not PEM")?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[authority])).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .max_idle_connections(CONNECTIONS)
            .max_idle_connections_per_host(CONNECTIONS);
        let base = format!("https://127.0.0.1:{port}");
        Ok(Self { agent: config.build().new_agent(), base, token: format!("Bearer {token}") })
    }

    /// The body of a GET.
    pub(crate) fn get(&self, path: &str) -> Result<Vec<u8>> {
        let call = self.agent.get(format!("{}{path}", self.base)).header("Authorization", &self.token);
        let response = call.config().timeout_global(Some(REQUEST_TIMEOUT)).build().call();
        body("GET", path, response)
    }

    pub(crate) fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let call = self.agent.post(format!("{}{path}", self.base)).header("Authorization", &self.token);
        let call = call.header("Content-Type", JSON).config().timeout_global(Some(REQUEST_TIMEOUT)).build();
        Ok(serde_json::from_slice(&body("POST", path, call.send(&object.to_string()))?)?)
    }

    pub(crate) fn patch(&self, path: &str, content_type: &str, patch: &Value) -> Result<Value> {
        let call = self.agent.patch(format!("{}{path}", self.base)).header("Authorization", &self.token);
        let call = call.header("Content-Type", content_type);
        let call = call.config().timeout_global(Some(REQUEST_TIMEOUT)).build();
        Ok(serde_json::from_slice(&body("PATCH", path, call.send(&patch.to_string()))?)?)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<()> {
        let call = self.agent.delete(format!("{}{path}", self.base)).header("Authorization", &self.token);
        let response = call.config().timeout_global(Some(REQUEST_TIMEOUT)).build().call();
        body("DELETE", path, response).map(drop)
    }

    /// All objects of a collection, and the resourceVersion to watch from.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str, mut each: impl FnMut(T)) -> Result<String> {
        let mut token = String::new();
        loop {
            let url = format!("{path}?limit={PAGE}&continue={token}");
            let page: Page<T> =
                serde_json::from_slice(&self.get(&url)?).with_context(|| format!("cannot read {path}"))?;
            page.items.into_iter().for_each(&mut each);
            if page.metadata.r#continue.is_empty() {
                return Ok(page.metadata.resource_version);
            }
            token = page.metadata.r#continue;
        }
    }

    /// Calls `each` for every change after `version`, until the API server ends or `each` says that it is enough.
    ///
    /// A server closes the watch of a client that cannot follow at the moment, and expects it to come back: nothing
    /// is lost by that, because the client says where it was.
    pub(crate) fn follow<T: DeserializeOwned + Versioned>(
        &self,
        path: &str,
        selector: &str,
        mut version: String,
        mut each: impl FnMut(Change<T>) -> ControlFlow<()>,
    ) -> Result<()> {
        loop {
            let mut watch = self.watch(path, &format!("{selector}&resourceVersion={version}"))?;
            while let Some(event) = watch.next::<T>()? {
                event.object.version().clone_into(&mut version);
                let deleted = event.kind == "DELETED";
                if each(Change { object: event.object, deleted }).is_break() {
                    return Ok(());
                }
            }
            thread::sleep(REOPEN);
        }
    }

    fn watch(&self, path: &str, query: &str) -> Result<Watch> {
        let url = format!("{}{path}?watch=1&timeoutSeconds={WATCH_SECONDS}&{query}", self.base);
        let response = self.agent.get(url).header("Authorization", &self.token).call();
        let response = response.with_context(|| format!("cannot watch {path}"))?;
        if !response.status().is_success() {
            bail!("watch of {path} was refused: {}", response.status());
        }
        let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Watch { reader: BufReader::with_capacity(1 << 16, Box::new(reader)), line: Vec::new() })
    }
}

/// An object that knows its resourceVersion.
pub(crate) trait Versioned {
    fn version(&self) -> &str;
}

/// An object that came, changed, or went.
#[derive(Debug)]
pub(crate) struct Change<T> {
    pub(crate) object: T,
    pub(crate) deleted: bool,
}

/// One event of a watch.
#[derive(Debug, Deserialize)]
struct WatchEvent<T> {
    /// `ADDED`, `MODIFIED`, `DELETED` or `ERROR`.
    #[serde(rename = "type")]
    kind: String,
    object: T,
}

/// An open watch.
struct Watch {
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
}

impl Watch {
    /// The next event; none when the server closed the watch.
    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<WatchEvent<T>>> {
        self.line.clear();
        let read = self.reader.read_until(b'\n', &mut self.line).context("the watch broke off")?;
        if read == 0 || self.line.last() != Some(&b'\n') {
            return Ok(None);
        }
        serde_json::from_slice(&self.line).map(Some).with_context(|| {
            // An ERROR event carries a Status, which is no object of ours.
            let text: String = String::from_utf8_lossy(&self.line).chars().take(200).collect();
            format!("cannot read a watch event: {text}")
        })
    }
}

fn body(verb: &str, path: &str, response: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>> {
    let response = response.with_context(|| format!("{verb} {path} failed"))?;
    let status = response.status();
    let mut bytes = Vec::new();
    let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader();
    reader.read_to_end(&mut bytes).with_context(|| format!("{verb} {path}: the reply broke off"))?;
    if status.is_success() {
        return Ok(bytes);
    }
    let message = serde_json::from_slice::<Value>(&bytes)
        .ok()
        .and_then(|value| value["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
    Err(anyhow!("{verb} {path}: {status}: {message}"))
}
