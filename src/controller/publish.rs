//! `ControllerPublishVolume` and `ControllerUnpublishVolume`.

use std::fmt;
use std::sync::Arc;

use csi_proto::v1::{
    ControllerPublishVolumeRequest, ControllerPublishVolumeResponse, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse,
};
use uuid::Uuid;

use super::Core;
use crate::csi::capability::{Capability, Side};
use crate::csi::fields::required;
use crate::error::{Error, Result, Situation};
use crate::flocker::attach::{OthersLease, publish_context};
use crate::operation::deadline::Deadline;
use crate::operation::{Call, Context};
use crate::volume::dataset_of;

/// What is done to a volume and a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Attach(Uuid),
    /// `None`: from whichever node has it.
    Detach(Option<Uuid>),
}

/// The attachment or detachment of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AttachCall {
    dataset: Uuid,
    direction: Direction,
}

impl Call for AttachCall {
    type Slot = (Uuid, Option<Uuid>);

    fn slot(&self) -> Self::Slot {
        match self.direction {
            Direction::Attach(node) => (self.dataset, Some(node)),
            Direction::Detach(node) => (self.dataset, node),
        }
    }

    fn undoes(&self, running: &Self) -> bool {
        matches!(
            (self.direction, running.direction),
            (Direction::Detach(_), Direction::Attach(_))
        )
    }
}

impl fmt::Display for AttachCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction {
            Direction::Attach(node) => write!(f, "attaching volume {} to node {node}", self.dataset),
            Direction::Detach(Some(node)) => write!(f, "detaching volume {} from node {node}", self.dataset),
            Direction::Detach(None) => write!(f, "detaching volume {} from every node", self.dataset),
        }
    }
}

/// Gives a volume to a node.
///
/// `readonly` is not looked at: it is the node that mounts read-only, and no orchestrator sets it here without a
/// capability that is not announced.
pub(super) async fn controller_publish_volume(
    core: &Arc<Core>,
    deadline: Deadline,
    request: ControllerPublishVolumeRequest,
) -> Result<ControllerPublishVolumeResponse> {
    let volume_id = required("volume_id", &request.volume_id)?;
    let node_id = required("node_id", &request.node_id)?;
    let doing = || format!("attaching volume {volume_id} to node {node_id}");
    Capability::parse(request.volume_capability.as_ref(), Side::Controller)
        .map_err(|error| error.context(doing()))?;
    let unknown = |situation, what: &str| Error::new(situation, format!("{}: {what}", doing()));
    let dataset = dataset_of(volume_id).ok_or_else(|| {
        unknown(
            Situation::UnknownVolume,
            "there is no such volume: a volume id is a lower-case UUID",
        )
    })?;
    let node = Uuid::try_parse(node_id).map_err(|_| {
        unknown(
            Situation::UnknownNode,
            "there is no such node: a node id is a UUID",
        )
    })?;
    let call = AttachCall {
        dataset,
        direction: Direction::Attach(node),
    };
    let work = {
        let (core, call) = (Arc::clone(core), call.clone());
        |context: Context| async move {
            core.attach
                .attach(&context, dataset, node, OthersLease::Refuse)
                .await
                .map_err(|error| error.failure_context(&call))
        }
    };
    core.attachments.run(call, deadline, work).await?;
    Ok(ControllerPublishVolumeResponse {
        publish_context: publish_context(node),
    })
}

/// Takes a volume from a node, or from every node. Whatever is not attached counts as taken.
pub(super) async fn controller_unpublish_volume(
    core: &Arc<Core>,
    deadline: Deadline,
    request: ControllerUnpublishVolumeRequest,
) -> Result<ControllerUnpublishVolumeResponse> {
    let volume_id = required("volume_id", &request.volume_id)?;
    let Some(dataset) = dataset_of(volume_id) else {
        return Ok(ControllerUnpublishVolumeResponse {});
    };
    let node = match request.node_id.as_str() {
        "" => None,
        node_id => match Uuid::try_parse(node_id) {
            Ok(node) => Some(node),
            Err(_) => return Ok(ControllerUnpublishVolumeResponse {}),
        },
    };
    if node.is_none() {
        // Attachments to single nodes are in other slots.
        let opposite =
            |call: &AttachCall| call.dataset == dataset && matches!(call.direction, Direction::Attach(_));
        core.attachments
            .cancel(deadline, |call, _| opposite(call))
            .await?;
    }
    let call = AttachCall {
        dataset,
        direction: Direction::Detach(node),
    };
    let work = {
        let (core, call) = (Arc::clone(core), call.clone());
        |context: Context| async move {
            let detached = core.attach.detach(&context, dataset, node).await;
            detached.map(drop).map_err(|error| error.failure_context(&call))
        }
    };
    core.attachments.run(call, deadline, work).await?;
    Ok(ControllerUnpublishVolumeResponse {})
}
