//! Sockets: the CSI socket, the registration socket, and `/healthz`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::{Backend, ControllerService, IdentityService, NodeService, RegistrationService};
use crate::proto::csi::controller_server::ControllerServer;
use crate::proto::csi::identity_server::IdentityServer;
use crate::proto::csi::node_server::NodeServer;
use crate::proto::registration::registration_server::RegistrationServer;

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// The name of the driver.
    pub name: String,
    /// The CSI socket.
    pub csi: PathBuf,
    /// The directory in which the kubelet looks for plugins, and the CSI socket as the kubelet sees it.
    pub registration: Option<(PathBuf, PathBuf)>,
    /// `/healthz` and `/metrics`.
    pub health: Option<SocketAddr>,
}

impl Sockets {
    /// The kubelet dials this socket without an authority, so its gRPC library sends the percent-encoded path as one,
    /// which the `http` crate refuses. What stands before an `@` is user information: with it, the path is a valid
    /// authority.
    fn registration_socket(&self) -> Option<(PathBuf, PathBuf)> {
        let (directory, endpoint) = self.registration.as_ref()?;
        Some((directory.join(format!("reg@{}.sock", self.name)), endpoint.clone()))
    }
}

/// Serves until `stop` is ready. What has been begun by then is finished.
pub async fn serve(backend: Backend, sockets: Sockets, stop: impl Future<Output = ()>) -> io::Result<()> {
    let (stopped, stopping) = watch::channel(false);
    let wait = |mut stopping: watch::Receiver<bool>| async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopping.wait_for(|stopped| *stopped).await;
    };
    let csi = Server::builder()
        .add_service(IdentityServer::new(IdentityService {
            driver: Arc::clone(&backend.driver),
            name: sockets.name.clone(),
        }))
        .add_service(ControllerServer::new(ControllerService { backend: backend.clone() }))
        .add_service(NodeServer::new(NodeService { backend: backend.clone() }))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listen(&sockets.csi)?), wait(stopping.clone()));
    let registration_socket = sockets.registration_socket();
    let registration = async {
        let Some((path, endpoint)) = &registration_socket else { return Ok(()) };
        let service = RegistrationService { name: sockets.name.clone(), endpoint: endpoint.clone() };
        Server::builder()
            .add_service(RegistrationServer::new(service))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listen(path)?), wait(stopping.clone()))
            .await
            .map_err(io::Error::other)
    };
    let health = async {
        let Some(address) = sockets.health else { return Ok(()) };
        let listener = TcpListener::bind(address).await?;
        axum::serve(listener, web(&backend)).with_graceful_shutdown(wait(stopping.clone())).await
    };
    let stop = async {
        stop.await;
        // Nobody listens any more only if everything has ended already.
        let _ = stopped.send(true);
        Ok(())
    };
    let csi = async { csi.await.map_err(io::Error::other) };
    let result = tokio::try_join!(csi, registration, health, stop).map(drop);
    // The kubelet deregisters a plugin whose registration socket is gone.
    let paths = registration_socket.iter().map(|(path, _)| path).chain([&sockets.csi]);
    paths.for_each(|path| drop(std::fs::remove_file(path)));
    result
}

/// A socket that only root may use. One that a killed process left behind is removed; one that still answers is not.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let context = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let text = format!("{}: another process listens there", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(context(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(context)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(context)?;
    Ok(listener)
}

fn web(backend: &Backend) -> axum::Router {
    let Backend { driver, metrics } = backend.clone();
    let healthy = Arc::clone(&driver);
    let health = move || async move {
        let failed = healthy.failed_pools();
        if failed.is_empty() || failed.len() < healthy.store.pools().len() {
            (StatusCode::OK, "ok".to_owned())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{failed:?}"))
        }
    };
    let figures = move || async move {
        let text = tokio::task::spawn_blocking(move || metrics.text(&driver)).await;
        match text {
            Ok(Ok(text)) => (StatusCode::OK, text),
            Ok(Err(_)) | Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        }
    };
    axum::Router::new().route("/healthz", get(health)).route("/metrics", get(figures))
}
