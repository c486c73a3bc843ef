//! `DeleteVolume`.

use std::fmt;
use std::sync::Arc;

use csi_proto::v1::{DeleteVolumeRequest, DeleteVolumeResponse};
use uuid::Uuid;

use super::ControllerCore;
use crate::csi::fields::volume_id;
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Absence, AgentWork, FirstRead, Lists, Probe, Snapshot, WriteOutcome};
use crate::flocker::provisioning::Placement;
use crate::operation::deadline::Deadline;
use crate::operation::{Context, Operation, Phase, Subject};
use crate::telemetry::log_names::NamedNode;
use crate::volume::{dataset_of, end_of_use};

/// The deletion of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DeleteOperation {
    dataset: Uuid,
}

impl Operation for DeleteOperation {
    type Slot = Uuid;

    fn name(&self) -> &'static str {
        "delete"
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            volume_id: Some(self.dataset.to_string().into()),
            ..Subject::default()
        }
    }

    fn slot(&self) -> Uuid {
        self.dataset
    }
}

impl fmt::Display for DeleteOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deleting volume {}", self.dataset)
    }
}

/// The outcome of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// The volume did not exist.
    NoSuchDataset,
    /// Flocker has stored that this node is to destroy the dataset. Nothing undoes it.
    Stored(Uuid),
}

/// Deletes a volume without a lease.
pub(super) async fn delete_volume(
    core: &Arc<ControllerCore>,
    deadline: Deadline,
    request: DeleteVolumeRequest,
) -> Result<DeleteVolumeResponse> {
    let volume_id = volume_id(&request.volume_id)?;
    let Some(dataset) = dataset_of(volume_id) else {
        return Ok(DeleteVolumeResponse {});
    };
    core.creates
        .cancel(deadline, |_, progress| progress.dataset == Some(dataset))
        .await?;
    let operation = DeleteOperation { dataset };
    let work = {
        let (core, operation) = (Arc::clone(core), operation.clone());
        |context: Context| async move {
            context.about(dataset);
            delete(&core, &context, dataset)
                .await
                .map_err(|error| error.failure_context(&operation))
        }
    };
    if let Deletion::Stored(node) = core.deletes.run(operation.clone(), deadline, work).await? {
        wait_until_destroyed(core, deadline, operation, node).await;
    }
    Ok(DeleteVolumeResponse {})
}

async fn delete(core: &ControllerCore, context: &Context, dataset: Uuid) -> Result<Deletion> {
    loop {
        let guard = core.locks.lock(context, dataset).await?;
        // Flocker also deletes leased datasets, so the leases are read last.
        let read = |more| {
            let lists = Lists::CONFIGURATION | Lists::LEASES | more;
            core.cluster.fresh_for(context, lists)
        };
        let mut snapshot = read(core.cluster.nodes_unless_recent()).await?;
        let primary_of = |snapshot: &Snapshot| {
            let configured = snapshot.live_dataset(dataset)?;
            Ok::<_, Error>(configured.map(|configured| configured.primary))
        };
        let is_listed = |snapshot: &Snapshot, primary| core.cluster.listed_lately(snapshot, primary);
        if let Some(primary) = primary_of(&snapshot)?
            && !is_listed(&snapshot, primary)
            && !snapshot.lists().contains(Lists::NODES)
        {
            snapshot = read(Lists::NODES).await?;
        }
        let Some(primary) = primary_of(&snapshot)? else {
            return Ok(Deletion::NoSuchDataset);
        };
        if let Some(lease) = snapshot.lease(dataset)? {
            return Err(in_use(dataset, lease.node_uuid));
        }
        // Only the primary destroys a dataset, and no other node can become the primary after the DELETE.
        if !is_listed(&snapshot, primary) {
            drop(guard);
            if node_is_gone(core, context, primary).await? {
                let anywhere = Placement::default();
                core.provisioner
                    .move_off(context, dataset, primary, &anywhere)
                    .await?;
            }
            continue;
        }
        context.check()?;
        return Ok(match core.cluster.delete_dataset(dataset).await? {
            WriteOutcome::Stored => {
                tracing::info!(
                    volume.id = %dataset,
                    node.id = %primary,
                    "Dataset {dataset} was deleted; node {primary} destroys it"
                );
                Deletion::Stored(primary)
            }
            WriteOutcome::NoSuchDataset => Deletion::NoSuchDataset,
        });
    }
}

/// Waits until `node` is listed (`false`) or counts as gone (`true`).
async fn node_is_gone(core: &ControllerCore, context: &Context, node: Uuid) -> Result<bool> {
    core.cluster
        .wait_until((Lists::NODES, FirstRead::AtOnce), context, |snapshot| {
            if snapshot.lists_node(node) {
                Probe::Ready(false)
            } else if core.cluster.absence(node) == Absence::Gone {
                Probe::Ready(true)
            } else {
                Probe::Waiting(Phase::NodeReporting { node })
            }
        })
        .await
}

/// Waits until no node reports the dataset any more, or until the deadline.
///
/// In both cases the deletion is stored and will be carried out.
async fn wait_until_destroyed(
    core: &Arc<ControllerCore>,
    deadline: Deadline,
    operation: DeleteOperation,
    node: Uuid,
) {
    let dataset = operation.dataset;
    let work = {
        let core = Arc::clone(core);
        |context: Context| async move {
            context.about(dataset);
            context.enter(Phase::Destroyed { node });
            core.cluster
                .wait_until(
                    (Lists::STATE, FirstRead::After(AgentWork::Destroying)),
                    &context,
                    |snapshot| match snapshot.states(dataset) {
                        [] => Probe::Ready(()),
                        [..] => Probe::Waiting(Phase::Destroyed { node }),
                    },
                )
                .await
        }
    };
    if let Err(error) = core.destructions.run(operation, deadline, work).await {
        tracing::info!(
            volume.id = %dataset,
            "The deletion of volume {dataset} is stored and not carried out yet: {}",
            error.chain()
        );
    }
}

fn in_use(dataset: Uuid, holder: Uuid) -> Error {
    Error::new(
        Situation::InUse,
        format!(
            "volume {dataset} cannot be deleted: it is attached to node {}, which holds its lease; {}",
            NamedNode(holder),
            end_of_use(dataset, holder)
        ),
    )
}
