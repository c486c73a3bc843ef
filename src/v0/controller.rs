//! The Controller service. Where `csi.v1` echoes what it confirms, `csi.v0` answers whether it is supported.

use csi_proto::v0::controller_server::Controller;
use csi_proto::v0::controller_service_capability::{Rpc, Type, rpc};
use csi_proto::v0::{
    CapacityRange, ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerPublishVolumeRequest, ControllerPublishVolumeResponse, ControllerServiceCapability,
    ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse, CreateSnapshotRequest,
    CreateSnapshotResponse, CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest,
    DeleteSnapshotResponse, DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest,
    GetCapacityResponse, ListSnapshotsRequest, ListSnapshotsResponse, ListVolumesRequest,
    ListVolumesResponse, ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse, Volume,
    list_volumes_response,
};
use csi_proto::v1;
use tonic::{Request, Response, Status};

use super::Facade;
use super::convert::{capabilities, capability, requirement, source, topology, topology_back};
use crate::csi::status::unimplemented;

#[tonic::async_trait]
impl<S: v1::controller_server::Controller> Controller for Facade<S> {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let answer = self.v1.create_volume(request.map(to_create)).await?;
        Ok(answer.map(|answer| CreateVolumeResponse {
            volume: answer.volume.map(volume),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let answer = self.v1.delete_volume(request.map(to_delete)).await?;
        Ok(answer.map(|v1::DeleteVolumeResponse {}| DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let answer = self.v1.controller_publish_volume(request.map(to_publish)).await?;
        Ok(answer.map(|answer| ControllerPublishVolumeResponse {
            publish_info: answer.publish_context,
        }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let answer = self
            .v1
            .controller_unpublish_volume(request.map(to_unpublish))
            .await?;
        Ok(answer.map(|v1::ControllerUnpublishVolumeResponse {}| ControllerUnpublishVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let answer = self
            .v1
            .validate_volume_capabilities(request.map(to_validate))
            .await?;
        Ok(answer.map(|answer| ValidateVolumeCapabilitiesResponse {
            supported: answer.confirmed.is_some(),
            message: answer.message,
        }))
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let request = request.map(|request| v1::ListVolumesRequest {
            max_entries: request.max_entries,
            starting_token: request.starting_token,
        });
        let answer = self.v1.list_volumes(request).await?;
        Ok(answer.map(list))
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let request = request.map(|request| v1::GetCapacityRequest {
            volume_capabilities: capabilities(request.volume_capabilities),
            parameters: request.parameters,
            accessible_topology: request.accessible_topology.map(topology),
        });
        let answer = self.v1.get_capacity(request).await?;
        Ok(answer.map(|answer| GetCapacityResponse {
            available_capacity: answer.available_capacity,
        }))
    }

    async fn controller_get_capabilities(
        &self,
        request: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let request =
            request.map(|ControllerGetCapabilitiesRequest {}| v1::ControllerGetCapabilitiesRequest {});
        let answer = self.v1.controller_get_capabilities(request).await?;
        Ok(answer.map(|answer| ControllerGetCapabilitiesResponse {
            capabilities: answer
                .capabilities
                .into_iter()
                .filter_map(translate_capability)
                .collect(),
        }))
    }

    async fn create_snapshot(
        &self,
        _request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        unimplemented("CreateSnapshot")
    }

    async fn delete_snapshot(
        &self,
        _request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        unimplemented("DeleteSnapshot")
    }

    async fn list_snapshots(
        &self,
        _request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        unimplemented("ListSnapshots")
    }
}

fn to_create(request: CreateVolumeRequest) -> v1::CreateVolumeRequest {
    v1::CreateVolumeRequest {
        name: request.name,
        capacity_range: request.capacity_range.map(
            |CapacityRange {
                 required_bytes,
                 limit_bytes,
             }| v1::CapacityRange {
                required_bytes,
                limit_bytes,
            },
        ),
        volume_capabilities: capabilities(request.volume_capabilities),
        parameters: request.parameters,
        secrets: request.controller_create_secrets,
        volume_content_source: request.volume_content_source.map(source),
        accessibility_requirements: request.accessibility_requirements.map(requirement),
        mutable_parameters: [].into(),
    }
}

fn to_delete(request: DeleteVolumeRequest) -> v1::DeleteVolumeRequest {
    v1::DeleteVolumeRequest {
        volume_id: request.volume_id,
        secrets: request.controller_delete_secrets,
    }
}

fn to_publish(request: ControllerPublishVolumeRequest) -> v1::ControllerPublishVolumeRequest {
    v1::ControllerPublishVolumeRequest {
        volume_id: request.volume_id,
        node_id: request.node_id,
        volume_capability: request.volume_capability.map(capability),
        readonly: request.readonly,
        secrets: request.controller_publish_secrets,
        volume_context: request.volume_attributes,
    }
}

fn to_unpublish(request: ControllerUnpublishVolumeRequest) -> v1::ControllerUnpublishVolumeRequest {
    v1::ControllerUnpublishVolumeRequest {
        volume_id: request.volume_id,
        node_id: request.node_id,
        secrets: request.controller_unpublish_secrets,
    }
}

/// Translates the one request whose fields have other numbers in the two versions; this version has no parameters.
fn to_validate(request: ValidateVolumeCapabilitiesRequest) -> v1::ValidateVolumeCapabilitiesRequest {
    v1::ValidateVolumeCapabilitiesRequest {
        volume_id: request.volume_id,
        volume_capabilities: capabilities(request.volume_capabilities),
        volume_context: request.volume_attributes,
        ..Default::default()
    }
}

fn volume(volume: v1::Volume) -> Volume {
    Volume {
        capacity_bytes: volume.capacity_bytes,
        id: volume.volume_id,
        attributes: volume.volume_context,
        // Flocker cannot create a volume from a content source.
        content_source: None,
        accessible_topology: volume
            .accessible_topology
            .into_iter()
            .map(topology_back)
            .collect(),
    }
}

fn list(answer: v1::ListVolumesResponse) -> ListVolumesResponse {
    let entry = |entry: v1::list_volumes_response::Entry| list_volumes_response::Entry {
        volume: entry.volume.map(volume),
    };
    ListVolumesResponse {
        entries: answer.entries.into_iter().map(entry).collect(),
        next_token: answer.next_token,
    }
}

/// Translates a capability; returns `None` for one that this version does not have. The numbers are the same.
fn translate_capability(capability: v1::ControllerServiceCapability) -> Option<ControllerServiceCapability> {
    let v1::controller_service_capability::Type::Rpc(rpc) = capability.r#type?;
    let number = rpc::Type::try_from(rpc.r#type).ok()?;
    Some(ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc {
            r#type: number.into(),
        })),
    })
}

#[cfg(test)]
mod tests {
    use csi_proto::v0::{Topology, TopologyRequirement, VolumeContentSource};

    use super::super::convert::testing::{map, mount_capability, reads_as};
    use super::*;

    #[test]
    fn every_field_of_a_request_is_translated() {
        let create = CreateVolumeRequest {
            name: "name".to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: 1,
                limit_bytes: 2,
            }),
            volume_capabilities: vec![mount_capability()],
            parameters: map("profile"),
            controller_create_secrets: map("secret"),
            volume_content_source: Some(VolumeContentSource::default()),
            accessibility_requirements: Some(TopologyRequirement {
                requisite: vec![Topology {
                    segments: map("zone"),
                }],
                preferred: vec![],
            }),
        };
        assert_eq!(to_create(create.clone()), reads_as(&create));
        let delete = DeleteVolumeRequest {
            volume_id: "id".to_owned(),
            controller_delete_secrets: map("secret"),
        };
        assert_eq!(to_delete(delete.clone()), reads_as(&delete));
        let publish = ControllerPublishVolumeRequest {
            volume_id: "id".to_owned(),
            node_id: "node".to_owned(),
            volume_capability: Some(mount_capability()),
            readonly: true,
            controller_publish_secrets: map("secret"),
            volume_attributes: map("attribute"),
        };
        assert_eq!(to_publish(publish.clone()), reads_as(&publish));
        let unpublish = ControllerUnpublishVolumeRequest {
            volume_id: "id".to_owned(),
            node_id: "node".to_owned(),
            controller_unpublish_secrets: map("secret"),
        };
        assert_eq!(to_unpublish(unpublish.clone()), reads_as(&unpublish));
        let validate = ValidateVolumeCapabilitiesRequest {
            volume_id: "id".to_owned(),
            volume_capabilities: vec![mount_capability()],
            volume_attributes: map("attribute"),
            accessible_topology: vec![Topology::default()],
        };
        let expected = v1::ValidateVolumeCapabilitiesRequest {
            volume_id: "id".to_owned(),
            volume_capabilities: vec![capability(mount_capability())],
            volume_context: map("attribute"),
            ..Default::default()
        };
        assert_eq!(to_validate(validate), expected);
    }

    #[test]
    fn every_field_of_a_volume_is_translated() {
        let v1_volume = v1::Volume {
            capacity_bytes: 1 << 30,
            volume_id: "id".to_owned(),
            volume_context: map("attribute"),
            content_source: None,
            accessible_topology: vec![v1::Topology {
                segments: map("zone"),
            }],
        };
        assert_eq!(volume(v1_volume.clone()), reads_as(&v1_volume));
        let listed = v1::ListVolumesResponse {
            entries: vec![v1::list_volumes_response::Entry {
                volume: Some(v1_volume),
                status: None,
            }],
            next_token: "token".to_owned(),
        };
        assert_eq!(list(listed.clone()), reads_as(&listed));
    }
}
