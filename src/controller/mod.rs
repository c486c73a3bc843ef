//! The Controller service: volumes as datasets of Flocker.
//!
//! Each RPC has its file. An RPC that changes something runs as an operation ([`crate::operation`]), an RPC that only
//! reads answers from a snapshot.

mod capabilities;
mod capacity;
mod condition;
mod condition_log;
mod condition_watch;
mod create;
mod delete;
mod last_known;
mod list;
mod publish;
mod recent_changes;
mod validate;
mod volume_list;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use csi_proto::v1::controller_server::Controller;
use csi_proto::v1::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, ControllerGetCapabilitiesRequest,
    ControllerGetCapabilitiesResponse, ControllerGetVolumeRequest, ControllerGetVolumeResponse,
    ControllerModifyVolumeRequest, ControllerModifyVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse,
    CreateSnapshotRequest, CreateSnapshotResponse, CreateVolumeRequest, CreateVolumeResponse,
    DeleteSnapshotRequest, DeleteSnapshotResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    GetCapacityRequest, GetCapacityResponse, GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest,
    ListSnapshotsResponse, ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::csi::status::{answer, unimplemented};
use crate::error::{Error, Result, Situation};
use crate::flocker::attach::Attach;
use crate::flocker::cluster::{Cluster, Lists, Snapshot};
use crate::flocker::provisioning::{NewVolume, Provisioner, Volume};
use crate::operation::deadline::Deadline;
use crate::operation::{Describe, Locks, Operations, RunningOperation};
use capacity::FreeSpaceByProfile;
pub(crate) use condition::Condition;
use condition_log::ConditionLog;
pub(crate) use condition_watch::EVERY as WATCH_EVERY;
use delete::{DeleteOperation, Deletion};
use last_known::LastKnown;
use list::Paging;
use publish::AttachOperation;
use recent_changes::RecentChanges;
use volume_list::VolumeList;

/// The Controller service; clones are the same one.
#[derive(Clone)]
pub struct ControllerService {
    core: Arc<ControllerCore>,
}

/// What the RPCs share.
struct ControllerCore {
    provisioner: Provisioner,
    cluster: Cluster,
    attach: Attach,
    locks: Locks,
    creates: Operations<NewVolume, Volume>,
    deletes: Operations<DeleteOperation, Deletion>,
    /// Waits for the destruction of deleted datasets.
    destructions: Operations<DeleteOperation, ()>,
    attachments: Operations<AttachOperation, ()>,
    paging: Paging,
    conditions: ConditionLog,
    last_list: LastKnown<VolumeList>,
    /// The changes that may be missing in a list that is being read.
    changes: RecentChanges,
    last_free_space: LastKnown<FreeSpaceByProfile>,
}

impl ControllerService {
    /// Makes the service. `provisioner` and `attach` have to use the same `locks`, which serialise changes of one
    /// dataset. `state_dir` holds the last known list and capacity, for use while Flocker is down.
    pub fn new(
        provisioner: Provisioner,
        cluster: Cluster,
        attach: Attach,
        locks: Locks,
        state_dir: Option<&Path>,
    ) -> Self {
        let health = cluster.clone();
        let describe: Describe = Arc::new(move || health.health());
        let metrics = || cluster.metrics().clone();
        let core = ControllerCore {
            creates: Operations::new(Arc::clone(&describe), metrics()),
            deletes: Operations::new(Arc::clone(&describe), metrics()),
            destructions: Operations::new(Arc::clone(&describe), metrics()),
            attachments: Operations::new(describe, metrics()),
            paging: Paging::default(),
            conditions: ConditionLog::default(),
            last_list: LastKnown::new(state_dir, "volumes.json"),
            changes: RecentChanges::default(),
            last_free_space: LastKnown::new(state_dir, "capacity.json"),
            provisioner,
            cluster,
            attach,
            locks,
        };
        Self { core: Arc::new(core) }
    }

    /// Returns the operations that are running, for metrics.
    pub(crate) fn running(&self) -> Vec<RunningOperation> {
        let core = &self.core;
        let running = [
            core.creates.running(),
            core.deletes.running(),
            core.attachments.running(),
        ];
        running.into_iter().flatten().collect()
    }

    /// Returns how many deleted volumes have not been destroyed yet, as far as this process waits for it.
    pub(crate) fn pending_destructions(&self) -> usize {
        self.core.destructions.running().len()
    }

    /// Ends every running operation, each at a point from which a repeated call resumes.
    pub(crate) async fn stop(&self) {
        let ControllerCore {
            creates,
            deletes,
            destructions,
            attachments,
            ..
        } = &*self.core;
        tokio::join!(
            creates.stop(),
            deletes.stop(),
            destructions.stop(),
            attachments.stop()
        );
    }
}

impl ControllerCore {
    /// Reads `lists` for a caller that has to be answered at `deadline`.
    async fn read(&self, deadline: Deadline, lists: Lists) -> Result<Arc<Snapshot>> {
        self.in_time(deadline, self.cluster.fresh(lists)).await
    }

    /// Returns the only node whose volumes are served, or nothing for the whole cluster.
    async fn node_of_scope(&self, deadline: Deadline) -> Result<Option<Uuid>> {
        self.in_time(deadline, self.provisioner.settings().scope.node())
            .await
    }

    async fn in_time<T>(&self, deadline: Deadline, read: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout_at(deadline.answer_by(), read)
            .await
            .unwrap_or_else(|_elapsed| {
                let text = format!("Flocker has not answered in time ({})", self.cluster.health());
                Err(Error::new(Situation::FlockerUnavailable, text))
            })
    }
}

/// Returns a size as CSI carries it.
fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn split<T>(request: Request<T>) -> (Deadline, T) {
    (Deadline::from_metadata(request.metadata()), request.into_inner())
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let (deadline, request) = split(request);
        let created = create::create_volume(&self.core, deadline, request).await;
        if let Ok(CreateVolumeResponse { volume: Some(volume) }) = &created {
            list::record_created(&self.core, deadline, volume).await;
        }
        answer(created)
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let (deadline, request) = split(request);
        let volume_id = request.volume_id.clone();
        let deleted = delete::delete_volume(&self.core, deadline, request).await;
        if deleted.is_ok() {
            list::record_deleted(&self.core, &volume_id).await;
        }
        answer(deleted)
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let (deadline, request) = split(request);
        answer(publish::controller_publish_volume(&self.core, deadline, request).await)
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let (deadline, request) = split(request);
        answer(publish::controller_unpublish_volume(&self.core, deadline, request).await)
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let (deadline, request) = split(request);
        answer(validate::validate_volume_capabilities(&self.core, deadline, request).await)
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let (deadline, request) = split(request);
        answer(list::list_volumes(&self.core, deadline, request).await)
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let (deadline, request) = split(request);
        answer(capacity::get_capacity(&self.core, deadline, request).await)
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        Ok(Response::new(capabilities::controller_get_capabilities()))
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let (deadline, request) = split(request);
        answer(list::controller_get_volume(&self.core, deadline, request).await)
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

    async fn get_snapshot(
        &self,
        _request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        unimplemented("GetSnapshot")
    }

    async fn controller_expand_volume(
        &self,
        _request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        unimplemented("ControllerExpandVolume")
    }

    async fn controller_modify_volume(
        &self,
        _request: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        unimplemented("ControllerModifyVolume")
    }
}
