//! `csi.v1.Controller`.

use std::collections::HashMap;

use tonic::{Request, Response, Status};

use super::{Backend, call, request};
use crate::driver::{CapacityQuestion, Driver, Health};
use crate::model::{AccessType, Error, Published, SnapshotRecord, Source, VolumeRecord, parameters};
use crate::proto::csi::{self, controller_server::Controller};

/// The service.
#[derive(Clone, Debug)]
pub struct ControllerService {
    /// Its driver.
    pub backend: Backend,
}

type Answer<T> = Result<Response<T>, Status>;

impl ControllerService {
    fn check_attach(&self) -> Result<(), Status> {
        if self.backend.driver.attach {
            return Ok(());
        }
        Err(Status::unimplemented("volumes are local: attaching is not enabled (--attach)"))
    }

    fn attached_to(&self, record: &VolumeRecord) -> Vec<String> {
        record.attached.iter().map(|_| self.backend.driver.node.clone()).collect()
    }
}

fn timestamp(time: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn volume_message(driver: &Driver, record: &VolumeRecord) -> csi::Volume {
    use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
    let source = record.spec.source.as_ref().map(|source| csi::VolumeContentSource {
        r#type: Some(match source {
            Source::Snapshot(id) => Type::Snapshot(SnapshotSource { snapshot_id: id.to_string() }),
            Source::Volume(id) => Type::Volume(VolumeSource { volume_id: id.to_string() }),
        }),
    });
    csi::Volume {
        capacity_bytes: record.size as i64,
        volume_id: record.id.to_string(),
        volume_context: HashMap::new(),
        content_source: source,
        accessible_topology: vec![csi::Topology { segments: driver.topology().into_iter().collect() }],
    }
}

fn snapshot_message(record: &SnapshotRecord) -> csi::Snapshot {
    csi::Snapshot {
        size_bytes: record.size as i64,
        snapshot_id: record.id.to_string(),
        source_volume_id: record.source.to_string(),
        creation_time: Some(timestamp(record.created)),
        ready_to_use: true,
        group_snapshot_id: String::new(),
        accessible_topology: Vec::new(),
    }
}

pub(super) fn health_message(id: &str, found: Vec<Health>) -> csi::VolumeHealth {
    let entry = |health: Health| csi::volume_health::VolumeHealthEntry {
        status: csi::VolumeHealthErrorType::Inaccessible.into(),
        reason: health.reason.to_owned(),
        message: health.message,
    };
    csi::VolumeHealth { volume_id: id.to_owned(), health_statuses: found.into_iter().map(entry).collect() }
}

/// The words of CSI 1.12 for the same.
pub(super) fn condition_message(found: &[Health]) -> csi::VolumeCondition {
    match found.first() {
        None => csi::VolumeCondition { abnormal: false, message: "the volume is healthy".to_owned() },
        Some(health) => {
            csi::VolumeCondition { abnormal: true, message: format!("{}: {}", health.reason, health.message) }
        }
    }
}

