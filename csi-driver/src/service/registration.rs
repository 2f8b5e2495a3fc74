//! `pluginregistration.Registration`: the kubelet asks who we are, and says what became of it.

use std::path::PathBuf;

use tonic::{Request, Response, Status};

use crate::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
    registration_server::Registration,
};

/// The service on the registration socket.
#[derive(Clone, Debug)]
pub struct RegistrationService {
    /// The driver's name.
    pub name: String,
    /// The CSI socket as the kubelet sees it.
    pub endpoint: PathBuf,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!(name = self.name, "registered with the kubelet");
        } else {
            // The kubelet tries again on its own; it says here what it dislikes.
            tracing::error!(name = self.name, error = status.error, "the kubelet refuses the registration");
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
