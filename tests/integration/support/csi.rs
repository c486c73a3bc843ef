//! An orchestrator's side of the socket.

use std::collections::HashMap;
use std::path::PathBuf;

use csi_proto::v1::controller_client::ControllerClient;
use csi_proto::v1::identity_client::IdentityClient;
use csi_proto::v1::node_client::NodeClient;
use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use csi_proto::v1::{
    CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use flocker_csi::config::Endpoint;
use tonic::transport::Channel;
use tonic::{IntoRequest, Request, Status};
use uuid::Uuid;

const SMALLEST: i64 = 64 << 20;

/// A connection to a plugin.
#[derive(Clone)]
pub(crate) struct Csi(Channel);

impl Csi {
    pub(crate) async fn connect(endpoint: &Endpoint) -> Self {
        let endpoint = tonic::transport::Endpoint::from_shared(endpoint.to_string()).unwrap();
        Self(endpoint.connect().await.unwrap())
    }

    /// Returns the connection itself, for clients of another version.
    pub(crate) fn channel(&self) -> Channel {
        self.0.clone()
    }

    pub(crate) fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.0.clone())
    }

    pub(crate) fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.0.clone())
    }

    pub(crate) fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.0.clone())
    }

    /// Creates a volume of the smallest size and returns its id.
    pub(crate) async fn create(&self, name: &str) -> Uuid {
        self.try_create(to_create(name)).await.unwrap()
    }

    pub(crate) async fn try_create(
        &self,
        request: impl IntoRequest<CreateVolumeRequest>,
    ) -> Result<Uuid, Status> {
        let created = self.controller().create_volume(request).await?;
        Ok(created.into_inner().volume.unwrap().volume_id.parse().unwrap())
    }

    pub(crate) async fn delete(&self, volume: Uuid) -> Result<(), Status> {
        let request = DeleteVolumeRequest {
            volume_id: volume.to_string(),
            ..Default::default()
        };
        self.controller().delete_volume(request).await.map(drop)
    }

    /// Attaches a volume to a node and returns the publish context.
    pub(crate) async fn attach(&self, volume: Uuid, node: Uuid) -> HashMap<String, String> {
        self.try_attach(to_attach(volume, node)).await.unwrap()
    }

    pub(crate) async fn try_attach(
        &self,
        request: impl IntoRequest<ControllerPublishVolumeRequest>,
    ) -> Result<HashMap<String, String>, Status> {
        let attached = self.controller().controller_publish_volume(request).await?;
        Ok(attached.into_inner().publish_context)
    }

    pub(crate) async fn detach(&self, volume: Uuid, node: Uuid) {
        self.try_detach(to_detach(volume, node)).await.unwrap();
    }

    pub(crate) async fn try_detach(
        &self,
        request: impl IntoRequest<ControllerUnpublishVolumeRequest>,
    ) -> Result<(), Status> {
        self.controller()
            .controller_unpublish_volume(request)
            .await
            .map(drop)
    }

    pub(crate) async fn stage(&self, usage: &Usage) -> Result<(), Status> {
        self.node().node_stage_volume(usage.to_stage()).await.map(drop)
    }

    pub(crate) async fn unstage(&self, usage: &Usage) -> Result<(), Status> {
        self.node()
            .node_unstage_volume(usage.to_unstage())
            .await
            .map(drop)
    }

    pub(crate) async fn publish(&self, usage: &Usage) -> Result<(), Status> {
        self.node()
            .node_publish_volume(usage.to_publish())
            .await
            .map(drop)
    }

    pub(crate) async fn unpublish(&self, usage: &Usage) -> Result<(), Status> {
        self.node()
            .node_unpublish_volume(usage.to_unpublish())
            .await
            .map(drop)
    }

    pub(crate) async fn stats(&self, usage: &Usage) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: usage.volume_id.clone(),
            volume_path: text(&usage.target),
            ..Default::default()
        };
        let stats = self.node().node_get_volume_stats(request).await?;
        Ok(stats.into_inner())
    }
}

/// Asks for a volume of the smallest size.
pub(crate) fn to_create(name: &str) -> CreateVolumeRequest {
    let exactly = CapacityRange {
        required_bytes: SMALLEST,
        limit_bytes: SMALLEST,
    };
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(exactly),
        volume_capabilities: vec![capability(Mode::SingleNodeWriter)],
        ..Default::default()
    }
}

pub(crate) fn to_attach(volume: Uuid, node: Uuid) -> ControllerPublishVolumeRequest {
    ControllerPublishVolumeRequest {
        volume_id: volume.to_string(),
        node_id: node.to_string(),
        volume_capability: Some(capability(Mode::SingleNodeWriter)),
        ..Default::default()
    }
}

pub(crate) fn to_detach(volume: Uuid, node: Uuid) -> ControllerUnpublishVolumeRequest {
    ControllerUnpublishVolumeRequest {
        volume_id: volume.to_string(),
        node_id: node.to_string(),
        ..Default::default()
    }
}

/// Makes a request with this deadline.
pub(crate) fn within<T>(timeout: std::time::Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

pub(crate) fn capability(mode: Mode) -> VolumeCapability {
    with_flags(mode, &[])
}

pub(crate) fn with_flags(mode: Mode, flags: &[&str]) -> VolumeCapability {
    let mount = MountVolume {
        mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        ..Default::default()
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

/// The parameters of an orchestrator's calls for a volume on one node.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) volume_id: String,
    /// The publish context; empty if the volume was not attached.
    pub(crate) publish_context: HashMap<String, String>,
    /// The volume context.
    pub(crate) volume_context: HashMap<String, String>,
    pub(crate) staging: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) capability: VolumeCapability,
    pub(crate) readonly: bool,
}

impl Usage {
    pub(crate) fn dataset(&self) -> Uuid {
        self.volume_id.parse().unwrap()
    }

    /// Returns where the plugin mounts the volume.
    pub(crate) fn alias(&self) -> PathBuf {
        self.staging.join(&self.volume_id)
    }

    pub(crate) fn to_stage(&self) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: self.volume_id.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: text(&self.staging),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.volume_context.clone(),
            ..Default::default()
        }
    }

    pub(crate) fn to_unstage(&self) -> NodeUnstageVolumeRequest {
        NodeUnstageVolumeRequest {
            volume_id: self.volume_id.clone(),
            staging_target_path: text(&self.staging),
        }
    }

    pub(crate) fn to_publish(&self) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: self.volume_id.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: text(&self.staging),
            target_path: text(&self.target),
            volume_capability: Some(self.capability.clone()),
            readonly: self.readonly,
            volume_context: self.volume_context.clone(),
            ..Default::default()
        }
    }

    pub(crate) fn to_unpublish(&self) -> NodeUnpublishVolumeRequest {
        NodeUnpublishVolumeRequest {
            volume_id: self.volume_id.clone(),
            target_path: text(&self.target),
        }
    }
}

fn text(path: &std::path::Path) -> String {
    path.to_str().unwrap().to_owned()
}
