//! `csi.v1.Identity`.

use std::collections::HashMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::driver::Driver;
use crate::model::Error;
use crate::proto::csi::{self, identity_server::Identity, plugin_capability};

/// The service.
#[derive(Clone, Debug)]
pub struct IdentityService {
    /// Its driver.
    pub driver: Arc<Driver>,
    /// The name it is registered under.
    pub name: String,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: self.name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        use plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
        let services = [service::Type::ControllerService, service::Type::VolumeAccessibilityConstraints]
            .map(|kind| Type::Service(Service { r#type: kind.into() }));
        let expansion =
            Type::VolumeExpansion(VolumeExpansion { r#type: volume_expansion::Type::Online.into() });
        let capabilities = services
            .into_iter()
            .chain([expansion])
            .map(|kind| csi::PluginCapability { r#type: Some(kind) })
            .collect();
        Ok(Response::new(csi::GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<csi::ProbeRequest>) -> Result<Response<csi::ProbeResponse>, Status> {
        // Restarting the driver does not bring a disk back; a failed pool is told where its volumes are asked for.
        match self.driver.failed_pools().into_iter().next() {
            Some((pool, why)) if self.driver.store.pools().len() == 1 => {
                Err(Error::Precondition(format!("pool {pool}: {why}")).into())
            }
            _ => Ok(Response::new(csi::ProbeResponse { ready: Some(true) })),
        }
    }
}
