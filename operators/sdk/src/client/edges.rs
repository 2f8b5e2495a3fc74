//! The layers around hyper, outermost first: deadline, address, credentials, headers, fence.
//!
//! There is no retry: kube's own policy repeats any method up to 15 times, and a write that is repeated blindly
//! is a second write. The fence is innermost, so that waiting for a token or a connection slot cannot carry a
//! write past it; what is left after the fence is bounded by the deadline.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::USER_AGENT};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::connect::HttpConnector,
    rt::{TokioExecutor, TokioTimer},
};
use kube::client::{Body, ConfigExt};
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

use super::{ClientMetrics, Error, Fence, Timeouts, fence::FenceClosed};

/// A response's body: whole for most requests, a stream for watches.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
/// The whole stack, cheap to clone.
pub(crate) type Http = BoxCloneSyncService<Request<Body>, Response<ResponseBody>, BoxError>;

/// Request extension: this write may leave though the fence is closed (lease, events).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exempt;

/// Request extension: a deadline other than that of the method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(pub(crate) Duration);

/// No answer came in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub(crate) struct TimedOut(pub(crate) Duration);

/// hyper keeps idle connections for reuse. One per write in flight suffices; each costs some 40 KiB.
const IDLE_CONNECTIONS: usize = 32;
/// A burst of writes is over after this; the connections it opened are not needed for the next one.
/// A process that is made to stand still finds them again, so that what it held back leaves when it wakes.
const IDLE: Duration = Duration::from_secs(if cfg!(feature = "failpoints") { 600 } else { 30 });
/// hyper would let the buffer of a watch grow to 400 KiB during the first list, and keep it.
const READ_BUFFER: usize = 64 << 10;
/// A peer that vanished without a word is noticed after about 3 × 10 s, long before a watch's own time is up.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Everything that an exchange passes through, shared by the requests of a client.
#[derive(Clone, Debug)]
pub(crate) struct Edges {
    pub(crate) fence: Fence,
    pub(crate) timeouts: Timeouts,
    pub(crate) user_agent: HeaderValue,
    pub(crate) metrics: ClientMetrics,
}

/// The stack over TLS and TCP for a kubeconfig or in-cluster configuration.
pub(crate) fn over_network(config: &kube::Config, edges: Edges) -> Result<Http, Error> {
    let refuse = |error: kube::Error| Error::Config(error.into());
    if let Some(proxy) = &config.proxy_url {
        let message = format!("proxy-url {proxy} is not supported; reach the API server directly");
        return Err(Error::Config(message.into()));
    }
    let timeouts = edges.timeouts;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(timeouts.connect));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(2));
    let connector = config.rustls_https_connector_with_connector(tcp).map_err(refuse)?;
    let hyper = hyper_util::client::legacy::Builder::new(TokioExecutor::new())
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE)
        // Without a timer idle connections are only dropped when another is asked for.
        .pool_timer(TokioTimer::new())
        .http1_max_buf_size(READ_BUFFER)
        .build::<_, Body>(connector);
    let stack = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(refuse)?)
        .layer(config.extra_headers_layer().map_err(refuse)?)
        .map_err(BoxError::from)
        .service(fenced(hyper, edges));
    Ok(with_deadline(stack, timeouts))
}

/// The stack over a service that stands for the network.
pub(crate) fn over_service<S, B>(service: S, edges: Edges) -> Http
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let timeouts = edges.timeouts;
    with_deadline(fenced(service, edges), timeouts)
}

/// True for requests that change something.
fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

/// Innermost: the fence is checked when the request is about to be handed to hyper.
fn fenced<S, B>(
    service: S,
    edges: Edges,
) -> impl Service<Request<Body>, Response = Response<ResponseBody>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let edges = Arc::new(edges);
    tower::service_fn(move |mut request: Request<Body>| {
        let service = service.clone();
        let edges = Arc::clone(&edges);
        async move {
            request.headers_mut().insert(USER_AGENT, edges.user_agent.clone());
            let method = request.method().clone();
            let fenced = is_write(&method) && request.extensions().get::<Exempt>().is_none();
            if fenced && !edges.fence.is_open() {
                edges.metrics.held_back();
                return Err(FenceClosed.into());
            }
            #[cfg(feature = "failpoints")]
            if fenced {
                super::failpoint::between_fence_and_send(&request);
            }
            let sent = Instant::now();
            let answer = service.oneshot(request).await.map_err(Into::into);
            let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            edges.metrics.answered(&method, code, sent.elapsed());
            answer.map(|answer| answer.map(|body| body.map_err(Into::into).boxed_unsync()))
        }
    })
}

/// Outermost: everything but a watch ends within its deadline, its body included.
fn with_deadline<S>(service: S, timeouts: Timeouts) -> Http
where
    S: Service<Request<Body>, Response = Response<ResponseBody>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
        let service = service.clone();
        async move {
            let watch = is_watch(&request);
            let limit = match request.extensions().get::<Deadline>() {
                Some(Deadline(limit)) => *limit,
                None if watch => timeouts.watch_start,
                None if is_write(request.method()) => timeouts.write,
                None => timeouts.read,
            };
            let exchange = async move {
                let answer = service.oneshot(request).await.map_err(Into::into)?;
                if watch {
                    return Ok::<_, BoxError>(answer);
                }
                let (parts, body) = answer.into_parts();
                let whole = Full::new(body.collect().await?.to_bytes());
                Ok(Response::from_parts(parts, whole.map_err(|never| match never {}).boxed_unsync()))
            };
            match tokio::time::timeout(limit, exchange).await {
                Ok(answer) => answer,
                Err(_) => Err(TimedOut(limit).into()),
            }
        }
    }))
}
