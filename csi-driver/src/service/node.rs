//! `csi.v1.Node`.

use std::path::PathBuf;

use tonic::{Request, Response, Status};

use super::controller::{condition_message, health_message};
use super::{Backend, call, request};
use crate::driver::{StageRequest, TargetRequest, VolumeStats};
use crate::model::{Error, Published};
use crate::proto::csi::{self, node_server::Node};

/// The service.
#[derive(Clone, Debug)]
pub struct NodeService {
    /// Its driver.
    pub backend: Backend,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Answer<csi::NodeStageVolumeResponse> {
        let request = request.into_inner();
        let stage = StageRequest {
            id: request::required("volume_id", &request.volume_id)?,
            path: request::path("staging_target_path", &request.staging_target_path)?,
            capability: request::capability(request.volume_capability.as_ref())?,
        };
        call(&self.backend, "NodeStageVolume", &stage.id.clone(), move |driver| driver.stage(&stage)).await?;
        Ok(Response::new(csi::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Answer<csi::NodeUnstageVolumeResponse> {
        let request = request.into_inner();
        let id = request::required("volume_id", &request.volume_id)?;
        let path = request::path("staging_target_path", &request.staging_target_path)?;
        call(&self.backend, "NodeUnstageVolume", &id.clone(), move |driver| driver.unstage(&id, &path))
            .await?;
        Ok(Response::new(csi::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Answer<csi::NodePublishVolumeResponse> {
        let request = request.into_inner();
        let id = request::required("volume_id", &request.volume_id)?;
        let target = request::path("target_path", &request.target_path)?;
        let capability = request::capability(request.volume_capability.as_ref())?;
        if let Some(inline) = request::inline(&request, &id, &target, &capability)? {
            call(&self.backend, "NodePublishVolume", &id, move |driver| driver.publish_inline(&inline))
                .await?;
            return Ok(Response::new(csi::NodePublishVolumeResponse {}));
        }
        if request.staging_target_path.is_empty() {
            return Err(Error::Precondition(
                "staging_target_path is missing: stage the volume first".to_owned(),
            )
            .into());
        }
        let publish = TargetRequest {
            id,
            staging: request::path("staging_target_path", &request.staging_target_path)?,
            target,
            published: Published { readonly: request.readonly, capability },
        };
        call(&self.backend, "NodePublishVolume", &publish.id.clone(), move |driver| driver.publish(&publish))
            .await?;
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Answer<csi::NodeUnpublishVolumeResponse> {
        let request = request.into_inner();
        let id = request::required("volume_id", &request.volume_id)?;
        let path = request::path("target_path", &request.target_path)?;
        call(&self.backend, "NodeUnpublishVolume", &id.clone(), move |driver| driver.unpublish(&id, &path))
            .await?;
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Answer<csi::NodeGetVolumeStatsResponse> {
        let request = request.into_inner();
        let id = request::required("volume_id", &request.volume_id)?;
        // A path that no volume can be at is "not found", not "invalid".
        let path: PathBuf = request::required("volume_path", &request.volume_path)?.into();
        let path: PathBuf = path.components().collect();
        let asked = id.clone();
        let (stats, found) = call(&self.backend, "NodeGetVolumeStats", &id.clone(), move |driver| {
            Ok((driver.stats(&asked, &path)?, driver.health(&asked)?))
        })
        .await?;
        Ok(Response::new(csi::NodeGetVolumeStatsResponse {
            usage: usage(stats),
            volume_condition: Some(condition_message(&found)),
        }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Answer<csi::NodeExpandVolumeResponse> {
        let request = request.into_inner();
        let id = request::required("volume_id", &request.volume_id)?;
        let path: PathBuf = request::required("volume_path", &request.volume_path)?.into();
        let path: PathBuf = path.components().collect();
        let size = call(&self.backend, "NodeExpandVolume", &id.clone(), move |driver| {
            let range = request::range(request.capacity_range.as_ref())?.unwrap_or_default();
            driver.node_expand(&id, &path, range.required)
        })
        .await?;
        Ok(Response::new(csi::NodeExpandVolumeResponse { capacity_bytes: size as i64 }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Answer<csi::NodeGetCapabilitiesResponse> {
        use csi::node_service_capability::{Rpc, Type, rpc::Type as Kind};
        let capabilities = [
            Kind::StageUnstageVolume,
            Kind::GetVolumeStats,
            Kind::ExpandVolume,
            Kind::VolumeCondition,
            Kind::SingleNodeMultiWriter,
            Kind::GetVolumeHealth,
            Kind::GetStorageHealth,
        ]
        .map(|kind| csi::NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })) });
        Ok(Response::new(csi::NodeGetCapabilitiesResponse { capabilities: capabilities.to_vec() }))
    }

    async fn node_get_info(&self, _: Request<csi::NodeGetInfoRequest>) -> Answer<csi::NodeGetInfoResponse> {
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.backend.driver.node.clone(),
            max_volumes_per_node: i64::from(self.backend.driver.max_volumes),
            accessible_topology: Some(csi::Topology {
                segments: self.backend.driver.topology().into_iter().collect(),
            }),
        }))
    }

    async fn node_get_volume_health(
        &self,
        request: Request<csi::NodeGetVolumeHealthRequest>,
    ) -> Answer<csi::NodeGetVolumeHealthResponse> {
        let id = request::required("volume_id", &request.into_inner().volume_id)?;
        let volume_health = Some(health_message(&id, self.backend.driver.health(&id)?));
        Ok(Response::new(csi::NodeGetVolumeHealthResponse { volume_health }))
    }

    async fn node_get_storage_health(
        &self,
        _: Request<csi::NodeGetStorageHealthRequest>,
    ) -> Answer<csi::NodeGetStorageHealthResponse> {
        use csi::node_get_storage_health_response::StorageBackendHealth;
        let entry = |(pool, why): (String, String)| StorageBackendHealth {
            status: csi::StorageHealthErrorType::StorageUnreachable.into(),
            reason: "PoolFailed".to_owned(),
            message: format!("pool {pool}: {why}"),
            volume_capability: None,
        };
        let backend_health = self.backend.driver.failed_pools().into_iter().map(entry).take(1).collect();
        Ok(Response::new(csi::NodeGetStorageHealthResponse { backend_health }))
    }
}

fn usage(stats: VolumeStats) -> Vec<csi::VolumeUsage> {
    use csi::volume_usage::Unit;
    let message = |(total, available, used): (u64, u64, u64), unit: Unit| csi::VolumeUsage {
        available: available as i64,
        total: total as i64,
        used: used as i64,
        unit: unit.into(),
    };
    match stats {
        VolumeStats::Block(size) => vec![message((size, 0, 0), Unit::Bytes)],
        VolumeStats::Filesystem(stats) => {
            let mut usage = vec![message(stats.bytes, Unit::Bytes)];
            // btrfs has no number of inodes to run out of.
            if stats.inodes.0 > 0 {
                usage.push(message(stats.inodes, Unit::Inodes));
            }
            usage
        }
    }
}
