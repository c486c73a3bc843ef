//! `ControllerPublishVolume` and `ControllerUnpublishVolume`.

use std::fmt;
use std::sync::Arc;

use csi_proto::v1::{
    ControllerPublishVolumeRequest, ControllerPublishVolumeResponse, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse,
};
use uuid::Uuid;

use super::ControllerCore;
use crate::csi::capability::{Capability, Side};
use crate::csi::fields::{existing_dataset, node_id, volume_id};
use crate::error::{Error, Result, Situation};
use crate::flocker::attach::{OtherNodesLease, publish_context};
use crate::operation::deadline::Deadline;
use crate::operation::{Context, Operation, Subject};
use crate::volume::dataset_of;

/// What is done to the lease on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Attach(Uuid),
    /// `None`: from the node that has it, if any.
    Detach(Option<Uuid>),
}

/// The attachment or detachment of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AttachOperation {
    dataset: Uuid,
    direction: Direction,
}

impl Operation for AttachOperation {
    type Slot = (Uuid, Option<Uuid>);

    fn name(&self) -> &'static str {
        match self.direction {
            Direction::Attach(_) => "attach",
            Direction::Detach(_) => "detach",
        }
    }

    fn subject(&self) -> Subject<'_> {
        let node = match self.direction {
            Direction::Attach(node) => Some(node),
            Direction::Detach(node) => node,
        };
        Subject {
            volume_id: Some(self.dataset.to_string().into()),
            node,
            ..Subject::default()
        }
    }

    fn slot(&self) -> Self::Slot {
        match self.direction {
            Direction::Attach(node) => (self.dataset, Some(node)),
            Direction::Detach(node) => (self.dataset, node),
        }
    }

    fn is_inverse_of(&self, running: &Self) -> bool {
        matches!(
            (self.direction, running.direction),
            (Direction::Detach(_), Direction::Attach(_))
        )
    }
}

impl fmt::Display for AttachOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction {
            Direction::Attach(node) => write!(f, "attaching volume {} to node {node}", self.dataset),
            Direction::Detach(Some(node)) => write!(f, "detaching volume {} from node {node}", self.dataset),
            Direction::Detach(None) => write!(f, "detaching volume {} from every node", self.dataset),
        }
    }
}

/// Attaches a volume to a node.
///
/// `readonly` is announced by no capability, as a lease cannot remember it; where a client sets it all the same, the
/// publish context carries it to the node.
pub(super) async fn controller_publish_volume(
    core: &Arc<ControllerCore>,
    deadline: Deadline,
    request: ControllerPublishVolumeRequest,
) -> Result<ControllerPublishVolumeResponse> {
    let volume_id = volume_id(&request.volume_id)?;
    let node_id = node_id(&request.node_id)?;
    let doing = || format!("attaching volume {volume_id} to node {node_id}");
    Capability::parse(request.volume_capability.as_ref(), Side::Controller)
        .map_err(|error| error.context(doing()))?;
    let dataset = existing_dataset(volume_id).map_err(|error| error.context(doing()))?;
    let node = Uuid::try_parse(node_id).map_err(|_| {
        let text = format!(
            "{}: node {node_id:?} does not exist: a node id is a UUID",
            doing()
        );
        Error::new(Situation::UnknownNode, text)
    })?;
    let operation = AttachOperation {
        dataset,
        direction: Direction::Attach(node),
    };
    let work = {
        let (core, operation) = (Arc::clone(core), operation.clone());
        |context: Context| async move {
            core.attach
                .attach(&context, dataset, node, OtherNodesLease::Refuse)
                .await
                .map_err(|error| error.failure_context(&operation))
        }
    };
    core.attachments.run(operation, deadline, work).await?;
    Ok(ControllerPublishVolumeResponse {
        publish_context: publish_context(node, request.readonly),
    })
}

/// Detaches a volume from a node, or from every node. A volume that is not attached counts as detached.
pub(super) async fn controller_unpublish_volume(
    core: &Arc<ControllerCore>,
    deadline: Deadline,
    request: ControllerUnpublishVolumeRequest,
) -> Result<ControllerUnpublishVolumeResponse> {
    let volume_id = volume_id(&request.volume_id)?;
    let Some(dataset) = dataset_of(volume_id) else {
        return Ok(ControllerUnpublishVolumeResponse {});
    };
    let node = match request.node_id.as_str() {
        "" => None,
        requested => match node_id(requested).map(Uuid::try_parse) {
            Ok(Ok(node)) => Some(node),
            Ok(Err(_)) | Err(_) => return Ok(ControllerUnpublishVolumeResponse {}),
        },
    };
    if node.is_none() {
        // Attachments to single nodes are in other slots.
        let inverse = |running: &AttachOperation| {
            running.dataset == dataset && matches!(running.direction, Direction::Attach(_))
        };
        core.attachments
            .cancel(deadline, |running, _| inverse(running))
            .await?;
    }
    let operation = AttachOperation {
        dataset,
        direction: Direction::Detach(node),
    };
    let work = {
        let (core, operation) = (Arc::clone(core), operation.clone());
        |context: Context| async move {
            let detached = core.attach.detach(&context, dataset, node).await;
            detached
                .map(drop)
                .map_err(|error| error.failure_context(&operation))
        }
    };
    core.attachments.run(operation, deadline, work).await?;
    Ok(ControllerUnpublishVolumeResponse {})
}
