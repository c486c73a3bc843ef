//! The Controller service on an embedded Flocker with real file systems.

mod conditions;
mod create;
mod delete;
mod generations;
mod last_known;
mod list;
mod publish;
mod requests;
mod topology;
mod unclear;

use std::path::Path;
use std::time::Duration;

use csi_proto::v1::controller_server::Controller;
use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use csi_proto::v1::{
    CapacityRange, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, ListVolumesRequest, ListVolumesResponse, Volume, VolumeCapability,
};
use flocker_csi::controller::ControllerService;
use flocker_csi::flocker::attach::Attach;
use flocker_csi::flocker::cluster::Cluster;
use flocker_csi::flocker::provisioning::{ProvisionWait, Provisioner, ProvisioningSettings, Scope};
use flocker_csi::operation::Locks;
use flocker_csi::volume::{Namespace, SizePolicy};
use tonic::{Request, Status};
use uuid::Uuid;

use crate::support::flocker::Flocker;

const DRIVER: &str = "flocker.csi.clusterhq.com";
const MIB: i64 = 1 << 20;

/// Returns the default settings of a plugin process.
fn settings() -> ProvisioningSettings {
    ProvisioningSettings {
        driver_name: DRIVER.to_owned(),
        namespace: Namespace::new(DRIVER),
        scope: Scope::Cluster,
        provision_wait: ProvisionWait::Backed,
        sizes: SizePolicy {
            default_size: 64 << 20,
            allocation_unit: 1 << 20,
        },
        pools: Vec::new(),
        topology: None,
    }
}

/// Returns the controller of another process.
fn controller(flocker: &Flocker, settings: ProvisioningSettings) -> ControllerService {
    controller_on(flocker.cluster(), settings)
}

fn controller_on(cluster: Cluster, settings: ProvisioningSettings) -> ControllerService {
    controller_keeping(cluster, settings, None)
}

/// As [`controller`], with a directory for the state that it keeps between processes.
fn controller_keeping(
    cluster: Cluster,
    settings: ProvisioningSettings,
    state_dir: Option<&Path>,
) -> ControllerService {
    let locks = Locks::default();
    let attach = Attach::new(cluster.clone(), locks.clone());
    let provisioner = Provisioner::new(settings, cluster.clone(), locks.clone());
    ControllerService::new(provisioner, cluster, attach, locks, state_dir)
}

/// Returns the scope of a plugin that serves one node.
fn only(node: Uuid) -> Scope {
    Scope::Node(std::sync::Arc::new(move || Box::pin(async move { Ok(node) })))
}

/// Makes a request with this deadline.
fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn mount_capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

/// Returns a request for a volume of exactly that many MiB, or of any size for 0.
fn wanted(name: &str, mib: i64) -> CreateVolumeRequest {
    let exactly = CapacityRange {
        required_bytes: mib * MIB,
        limit_bytes: mib * MIB,
    };
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: (mib > 0).then_some(exactly),
        volume_capabilities: vec![mount_capability()],
        ..Default::default()
    }
}

async fn create(controller: &ControllerService, request: CreateVolumeRequest) -> Result<Volume, Status> {
    let created = controller.create_volume(Request::new(request)).await?;
    Ok(created.into_inner().volume.unwrap())
}

async fn delete(controller: &ControllerService, volume_id: &str) -> Result<(), Status> {
    let request = DeleteVolumeRequest {
        volume_id: volume_id.to_owned(),
        ..Default::default()
    };
    controller.delete_volume(Request::new(request)).await.map(drop)
}

fn to_publish(volume_id: &str, node_id: &str) -> ControllerPublishVolumeRequest {
    ControllerPublishVolumeRequest {
        volume_id: volume_id.to_owned(),
        node_id: node_id.to_owned(),
        volume_capability: Some(mount_capability()),
        ..Default::default()
    }
}

async fn publish(controller: &ControllerService, volume_id: &str, node: Uuid) -> Result<(), Status> {
    let request = to_publish(volume_id, &node.to_string());
    controller
        .controller_publish_volume(Request::new(request))
        .await
        .map(drop)
}

async fn unpublish(controller: &ControllerService, volume_id: &str, node_id: &str) -> Result<(), Status> {
    let request = ControllerUnpublishVolumeRequest {
        volume_id: volume_id.to_owned(),
        node_id: node_id.to_owned(),
        ..Default::default()
    };
    controller
        .controller_unpublish_volume(Request::new(request))
        .await
        .map(drop)
}

async fn list(
    controller: &ControllerService,
    max_entries: i32,
    token: &str,
) -> Result<ListVolumesResponse, Status> {
    let request = ListVolumesRequest {
        max_entries,
        starting_token: token.to_owned(),
    };
    controller
        .list_volumes(Request::new(request))
        .await
        .map(tonic::Response::into_inner)
}
