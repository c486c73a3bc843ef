//! The Node service. In `csi.v0` the orchestrator makes the target directory, and the plugin never removes it.

use csi_proto::v0::node_server::Node;
use csi_proto::v0::node_service_capability::{Rpc, Type, rpc};
use csi_proto::v0::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetIdRequest, NodeGetIdResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodePublishVolumeRequest, NodePublishVolumeResponse,
    NodeServiceCapability, NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};
use csi_proto::v1;
use tonic::{Request, Response, Status};

use super::Facade;
use super::convert::{capability, topology_back};
use crate::node::TargetDirectory;

#[tonic::async_trait]
impl<S: v1::node_server::Node> Node for Facade<S> {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let answer = self.v1.node_stage_volume(request.map(to_stage)).await?;
        Ok(answer.map(|v1::NodeStageVolumeResponse {}| NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.map(|request| v1::NodeUnstageVolumeRequest {
            volume_id: request.volume_id,
            staging_target_path: request.staging_target_path,
        });
        let answer = self.v1.node_unstage_volume(request).await?;
        Ok(answer.map(|v1::NodeUnstageVolumeResponse {}| NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let mut request = request.map(to_publish);
        request.extensions_mut().insert(TargetDirectory::Orchestrators);
        let answer = self.v1.node_publish_volume(request).await?;
        Ok(answer.map(|v1::NodePublishVolumeResponse {}| NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let mut request = request.map(|request| v1::NodeUnpublishVolumeRequest {
            volume_id: request.volume_id,
            target_path: request.target_path,
        });
        request.extensions_mut().insert(TargetDirectory::Orchestrators);
        let answer = self.v1.node_unpublish_volume(request).await?;
        Ok(answer.map(|v1::NodeUnpublishVolumeResponse {}| NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_id(
        &self,
        request: Request<NodeGetIdRequest>,
    ) -> Result<Response<NodeGetIdResponse>, Status> {
        let request = request.map(|NodeGetIdRequest {}| v1::NodeGetInfoRequest {});
        let answer = self.v1.node_get_info(request).await?;
        Ok(answer.map(|info| NodeGetIdResponse {
            node_id: info.node_id,
        }))
    }

    async fn node_get_capabilities(
        &self,
        request: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let request = request.map(|NodeGetCapabilitiesRequest {}| v1::NodeGetCapabilitiesRequest {});
        let answer = self.v1.node_get_capabilities(request).await?;
        Ok(answer.map(|answer| NodeGetCapabilitiesResponse {
            capabilities: answer
                .capabilities
                .into_iter()
                .filter_map(translate_capability)
                .collect(),
        }))
    }

    async fn node_get_info(
        &self,
        request: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let request = request.map(|NodeGetInfoRequest {}| v1::NodeGetInfoRequest {});
        let answer = self.v1.node_get_info(request).await?;
        Ok(answer.map(info))
    }
}

fn to_stage(request: NodeStageVolumeRequest) -> v1::NodeStageVolumeRequest {
    v1::NodeStageVolumeRequest {
        volume_id: request.volume_id,
        publish_context: request.publish_info,
        staging_target_path: request.staging_target_path,
        volume_capability: request.volume_capability.map(capability),
        secrets: request.node_stage_secrets,
        volume_context: request.volume_attributes,
    }
}

fn to_publish(request: NodePublishVolumeRequest) -> v1::NodePublishVolumeRequest {
    v1::NodePublishVolumeRequest {
        volume_id: request.volume_id,
        publish_context: request.publish_info,
        staging_target_path: request.staging_target_path,
        target_path: request.target_path,
        volume_capability: request.volume_capability.map(capability),
        readonly: request.readonly,
        secrets: request.node_publish_secrets,
        volume_context: request.volume_attributes,
    }
}

fn info(info: v1::NodeGetInfoResponse) -> NodeGetInfoResponse {
    NodeGetInfoResponse {
        node_id: info.node_id,
        max_volumes_per_node: info.max_volumes_per_node,
        accessible_topology: info.accessible_topology.map(topology_back),
    }
}

/// Translates a capability; returns `None` for one that this version does not have. The numbers are the same.
fn translate_capability(capability: v1::NodeServiceCapability) -> Option<NodeServiceCapability> {
    let v1::node_service_capability::Type::Rpc(rpc) = capability.r#type?;
    let number = rpc::Type::try_from(rpc.r#type).ok()?;
    Some(NodeServiceCapability {
        r#type: Some(Type::Rpc(Rpc {
            r#type: number.into(),
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::super::convert::testing::{map, mount_capability, reads_as};
    use super::*;

    #[test]
    fn every_field_of_a_request_and_of_an_answer_is_translated() {
        let stage = NodeStageVolumeRequest {
            volume_id: "id".to_owned(),
            publish_info: map("info"),
            staging_target_path: "/staging".to_owned(),
            volume_capability: Some(mount_capability()),
            node_stage_secrets: map("secret"),
            volume_attributes: map("attribute"),
        };
        assert_eq!(to_stage(stage.clone()), reads_as(&stage));
        let publish = NodePublishVolumeRequest {
            volume_id: "id".to_owned(),
            publish_info: map("info"),
            staging_target_path: "/staging".to_owned(),
            target_path: "/target".to_owned(),
            volume_capability: Some(mount_capability()),
            readonly: true,
            node_publish_secrets: map("secret"),
            volume_attributes: map("attribute"),
        };
        assert_eq!(to_publish(publish.clone()), reads_as(&publish));
        let v1_info = v1::NodeGetInfoResponse {
            node_id: "node".to_owned(),
            max_volumes_per_node: 21,
            accessible_topology: Some(v1::Topology {
                segments: map("zone"),
            }),
        };
        assert_eq!(info(v1_info.clone()), reads_as(&v1_info));
    }
}
