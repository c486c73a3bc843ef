//! The capabilities of the controller. csi-sanity chooses its specs by them.

use csi_proto::v1::controller_service_capability::rpc::Type as RpcType;
use csi_proto::v1::controller_service_capability::{Rpc, Type};
use csi_proto::v1::{ControllerGetCapabilitiesResponse, ControllerServiceCapability};

/// `PUBLISH_READONLY` is missing on purpose: a lease cannot store it, so a second publication with another value would
/// look like a repeated call.
const ANNOUNCED: [RpcType; 8] = [
    RpcType::CreateDeleteVolume,
    RpcType::PublishUnpublishVolume,
    RpcType::ListVolumes,
    RpcType::ListVolumesPublishedNodes,
    RpcType::GetCapacity,
    RpcType::GetVolume,
    RpcType::VolumeCondition,
    RpcType::SingleNodeMultiWriter,
];

/// Returns the answer to `ControllerGetCapabilities`, which is always the same.
pub(super) fn controller_get_capabilities() -> ControllerGetCapabilitiesResponse {
    let capability = |rpc: RpcType| ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })),
    };
    ControllerGetCapabilitiesResponse {
        capabilities: ANNOUNCED.map(capability).to_vec(),
    }
}
