//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::ManagerError;
use crate::metrics::{CONTENT_TYPE, Metrics};

const STARTING: u8 = 0;
const READY: u8 = 1;
const STOPPING: u8 = 2;

/// Whether this process could lead. A standby is ready too: a rollout must not wait for a lease.
#[derive(Clone, Debug, Default)]
pub(super) struct Readiness(Arc<AtomicU8>);

impl Readiness {
    pub(super) fn set_ready(&self) {
        self.0.store(READY, Ordering::Release);
    }

    pub(super) fn set_stopping(&self) {
        self.0.store(STOPPING, Ordering::Release);
    }

    fn answer(&self) -> (StatusCode, &'static str) {
        match self.0.load(Ordering::Acquire) {
            STARTING => (StatusCode::SERVICE_UNAVAILABLE, "caches are filling"),
            STOPPING => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            _ => (StatusCode::OK, "ok"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn bind(
        address: SocketAddr,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<Self, ManagerError> {
        let refuse = |source| ManagerError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(refuse)?;
        let bound = listener.local_addr().map_err(refuse)?;
        let stop = CancellationToken::new();
        let router = Router::new()
            .route("/healthz", get(async || "ok"))
            .route("/readyz", get(async |State(readiness): State<Readiness>| readiness.answer()))
            .with_state(readiness)
            .route("/metrics", get(async move || exposition(&metrics)));
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            // It ends by being told to; what a connection does wrong ends that connection.
            let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
        });
        Ok(Self { address: bound, stop, task })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A scraper that keeps its connection open must not hold up the end of the process.
    pub(super) async fn stop(self) {
        let Self { stop, mut task, .. } = self;
        stop.cancel();
        if tokio::time::timeout(std::time::Duration::from_millis(500), &mut task).await.is_err() {
            task.abort();
        }
    }
}

fn exposition(metrics: &Metrics) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.encode())
}
