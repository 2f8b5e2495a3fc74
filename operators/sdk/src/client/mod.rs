//! The one door to the API server.
//!
//! Decided here: what an exchange may cost in time, that writes are never repeated, that they pass the fence,
//! and what a failure means ([`Error::class`]). Not decided here: what is asked, and what is done about an answer.
//!
//! Answers are JSON. Built-in kinds could be had in protobuf: the `Accept` header and the decoder of a resource
//! are chosen in one place each (`request::accept` and [`crate::informer`]'s frame decoder).

mod edges;
mod error;
#[cfg(feature = "failpoints")]
mod failpoint;
mod fence;
mod metrics;
mod request;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use tower::{BoxError, Service, ServiceExt};

use edges::{Edges, Exempt, Http, TimedOut};

pub(crate) use edges::{Deadline, ResponseBody};
pub use error::{Cause, Class, Details, Error, Status};
pub use fence::{Fence, FenceClosed};
pub use metrics::ClientMetrics;
pub use request::{Deleted, LiveMeta, Preconditions, WriteReply};

/// How long an exchange may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To open a connection.
    pub connect: Duration,
    /// For a read, its body included.
    pub read: Duration,
    /// For a write, its body included. The election closes the fence this long before another process may
    /// lead; the server is told the same limit, so it gives up no later than we do.
    pub write: Duration,
    /// For one page of a list, its body included.
    pub list: Duration,
    /// Until a watch's header arrives.
    pub watch_start: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(4),
            read: Duration::from_secs(8),
            // With a lease of 15 s that is renewed within 10 s, the fence leaves 6 s after each renewal.
            write: Duration::from_secs(4),
            list: Duration::from_secs(60),
            watch_start: Duration::from_secs(30),
        }
    }
}

/// How a [`Client`] behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// `NAME/VERSION` of the program.
    pub user_agent: String,
    /// Limits in time.
    pub timeouts: Timeouts,
    /// Moved by the election.
    pub fence: Fence,
    /// What is counted.
    pub metrics: ClientMetrics,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user_agent: concat!("trysail-manager/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeouts: Timeouts::default(),
            fence: Fence::always_open(),
            metrics: ClientMetrics::default(),
        }
    }
}

/// A handle to the API server; cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: Http,
    edges: Arc<Edges>,
    default_namespace: Arc<str>,
    exempt: bool,
}

impl Client {
    /// Connects as a kubeconfig or the in-cluster configuration says. Must be called within a tokio runtime.
    pub fn new(config: &kube::Config, options: Options) -> Result<Self, Error> {
        let edges = options.edges()?;
        edges.metrics.connects_to(&config.cluster_url);
        let http = edges::over_network(config, edges.clone())?;
        let default_namespace = config.default_namespace.as_str().into();
        Ok(Self { http, edges: Arc::new(edges), default_namespace, exempt: false })
    }

    /// Talks to a service that stands for the API server: the seam for simulated servers and scripted faults.
    pub fn over_service<S, B>(service: S, options: Options) -> Result<Self, Error>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let edges = options.edges()?;
        let http = edges::over_service(service, edges.clone());
        Ok(Self { http, edges: Arc::new(edges), default_namespace: "default".into(), exempt: false })
    }

    /// The same connection for requests that must leave though this process does not lead: those about the
    /// lease itself, and events.
    #[must_use]
    pub fn exempt(&self) -> Self {
        Self { exempt: true, ..self.clone() }
    }

    /// kube's client over the same connection and edges, for `kube::Api` and `kube::runtime`. Must be called
    /// within a tokio runtime.
    pub fn kube(&self) -> kube::Client {
        let client = self.clone();
        let service = tower::service_fn(move |request| {
            let client = client.clone();
            async move { client.exchange(request).await }
        });
        kube::Client::new(service, self.default_namespace.as_ref())
    }

    /// The fence that this client's writes pass.
    pub fn fence(&self) -> &Fence {
        &self.edges.fence
    }

    /// Its limits in time.
    pub fn timeouts(&self) -> Timeouts {
        self.edges.timeouts
    }

    /// What it counts.
    pub fn metrics(&self) -> &ClientMetrics {
        &self.edges.metrics
    }

    /// The namespace of the kubeconfig's context, or that of the pod.
    pub fn default_namespace(&self) -> &str {
        &self.default_namespace
    }

    async fn exchange(&self, mut request: Request<Body>) -> Result<Response<ResponseBody>, BoxError> {
        if self.exempt {
            request.extensions_mut().insert(Exempt);
        }
        self.http.clone().oneshot(request).await
    }

    /// Sends a request and hands out the answer when its header has come; a refusal is an error.
    pub(crate) async fn open(
        &self,
        what: &(dyn fmt::Display + Sync),
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, Error> {
        let answer = self.exchange(request).await.map_err(|error| classify(what, error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let code = answer.status().as_u16();
        let retry_after = answer.headers().get(http::header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = answer.into_body().collect();
        let body = match tokio::time::timeout(self.edges.timeouts.read, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            // The code says enough.
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        let status = Box::new(Status::from_answer(code, retry_after, &body));
        Err(Error::Status { what: what.to_string(), status })
    }

    /// Sends a request and hands out the whole body of a successful answer.
    pub(crate) async fn bytes(
        &self,
        what: &(dyn fmt::Display + Sync),
        request: Request<Body>,
    ) -> Result<Bytes, Error> {
        let answer = self.open(what, request).await?;
        let body = answer.into_body().collect().await.map_err(|error| classify(what, error))?;
        Ok(body.to_bytes())
    }
}

/// Tells apart what never left from what may have arrived.
fn classify(what: &(dyn fmt::Display + Sync), error: BoxError) -> Error {
    let what = what.to_string();
    let error = match error.downcast::<FenceClosed>() {
        Ok(source) => return Error::Fenced { what, source: *source },
        Err(error) => error,
    };
    let error = match error.downcast::<TimedOut>() {
        Ok(timed_out) => return Error::Timeout { what, after: timed_out.0 },
        Err(error) => error,
    };
    let hyper = error.downcast_ref::<hyper_util::client::legacy::Error>();
    // kube's errors here are about credentials that cannot be had: there was nothing to send yet.
    if hyper.is_some_and(hyper_util::client::legacy::Error::is_connect) || error.is::<kube::Error>() {
        Error::Unreachable { what, source: error }
    } else {
        Error::Broken { what, source: error }
    }
}

impl Options {
    fn edges(self) -> Result<Edges, Error> {
        let user_agent = HeaderValue::from_str(&self.user_agent).map_err(|error| {
            Error::Config(format!("user agent {:?} is not a header value: {error}", self.user_agent).into())
        })?;
        Ok(Edges { fence: self.fence, timeouts: self.timeouts, user_agent, metrics: self.metrics })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("edges", &self.edges)
            .field("exempt", &self.exempt)
            .finish_non_exhaustive()
    }
}
