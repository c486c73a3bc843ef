//! Callers that use `csi.v0`, alone and beside callers of `csi.v1`.

mod alike;
mod announced;
mod life;
mod mixed;
mod timeouts;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use csi_proto::v0::controller_client::ControllerClient;
use csi_proto::v0::identity_client::IdentityClient;
use csi_proto::v0::node_client::NodeClient;
use csi_proto::v0::volume_capability::access_mode::Mode;
use csi_proto::v0::volume_capability::{AccessMode, AccessType, MountVolume};
use csi_proto::v0::{
    CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, Volume, VolumeCapability,
};
use tonic::transport::Channel;
use tonic::{IntoRequest, Status};
use uuid::Uuid;

use crate::support::csi::{Csi, Usage};

const SMALLEST: i64 = 64 << 20;

/// A caller that supports only `csi.v0`.
#[derive(Clone)]
struct Old(Channel);

impl Old {
    /// Calls over the connection of a caller of `csi.v1`.
    fn beside(csi: &Csi) -> Self {
        Self(csi.channel())
    }

    fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.0.clone())
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.0.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.0.clone())
    }

    async fn create(&self, request: impl IntoRequest<CreateVolumeRequest>) -> Result<Volume, Status> {
        let created = self.controller().create_volume(request).await?;
        Ok(created.into_inner().volume.unwrap())
    }

    async fn delete(&self, volume: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest {
            volume_id: volume.to_owned(),
            ..Default::default()
        };
        self.controller().delete_volume(request).await.map(drop)
    }

    /// Attaches a volume to a node and returns the publish context.
    async fn attach(&self, volume: &str, node: Uuid) -> Result<HashMap<String, String>, Status> {
        let attached = self
            .controller()
            .controller_publish_volume(to_attach(volume, node))
            .await?;
        Ok(attached.into_inner().publish_info)
    }

    async fn detach(&self, volume: &str, node: Uuid) -> Result<(), Status> {
        let request = ControllerUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            node_id: node.to_string(),
            ..Default::default()
        };
        let detached = self.controller().controller_unpublish_volume(request).await;
        detached.map(drop)
    }

    async fn stage(&self, usage: &Usage) -> Result<(), Status> {
        self.node().node_stage_volume(to_stage(usage)).await.map(drop)
    }

    async fn unstage(&self, usage: &Usage) -> Result<(), Status> {
        let request = NodeUnstageVolumeRequest {
            volume_id: usage.volume_id.clone(),
            staging_target_path: text(&usage.staging),
        };
        self.node().node_unstage_volume(request).await.map(drop)
    }

    async fn publish(&self, usage: &Usage) -> Result<(), Status> {
        self.node().node_publish_volume(to_publish(usage)).await.map(drop)
    }

    async fn unpublish(&self, usage: &Usage) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: usage.volume_id.clone(),
            target_path: text(&usage.target),
        };
        self.node().node_unpublish_volume(request).await.map(drop)
    }
}

/// Asks for a volume of the smallest size.
fn to_create(name: &str) -> CreateVolumeRequest {
    let exactly = CapacityRange {
        required_bytes: SMALLEST,
        limit_bytes: SMALLEST,
    };
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(exactly),
        volume_capabilities: vec![capability(Mode::SingleNodeWriter, &[])],
        ..Default::default()
    }
}

fn to_attach(volume: &str, node: Uuid) -> ControllerPublishVolumeRequest {
    ControllerPublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_string(),
        volume_capability: Some(capability(Mode::SingleNodeWriter, &[])),
        ..Default::default()
    }
}

fn to_stage(usage: &Usage) -> NodeStageVolumeRequest {
    NodeStageVolumeRequest {
        volume_id: usage.volume_id.clone(),
        publish_info: usage.publish_context.clone(),
        staging_target_path: text(&usage.staging),
        volume_capability: Some(capability(Mode::SingleNodeWriter, &[])),
        ..Default::default()
    }
}

fn to_publish(usage: &Usage) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: usage.volume_id.clone(),
        publish_info: usage.publish_context.clone(),
        staging_target_path: text(&usage.staging),
        target_path: text(&usage.target),
        volume_capability: Some(capability(Mode::SingleNodeWriter, &[])),
        readonly: usage.readonly,
        ..Default::default()
    }
}

fn capability(mode: Mode, flags: &[&str]) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: "ext4".to_owned(),
        mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Checks that a directory exists and is empty.
#[track_caller]
fn assert_empty(directory: &Path) {
    let entries: Vec<_> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .collect();
    assert!(entries.is_empty(), "{entries:?}");
}
