//! The Node service: checks the fields of a request, and runs the operation that serves it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use csi_proto::v1::node_server::Node;
use csi_proto::v1::node_service_capability::rpc::Type;
use csi_proto::v1::node_service_capability::{Rpc, Type as Kind};
use csi_proto::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, Topology,
};
use tonic::{Request, Response, Status};
use uuid::fmt::Hyphenated;

use super::TargetDirectory;
use super::operations::{NodeOperation, Publish, Stage, Unpublish, Unstage};
use super::publish::publish;
use super::stage::stage;
use super::stats::stats;
use super::unpublish::unpublish;
use super::unstage::unstage;
use super::{NodeCore, NodeSettings};
use crate::csi::capability::{AccessMode, Capability, log_flags_without_effect};
use crate::csi::fields::{required, volume_id};
use crate::error::{Error, Result, Situation};
use crate::flocker::attach::Attach;
use crate::flocker::cluster::Cluster;
use crate::flocker::node_identity::ThisNode;
use crate::flocker::provisioning::Provisioner;
use crate::operation::deadline::Deadline;
use crate::operation::{Context, Locks, RunningOperation};
use crate::volume::{NODE_CONTEXT_KEY, READONLY_CONTEXT_KEY, VolumeReference};
use host_fs::mount::TargetPath;

/// How often locking a state directory that another process has locked is retried.
const RETRY_HOST: Duration = Duration::from_secs(1);

/// The capabilities of the node.
const CAPABILITIES: [Type; 4] = [
    Type::StageUnstageVolume,
    Type::GetVolumeStats,
    Type::VolumeCondition,
    Type::SingleNodeMultiWriter,
];

/// The CSI Node service.
#[derive(Clone)]
pub struct NodeService {
    pub(super) core: Arc<NodeCore>,
}

impl NodeService {
    /// Creates the service of this node. `locks` serialises it with all other parts of this process that change a
    /// dataset; `first_use` creates a dataset for a name on its first use, where that is enabled.
    pub fn new(
        settings: NodeSettings,
        cluster: Cluster,
        this_node: ThisNode,
        locks: Locks,
        first_use: Option<Provisioner>,
    ) -> Self {
        let attach = Attach::new(cluster.clone(), locks.clone()).taking_over(settings.takeover);
        Self {
            core: Arc::new(NodeCore::new(
                settings, cluster, attach, locks, this_node, first_use,
            )),
        }
    }

    /// Locks the state directory and pins every staged volume, before any call is served.
    ///
    /// A directory that another process has locked is no failure: Node calls report it until that process ends, and
    /// then every staged volume is pinned at once, without a call.
    pub async fn restore(&self) {
        if let Err(error) = self.core.host().await {
            tracing::warn!(error = %error.chain(), "Node calls are refused until this condition ends");
            let core = Arc::downgrade(&self.core);
            self.core
                .cluster
                .tasks()
                .spawn("opening the state directory", move || {
                    let core = Weak::clone(&core);
                    async move {
                        while let Some(core) = core.upgrade() {
                            if core.host().await.is_ok() {
                                tracing::info!("Node calls are served from now on");
                                return;
                            }
                            drop(core);
                            tokio::time::sleep(RETRY_HOST).await;
                        }
                    }
                });
        }
    }

    /// Returns the operations that are running, for metrics.
    pub(crate) fn running(&self) -> Vec<RunningOperation> {
        self.core.operations.running()
    }

    /// Cancels operations that wait, and waits for those that mount. No volume is unmounted.
    pub async fn stop(&self) {
        self.core.operations.stop().await;
    }

