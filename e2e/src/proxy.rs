//! A way to the API server on which every event of a watch arrives late, and everything else at once: the view
//! of a manager whose cache lags far behind its own writes.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
};
use futures::{Stream, StreamExt, stream};
use kube::Client;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

/// No object is larger.
const LARGEST_BODY: usize = 4 << 20;

/// The proxy; ends with its value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Way {
    client: Client,
    delay: Duration,
}

impl Proxy {
    /// Serves on a free local port, as the user that `client` is.
    pub async fn start(client: Client, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(forward).with_state(Way { client, delay });
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the proxy ended: {error}");
            }
        });
        Ok(Self { address, task })
    }

    /// A kubeconfig whose cluster is this proxy.
    pub fn kubeconfig(&self) -> String {
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
            "current-context": "proxy",
        })
        .to_string()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(State(way): State<Way>, request: Request) -> Response<Body> {
    match exchange(way, request).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = Response::new(Body::from(format!("{error:#}")));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

async fn exchange(way: Way, request: Request) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, LARGEST_BODY).await.context("cannot read the request")?;
    let query = parts.uri.query().unwrap_or_default();
    let is_watch = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
    let path = parts.uri.path_and_query().context("a request without a path")?.as_str();
    let mut onward = axum::http::Request::builder().method(parts.method).uri(path);
    for (name, value) in kept(&parts.headers) {
        onward = onward.header(name, value);
    }
    let response = way.client.send(onward.body(kube::client::Body::from(body.to_vec()))?).await?;
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::TRANSFER_ENCODING);
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = Body::new(body);
    let body = if is_watch { Body::from_stream(late(body.into_data_stream(), way.delay)) } else { body };
    Ok(Response::from_parts(parts, body))
}

/// What belongs to the request and not to the connection.
fn kept(headers: &HeaderMap) -> impl Iterator<Item = (&header::HeaderName, &header::HeaderValue)> {
    headers
        .iter()
        .filter(|(name, _)| [header::ACCEPT, header::CONTENT_TYPE, header::USER_AGENT].contains(name))
}

/// Every chunk that long after it came, in its order. A task takes them as they come: a chunk's delay does not add
/// to that of the next one.
fn late<S, E>(mut chunks: S, delay: Duration) -> impl Stream<Item = Result<Bytes, E>>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    E: Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(chunk) = chunks.next().await {
            // The reader has gone: so does the watch.
            if sender.send((Instant::now() + delay, chunk)).is_err() {
                return;
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async move {
        let (due, chunk) = receiver.recv().await?;
        tokio::time::sleep_until(due).await;
        Some((chunk, receiver))
    })
}
