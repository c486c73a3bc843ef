//! A minimal orchestrator: calls a plugin over its socket, as Kubernetes or Mesos does.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use csi_proto::v1::controller_client::ControllerClient;
use csi_proto::v1::identity_client::IdentityClient;
use csi_proto::v1::node_client::NodeClient;
use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use csi_proto::v1::{
    CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, GetPluginInfoRequest, ListVolumesRequest, NodeGetVolumeStatsRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    ProbeRequest, Volume, VolumeCapability, VolumeUsage,
};
use tonic::transport::{Channel, Endpoint as ClientEndpoint};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::commands::failure::Failure;
use crate::config::Endpoint;

/// The time that Mesos waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

type Called<T> = Result<T, String>;

/// The orchestrator's connection to one plugin.
#[derive(Clone)]
pub(super) struct Orchestrator {
    channel: Channel,
}

impl Orchestrator {
    /// Prepares to call the plugin at `endpoint`; the first call connects.
    pub(super) fn connect(endpoint: &Endpoint) -> Result<Self, Failure> {
        let client = ClientEndpoint::from_shared(endpoint.to_string())
            .map_err(|error| Failure::while_doing(format!("connect to {endpoint}"), &error))?;
        Ok(Self {
            channel: client.connect_lazy(),
        })
    }

    /// Returns the plugin's name and version once the plugin reports that it is ready.
    pub(super) async fn probe(&self) -> Called<String> {
        let mut identity = IdentityClient::new(self.channel.clone());
        let info = call(
            "GetPluginInfo",
            identity.get_plugin_info(request(GetPluginInfoRequest {})),
        )
        .await?;
        let probe = call("Probe", identity.probe(request(ProbeRequest {}))).await?;
        if probe.ready == Some(false) {
            return Err("Probe answered that the plugin is not ready".to_owned());
        }
        Ok(format!("{} {}", info.name, info.vendor_version))
    }

    /// Creates a volume of exactly that size.
    pub(super) async fn create(&self, name: &str, size: u64) -> Called<Volume> {
        let size = i64::try_from(size).map_err(|error| error.to_string())?;
        let message = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: size,
                limit_bytes: size,
            }),
            volume_capabilities: vec![capability(false)],
            ..Default::default()
        };
        let created = call("CreateVolume", self.controller().create_volume(request(message))).await?;
        created
            .volume
            .ok_or_else(|| "CreateVolume answered without a volume".to_owned())
    }

    /// Deletes a volume.
    pub(super) async fn delete(&self, volume: &str) -> Called<()> {
        let message = DeleteVolumeRequest {
            volume_id: volume.to_owned(),
            ..Default::default()
        };
        call("DeleteVolume", self.controller().delete_volume(request(message)))
            .await
            .map(drop)
    }

    /// Attaches a volume to a node, and returns the publish context for the node.
    pub(super) async fn attach(&self, volume: &str, node: Uuid) -> Called<HashMap<String, String>> {
        let message = ControllerPublishVolumeRequest {
            volume_id: volume.to_owned(),
            node_id: node.to_string(),
            volume_capability: Some(capability(false)),
            ..Default::default()
        };
        let attaching = self
            .controller()
            .controller_publish_volume(request(message))
            .await;
        call("ControllerPublishVolume", async { attaching })
            .await
            .map(|attached| attached.publish_context)
    }

    /// Detaches a volume from a node.
    pub(super) async fn detach(&self, volume: &str, node: Uuid) -> Called<()> {
        let message = ControllerUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            node_id: node.to_string(),
            ..Default::default()
        };
        let mut controller = self.controller();
        call(
            "ControllerUnpublishVolume",
            controller.controller_unpublish_volume(request(message)),
        )
        .await
        .map(drop)
    }

    /// Stages a volume that was attached with `context`.
    pub(super) async fn stage(
        &self,
        volume: &str,
        context: HashMap<String, String>,
        staging: &Path,
    ) -> Called<()> {
        let message = NodeStageVolumeRequest {
            volume_id: volume.to_owned(),
            publish_context: context,
            staging_target_path: text(staging),
            volume_capability: Some(capability(false)),
            ..Default::default()
        };
        call("NodeStageVolume", self.node().node_stage_volume(request(message)))
            .await
            .map(drop)
    }

    /// Unstages a volume.
    pub(super) async fn unstage(&self, volume: &str, staging: &Path) -> Called<()> {
        let message = NodeUnstageVolumeRequest {
            volume_id: volume.to_owned(),
            staging_target_path: text(staging),
        };
        call(
            "NodeUnstageVolume",
            self.node().node_unstage_volume(request(message)),
        )
        .await
        .map(drop)
    }

    /// Publishes a staged volume.
    pub(super) async fn publish(
        &self,
        volume: &str,
        context: HashMap<String, String>,
        staging: &Path,
        target: &Path,
        readonly: bool,
    ) -> Called<()> {
        let message = NodePublishVolumeRequest {
            volume_id: volume.to_owned(),
            publish_context: context,
            staging_target_path: text(staging),
            target_path: text(target),
            volume_capability: Some(capability(readonly)),
            readonly,
            ..Default::default()
        };
        call(
            "NodePublishVolume",
            self.node().node_publish_volume(request(message)),
        )
        .await
        .map(drop)
    }

    /// Unpublishes a volume from a target.
    pub(super) async fn unpublish(&self, volume: &str, target: &Path) -> Called<()> {
        let message = NodeUnpublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: text(target),
        };
        call(
            "NodeUnpublishVolume",
            self.node().node_unpublish_volume(request(message)),
        )
        .await
        .map(drop)
    }

    /// Returns the usage of a published volume.
    pub(super) async fn stats(&self, volume: &str, target: &Path) -> Called<Vec<VolumeUsage>> {
        let message = NodeGetVolumeStatsRequest {
            volume_id: volume.to_owned(),
            volume_path: text(target),
            ..Default::default()
        };
        let stats = call(
            "NodeGetVolumeStats",
            self.node().node_get_volume_stats(request(message)),
        )
        .await?;
        Ok(stats.usage)
    }

    /// Returns all volumes, each with the nodes to which it is attached.
    pub(super) async fn list(&self) -> Called<Vec<(String, Vec<String>)>> {
        let listed = call(
            "ListVolumes",
            self.controller()
                .list_volumes(request(ListVolumesRequest::default())),
        )
        .await?;
        let entry = |entry: csi_proto::v1::list_volumes_response::Entry| {
            let nodes = entry
                .status
                .map(|status| status.published_node_ids)
                .unwrap_or_default();
            Some((entry.volume?.volume_id, nodes))
        };
        Ok(listed.entries.into_iter().filter_map(entry).collect())
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

async fn call<T>(name: &str, calling: impl Future<Output = Result<Response<T>, Status>>) -> Called<T> {
    let answer = calling
        .await
        .map_err(|status| format!("{name} answered {:?}: {}", status.code(), status.message()))?;
    Ok(answer.into_inner())
}

fn capability(readonly: bool) -> VolumeCapability {
    let mode = if readonly {
        Mode::SingleNodeReaderOnly
    } else {
        Mode::SingleNodeWriter
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: "ext4".to_owned(),
            ..Default::default()
        })),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