    /// Runs an operation, and adds to its errors what was being done to which volume on which node.
    async fn run<W, F>(&self, call: NodeOperation, deadline: Deadline, work: W) -> Result<()>
    where
        W: FnOnce(Context) -> F,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let doing = call.to_string();
        let work = |context| {
            let working = work(context);
            async move {
                working.await.map_err(|error| match error.situation() {
                    Situation::Cancelled => error,
                    _ => error.context(doing),
                })
            }
        };
        self.core.operations.run(call, deadline, work).await
    }

    async fn stage(
        &self,
        deadline: Deadline,
        request: NodeStageVolumeRequest,
    ) -> Result<NodeStageVolumeResponse> {
        let volume_id = volume_id(&request.volume_id)?.to_owned();
        let staging = staging_path(&request.staging_target_path)?;
        Capability::parse_for_mount(request.volume_capability.as_ref(), false)?;
        log_flags_without_effect(&volume_id, &request.volume_capability);
        let volume = VolumeReference::parse(&volume_id, &request.volume_context)?;
        let takes_lease = !request.publish_context.contains_key(NODE_CONTEXT_KEY);
        let (core, host) = (Arc::clone(&self.core), self.core.host_by(deadline).await?);
        let work = Stage {
            volume_id,
            volume,
            staging,
            takes_lease,
        };
        let call = NodeOperation::Stage(work.clone());
        self.run(call, deadline, |context| stage(core, host, context, work))
            .await?;
        Ok(NodeStageVolumeResponse {})
    }

    async fn unstage(
        &self,
        deadline: Deadline,
        request: NodeUnstageVolumeRequest,
    ) -> Result<NodeUnstageVolumeResponse> {
        let volume_id = volume_id(&request.volume_id)?.to_owned();
        let staging = staging_path(&request.staging_target_path)?;
        let (core, host) = (Arc::clone(&self.core), self.core.host_by(deadline).await?);
        let work = Unstage { volume_id, staging };
        let call = NodeOperation::Unstage(work.clone());
        self.run(call, deadline, |context| unstage(core, host, context, work))
            .await?;
        Ok(NodeUnstageVolumeResponse {})
    }

    async fn publish(
        &self,
        deadline: Deadline,
        directory: TargetDirectory,
        request: NodePublishVolumeRequest,
    ) -> Result<NodePublishVolumeResponse> {
        let volume_id = volume_id(&request.volume_id)?.to_owned();
        let target = path("target_path", &request.target_path)?;
        let attached_readonly = request.publish_context.get(READONLY_CONTEXT_KEY);
        let readonly = request.readonly || attached_readonly.is_some_and(|value| value == "true");
        let capability = Capability::parse_for_mount(request.volume_capability.as_ref(), readonly)?;
        if request.staging_target_path.is_empty() {
            let text = format!(
                "staging_target_path is empty: volume {volume_id} must be staged with NodeStageVolume, and that \
                 staging path given here"
            );
            return Err(Error::new(Situation::NotStaged, text));
        }
        let staging = staging_path(&request.staging_target_path)?;
        let (core, host) = (Arc::clone(&self.core), self.core.host_by(deadline).await?);
        let work = Publish {
            volume_id,
            staging,
            target,
            directory,
            flags: capability.mount_flags,
            single_target: capability.access_mode == AccessMode::SingleTarget,
        };
        let call = NodeOperation::Publish(work.clone());
        self.run(call, deadline, |context| publish(core, host, context, work))
            .await?;
        Ok(NodePublishVolumeResponse {})
    }

    async fn unpublish(
        &self,
        deadline: Deadline,
        directory: TargetDirectory,
        request: NodeUnpublishVolumeRequest,
    ) -> Result<NodeUnpublishVolumeResponse> {
        let volume_id = volume_id(&request.volume_id)?.to_owned();
        let target = path("target_path", &request.target_path)?;
        let (core, host) = (Arc::clone(&self.core), self.core.host_by(deadline).await?);
        let work = Unpublish {
            volume_id,
            target,
            directory,
        };
        let call = NodeOperation::Unpublish(work.clone());
        self.run(call, deadline, |context| unpublish(core, host, context, work))
            .await?;
        Ok(NodeUnpublishVolumeResponse {})
    }

    async fn stats(
        &self,
        deadline: Deadline,
        request: NodeGetVolumeStatsRequest,
    ) -> Result<NodeGetVolumeStatsResponse> {
        let volume_id = volume_id(&request.volume_id)?.to_owned();
        let volume_path = required("volume_path", &request.volume_path)?.to_owned();
        // No volume is found at any other path that cannot be one.
        if let Err(error) = TargetPath::parse(&volume_path)
            && error.is_too_long()
        {
            return Err(Error::from(error).context("volume_path"));
        }
        let host = self.core.host_by(deadline).await?;
        stats(
            &self.core,
            &host,
            NodeGetVolumeStatsRequest {
                volume_id,
                volume_path,
                ..Default::default()
            },
        )
        .await
    }

    async fn info(&self, deadline: Deadline) -> Result<NodeGetInfoResponse> {
        let this_node = tokio::time::timeout_at(deadline.answer_by(), (self.core.this_node)()).await;
        let node = this_node.unwrap_or_else(|_| {
            let text =
                "this node's UUID is not known yet: Flocker has not reported it; set node_id or node_id_file";
            Err(Error::new(Situation::FlockerUnavailable, text))
        })?;
        Ok(NodeGetInfoResponse {
            node_id: node.to_string(),
            max_volumes_per_node: self.core.settings.max_volumes_per_node,
            accessible_topology: self.core.settings.topology.as_ref().map(|key| Topology {
                segments: key.segments(node),
            }),
        })
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let deadline = Deadline::from_metadata(request.metadata());
        Ok(Response::new(self.stage(deadline, request.into_inner()).await?))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let deadline = Deadline::from_metadata(request.metadata());
        Ok(Response::new(self.unstage(deadline, request.into_inner()).await?))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let deadline = Deadline::from_metadata(request.metadata());
        let directory = target_directory(&request);
        let published = self.publish(deadline, directory, request.into_inner()).await?;
        Ok(Response::new(published))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let deadline = Deadline::from_metadata(request.metadata());
        let directory = target_directory(&request);
        let unpublished = self.unpublish(deadline, directory, request.into_inner()).await?;
        Ok(Response::new(unpublished))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let deadline = Deadline::from_metadata(request.metadata());
        Ok(Response::new(self.stats(deadline, request.into_inner()).await?))
    }

    async fn node_expand_volume(
        &self,
        _request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let text = "NodeExpandVolume is not offered: Flocker cannot change the size of a dataset";
        Err(Error::new(Situation::Unimplemented, text).into())
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let announced = CAPABILITIES.map(|capability| NodeServiceCapability {
            r#type: Some(Kind::Rpc(Rpc {
                r#type: capability.into(),
            })),
        });
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: announced.into(),
        }))
    }

    async fn node_get_info(
        &self,
        request: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let deadline = Deadline::from_metadata(request.metadata());
        Ok(Response::new(self.info(deadline).await?))
    }
}

/// Returns the owner of the target directory, which the facade of `csi.v0` passes beside the message.
fn target_directory<T>(request: &Request<T>) -> TargetDirectory {
    request.extensions().get().copied().unwrap_or_default()
}

fn path(field: &str, value: &str) -> Result<TargetPath> {
    TargetPath::parse(required(field, value)?).map_err(|error| Error::from(error).context(field))
}

fn staging_path(value: &str) -> Result<TargetPath> {
    let field = "staging_target_path";
    // The volume is mounted one level below, at its dataset's id.
    let parsed = TargetPath::parse_above(required(field, value)?, Hyphenated::LENGTH);
    parsed.map_err(|error| Error::from(error).context(field))
}
