//! The wire: requests in, one call of the driver, answers out. Nothing is decided here.

mod controller;
mod identity;
mod metrics;
mod node;
mod registration;
mod request;
mod serve;

use std::sync::Arc;
use std::time::Instant;

use tonic::{Code, Status};

use crate::driver::Driver;
use crate::model::{Error, Result};

pub use controller::ControllerService;
pub use identity::IdentityService;
pub use metrics::Metrics;
pub use node::NodeService;
pub use registration::RegistrationService;
pub use serve::{Sockets, serve};

/// The name of the driver in Kubernetes, unless an administrator runs several.
pub const DRIVER_NAME: &str = "local.csi.trysail.dev";

/// What every service works with.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The driver.
    pub driver: Arc<Driver>,
    /// Its figures.
    pub metrics: Arc<Metrics>,
}

/// Runs a call to its end on a thread of its own. The caller may give up meanwhile: what was begun is finished, and a
/// repeated call finds it done.
async fn call<T: Send + 'static>(
    Backend { driver, metrics }: &Backend,
    rpc: &'static str,
    id: &str,
    work: impl FnOnce(&Driver) -> Result<T> + Send + 'static,
) -> Result<T, Status> {
    let driver = Arc::clone(driver);
    let metrics = Arc::clone(metrics);
    let id = id.to_owned();
    let task = tokio::task::spawn_blocking(move || {
        let start = Instant::now();
        let result = work(&driver);
        let milliseconds = start.elapsed().as_millis();
        metrics.called(rpc, result.as_ref().map_or_else(Error::code, |_| Code::Ok), start.elapsed());
        match &result {
            Ok(_) => tracing::info!(rpc, id, milliseconds, "done"),
            Err(error) if error.code() == Code::Internal => {
                tracing::error!(rpc, id, milliseconds, code = ?error.code(), %error, "failed");
            }
            Err(error) => tracing::warn!(rpc, id, milliseconds, code = ?error.code(), %error, "refused"),
        }
        result.map_err(Status::from)
    });
    task.await.unwrap_or_else(|_| Err(Status::internal(format!("{rpc} panicked; see the log of the driver"))))
}