/// Whether this node is among those that are asked for. Nobody asked for any: it is.
fn check_topology(driver: &Driver, requirement: Option<&csi::TopologyRequirement>) -> Result<(), Error> {
    let Some(requirement) = requirement else { return Ok(()) };
    let all: Vec<_> = requirement.requisite.iter().chain(&requirement.preferred).collect();
    if all.is_empty() || all.iter().any(|topology| driver.is_here(&topology.segments)) {
        return Ok(());
    }
    Err(Error::Exhausted(format!(
        "accessibility_requirements: this driver makes volumes on node {:?} and on no other",
        driver.node
    )))
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Answer<csi::CreateVolumeResponse> {
        let request = request.into_inner();
        let volume = call(&self.backend, "CreateVolume", &request.name.clone(), move |driver| {
            let wanted = request::wanted(&request)?;
            check_topology(driver, request.accessibility_requirements.as_ref())?;
            Ok(volume_message(driver, &driver.create_volume(&wanted)?))
        })
        .await?;
        Ok(Response::new(csi::CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Answer<csi::DeleteVolumeResponse> {
        let id = request::required("volume_id", &request.into_inner().volume_id)?;
        call(&self.backend, "DeleteVolume", &id.clone(), move |driver| driver.delete_volume(&id)).await?;
        Ok(Response::new(csi::DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Answer<csi::ControllerPublishVolumeResponse> {
        self.check_attach()?;
        let request = request.into_inner();
        let id = request::required("volume_id", &request.volume_id)?;
        let node = request::required("node_id", &request.node_id)?;
        let capability = request::capability(request.volume_capability.as_ref())?;
        let how = Published { readonly: request.readonly, capability };
        call(&self.backend, "ControllerPublishVolume", &id.clone(), move |driver| {
            driver.attach(&id, &node, &how)
        })
        .await?;
        Ok(Response::new(csi::ControllerPublishVolumeResponse { publish_context: HashMap::new() }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Answer<csi::ControllerUnpublishVolumeResponse> {
        self.check_attach()?;
        let request = request.into_inner();
        let id = request::required("volume_id", &request.volume_id)?;
        call(&self.backend, "ControllerUnpublishVolume", &id.clone(), move |driver| {
            driver.detach(&id, &request.node_id)
        })
        .await?;
        Ok(Response::new(csi::ControllerUnpublishVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<csi::ValidateVolumeCapabilitiesResponse> {
        use csi::validate_volume_capabilities_response::Confirmed;
        let request = request.into_inner();
        let id = request::required("volume_id", &request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(Error::Missing("volume_capabilities").into());
        }
        let record = self.backend.driver.volume(&id)?;
        let unsupported = request::capabilities(&request.volume_capabilities)
            .and_then(|list| list.iter().try_for_each(|one| fits(&record, &one.access)))
            .and_then(|()| parameters::mutable(&request.mutable_parameters));
        Ok(Response::new(match unsupported {
            Ok(()) => csi::ValidateVolumeCapabilitiesResponse {
                confirmed: Some(Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: request.mutable_parameters,
                }),
                message: String::new(),
            },
            Err(error) => {
                csi::ValidateVolumeCapabilitiesResponse { confirmed: None, message: error.to_string() }
            }
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Answer<csi::ListVolumesResponse> {
        use csi::list_volumes_response::{Entry, VolumeStatus};
        let request = request.into_inner();
        let (page, next_token) = request::page(
            self.backend.driver.volumes(),
            request.max_entries,
            &request.starting_token,
            |record| record.id.to_string(),
        )?;
        let entry = |record: VolumeRecord| Entry {
            volume: Some(volume_message(&self.backend.driver, &record)),
            status: Some(VolumeStatus {
                published_node_ids: self.attached_to(&record),
                volume_condition: Some(condition_message(
                    &self.backend.driver.health(&record.id.to_string()).unwrap_or_default(),
                )),
            }),
        };
        let entries = page.into_iter().map(entry).collect();
        Ok(Response::new(csi::ListVolumesResponse { entries, next_token }))
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<csi::ControllerListVolumeHealthRequest>,
    ) -> Answer<csi::ControllerListVolumeHealthResponse> {
        let request = request.into_inner();
        let (page, next_token) = request::page(
            self.backend.driver.unwell(),
            request.max_entries,
            &request.starting_token,
            |health| health.volume.clone(),
        )?;
        let entries = page.into_iter().map(|one| health_message(&one.volume.clone(), vec![one])).collect();
        Ok(Response::new(csi::ControllerListVolumeHealthResponse { entries, next_token }))
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<csi::ControllerGetVolumeHealthRequest>,
    ) -> Answer<csi::ControllerGetVolumeHealthResponse> {
        let id = request::required("volume_id", &request.into_inner().volume_id)?;
        let volume_health = Some(health_message(&id, self.backend.driver.health(&id)?));
        Ok(Response::new(csi::ControllerGetVolumeHealthResponse { volume_health }))
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Answer<csi::GetCapacityResponse> {
        let request = request.into_inner();
        let answer = call(&self.backend, "GetCapacity", "", move |driver| {
            if request.accessible_topology.is_some_and(|topology| !driver.is_here(&topology.segments)) {
                return Ok(crate::driver::CapacityAnswer::default());
            }
            let capabilities = match request.volume_capabilities.as_slice() {
                [] => Vec::new(),
                some => request::capabilities(some)?,
            };
            let parameters = request::class(&request.parameters)?;
            driver.capacity(&CapacityQuestion { capabilities, parameters })
        })
        .await?;
        Ok(Response::new(csi::GetCapacityResponse {
            available_capacity: answer.available as i64,
            maximum_volume_size: Some(answer.available as i64),
            minimum_volume_size: Some(answer.minimum as i64),
        }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Answer<csi::ControllerGetCapabilitiesResponse> {
        use csi::controller_service_capability::{Rpc, Type, rpc::Type as Kind};
        let attaching =
            [Kind::PublishUnpublishVolume, Kind::PublishReadonly, Kind::ListVolumesPublishedNodes];
        let capabilities = [
            Kind::CreateDeleteVolume,
            Kind::ListVolumes,
            Kind::GetCapacity,
            Kind::CreateDeleteSnapshot,
            Kind::ListSnapshots,
            Kind::CloneVolume,
            Kind::ExpandVolume,
            Kind::VolumeCondition,
            Kind::GetVolume,
            Kind::SingleNodeMultiWriter,
            Kind::GetSnapshot,
            Kind::GetVolumeHealth,
            Kind::ListVolumeHealth,
        ]
        .into_iter()
        .chain(attaching.into_iter().filter(|_| self.backend.driver.attach))
        .map(|kind| csi::ControllerServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })) })
        .collect();
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Answer<csi::CreateSnapshotResponse> {
        let request = request.into_inner();
        let record = call(&self.backend, "CreateSnapshot", &request.name.clone(), move |driver| {
            driver.create_snapshot(&request::snapshot(&request)?)
        })
        .await?;
        Ok(Response::new(csi::CreateSnapshotResponse { snapshot: Some(snapshot_message(&record)) }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Answer<csi::DeleteSnapshotResponse> {
        let id = request::required("snapshot_id", &request.into_inner().snapshot_id)?;
        call(&self.backend, "DeleteSnapshot", &id.clone(), move |driver| driver.delete_snapshot(&id)).await?;
        Ok(Response::new(csi::DeleteSnapshotResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<csi::ListSnapshotsRequest>,
    ) -> Answer<csi::ListSnapshotsResponse> {
        let request = request.into_inner();
        let wanted = |record: &SnapshotRecord| {
            let is = |filter: &str, id: String| filter.is_empty() || filter == id;
            is(&request.snapshot_id, record.id.to_string())
                && is(&request.source_volume_id, record.source.to_string())
        };
        let all: Vec<_> = self.backend.driver.snapshots().into_iter().filter(wanted).collect();
        let (page, next_token) =
            request::page(all, request.max_entries, &request.starting_token, |record| record.id.to_string())?;
        let entry = |record: &SnapshotRecord| csi::list_snapshots_response::Entry {
            snapshot: Some(snapshot_message(record)),
        };
        Ok(Response::new(csi::ListSnapshotsResponse {
            entries: page.iter().map(entry).collect(),
            next_token,
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<csi::GetSnapshotRequest>,
    ) -> Answer<csi::GetSnapshotResponse> {
        let id = request::required("snapshot_id", &request.into_inner().snapshot_id)?;
        let snapshot = Some(snapshot_message(&self.backend.driver.snapshot(&id)?));
        Ok(Response::new(csi::GetSnapshotResponse { snapshot }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Answer<csi::ControllerExpandVolumeResponse> {
        let request = request.into_inner();
        let id = request::required("volume_id", &request.volume_id)?;
        let (size, node_expansion_required) =
            call(&self.backend, "ControllerExpandVolume", &id.clone(), move |driver| {
                driver.controller_expand(&id, request::range(request.capacity_range.as_ref())?)
            })
            .await?;
        Ok(Response::new(csi::ControllerExpandVolumeResponse {
            capacity_bytes: size as i64,
            node_expansion_required,
        }))
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Answer<csi::ControllerGetVolumeResponse> {
        let id = request::required("volume_id", &request.into_inner().volume_id)?;
        let record = self.backend.driver.volume(&id)?;
        let status = csi::controller_get_volume_response::VolumeStatus {
            published_node_ids: self.attached_to(&record),
            volume_condition: Some(condition_message(&self.backend.driver.health(&id)?)),
        };
        Ok(Response::new(csi::ControllerGetVolumeResponse {
            volume: Some(volume_message(&self.backend.driver, &record)),
            status: Some(status),
        }))
    }

    async fn controller_modify_volume(
        &self,
        _: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Answer<csi::ControllerModifyVolumeResponse> {
        Err(Status::unimplemented("this driver has no mutable parameters yet"))
    }
}

fn fits(record: &VolumeRecord, access: &AccessType) -> Result<(), Error> {
    let fits = match (access, record.spec.filesystem) {
        (AccessType::Block, has) => has.is_none(),
        (AccessType::Mount { fs, .. }, Some(has)) => fs.is_none_or(|fs| fs == has),
        (AccessType::Mount { .. }, None) => false,
    };
    if fits {
        return Ok(());
    }
    let has = record.spec.filesystem.map_or("a block volume".to_owned(), |fs| format!("a volume with {fs}"));
    Err(Error::invalid("volume_capabilities", format!("{} is {has}", record.id)))
}
