//! The orchestrator's side of the plugin's socket.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csi_proto::v1::controller_client::ControllerClient;
use csi_proto::v1::identity_client::IdentityClient;
use csi_proto::v1::node_client::NodeClient;
use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use csi_proto::v1::{
    CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, ListVolumesRequest, NodeGetInfoRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, ProbeRequest,
    VolumeCapability,
};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::Result;
use crate::flocker::VOLUME_SIZE;

/// Calls over one connection.
#[derive(Clone)]
pub(crate) struct Csi {
    identity: IdentityClient<Channel>,
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
}

/// A volume that is staged on this machine.
#[derive(Clone)]
pub(crate) struct Staged {
    volume_id: String,
    staging: PathBuf,
    context: HashMap<String, String>,
    mode: Mode,
}

impl Staged {
    /// Publishes the volume for a single writer from here on, as Kubernetes' `ReadWriteOncePod` does.
    pub(crate) fn for_a_single_writer(self) -> Self {
        Self {
            mode: Mode::SingleNodeSingleWriter,
            ..self
        }
    }

    /// Returns the path at which the plugin has mounted it.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.staging.join(&self.volume_id)
    }
}

impl Csi {
    pub(crate) fn over(channel: Channel) -> Self {
        Self {
            identity: IdentityClient::new(channel.clone()),
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel),
        }
    }

    pub(crate) async fn probe(&mut self) -> Result<()> {
        self.identity.probe(ProbeRequest {}).await?;
        Ok(())
    }

    /// Returns the node that the plugin runs on.
    pub(crate) async fn node_id(&mut self) -> Result<Uuid> {
        let info = self.node.node_get_info(NodeGetInfoRequest {}).await?;
        Ok(info.into_inner().node_id.parse()?)
    }

    /// Makes a volume under a new name and returns its id.
    pub(crate) async fn create(&mut self) -> Result<String> {
        self.create_named(&Uuid::new_v4().to_string()).await
    }

    /// Makes a volume and returns its id.
    pub(crate) async fn create_named(&mut self, name: &str) -> Result<String> {
        let size = i64::try_from(VOLUME_SIZE)?;
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: size,
                limit_bytes: size,
            }),
            volume_capabilities: vec![capability()],
            ..Default::default()
        };
        let volume = self.controller.create_volume(request).await?.into_inner().volume;
        Ok(volume.ok_or("CreateVolume answered without a volume")?.volume_id)
    }

    /// Attaches a volume to a node and returns the publish context.
    pub(crate) async fn attach(&mut self, volume_id: &str, node: Uuid) -> Result<HashMap<String, String>> {
        let request = ControllerPublishVolumeRequest {
            volume_id: volume_id.to_owned(),
            node_id: node.to_string(),
            volume_capability: Some(capability()),
            ..Default::default()
        };
        Ok(self
            .controller
            .controller_publish_volume(request)
            .await?
            .into_inner()
            .publish_context)
    }

    /// Attaches a volume to a node and stages it at a directory, which is created.
    pub(crate) async fn attach_and_stage(
        &mut self,
        volume_id: &str,
        node: Uuid,
        staging: &Path,
    ) -> Result<Staged> {
        std::fs::create_dir_all(staging)?;
        let context = self.attach(volume_id, node).await?;
        self.stage(volume_id, context, staging).await
    }

    /// Stages an attached volume at an existing directory.
    pub(crate) async fn stage(
        &mut self,
        volume_id: &str,
        context: HashMap<String, String>,
        staging: &Path,
    ) -> Result<Staged> {
        let request = NodeStageVolumeRequest {
            volume_id: volume_id.to_owned(),
            publish_context: context.clone(),
            staging_target_path: staging.display().to_string(),
            volume_capability: Some(capability()),
            ..Default::default()
        };
        self.node.node_stage_volume(request).await?;
        Ok(Staged {
            volume_id: volume_id.to_owned(),
            staging: staging.to_owned(),
            context,
            mode: Mode::SingleNodeWriter,
        })
    }

    pub(crate) async fn publish(&mut self, staged: &Staged, target: &Path) -> Result<()> {
        let request = NodePublishVolumeRequest {
            volume_id: staged.volume_id.clone(),
            publish_context: staged.context.clone(),
            staging_target_path: staged.staging.display().to_string(),
            target_path: target.display().to_string(),
            volume_capability: Some(capability_with(staged.mode)),
            ..Default::default()
        };
        self.node.node_publish_volume(request).await?;
        Ok(())
    }

    pub(crate) async fn unpublish(&mut self, staged: &Staged, target: &Path) -> Result<()> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: staged.volume_id.clone(),
            target_path: target.display().to_string(),
        };
        self.node.node_unpublish_volume(request).await?;
        Ok(())
    }

    pub(crate) async fn unstage(&mut self, staged: &Staged) -> Result<()> {
        let request = NodeUnstageVolumeRequest {
            volume_id: staged.volume_id.clone(),
            staging_target_path: staged.staging.display().to_string(),
        };
        self.node.node_unstage_volume(request).await?;
        Ok(())
    }

    /// Detaches a volume from a node.
    pub(crate) async fn detach(&mut self, volume_id: &str, node: Uuid) -> Result<()> {
        let request = ControllerUnpublishVolumeRequest {
            volume_id: volume_id.to_owned(),
            node_id: node.to_string(),
            ..Default::default()
        };
        self.controller.controller_unpublish_volume(request).await?;
        Ok(())
    }

    pub(crate) async fn delete(&mut self, volume_id: &str) -> Result<()> {
        let request = DeleteVolumeRequest {
            volume_id: volume_id.to_owned(),
            ..Default::default()
        };
        self.controller.delete_volume(request).await?;
        Ok(())
    }

    /// Lists all volumes, at most `entries` at a time, and returns the number of volumes and of pages.
    pub(crate) async fn list(&mut self, entries: i32) -> Result<(usize, usize)> {
        let (mut volumes, mut pages, mut token) = (0, 0, String::new());
        loop {
            let request = ListVolumesRequest {
                max_entries: entries,
                starting_token: token,
            };
            let page = self.controller.list_volumes(request).await?.into_inner();
            volumes += page.entries.len();
            pages += 1;
            token = page.next_token;
            if token.is_empty() {
                return Ok((volumes, pages));
            }
        }
    }
}

fn capability() -> VolumeCapability {
    capability_with(Mode::SingleNodeWriter)
}

fn capability_with(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}
