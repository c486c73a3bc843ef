//! The one protocol that puts a dataset on a node and lets go of it.

use std::collections::HashMap;

use uuid::Uuid;

use crate::cluster::{Change, Claim, Cluster, Lists, Probe, Release, Snapshot};
use crate::error::{Error, Result, Situation};
use crate::operation::{Context, Locks, Phase};
use crate::status::is_final;
use crate::volume::NODE_CONTEXT_KEY;

/// How often an attachment starts over when somebody else changes the dataset meanwhile.
const RESTARTS: u32 = 5;

/// Attaches datasets to nodes.
///
/// Flocker stores leases but checks them nowhere except when it unmounts, so the protocol is: acquire the lease,
/// which only one node can, then move, then wait until no other node has the dataset, then read everything again.
#[derive(Clone)]
pub struct Attach {
    cluster: Cluster,
    locks: Locks,
}

/// What one pass through the protocol ended with.
enum Pass {
    Attached,
    /// Somebody changed lease, primary or configuration meanwhile.
    StartOver,
    /// The node was not listed, and is again.
    NodeReturned,
}

impl Attach {
    /// Makes the protocol for `cluster`. `locks` serialises it with whatever else changes a dataset.
    pub fn new(cluster: Cluster, locks: Locks) -> Self {
        Self { cluster, locks }
    }

    /// Gives `node` the lease on `dataset` and makes it the only node that has it.
    ///
    /// Repeating it is harmless. When it ends with a final error, a lease that it acquired is released.
    ///
    /// # Errors
    /// [`Situation::UnknownVolume`], [`Situation::HeldElsewhere`] naming the node, [`Situation::Busy`] when others
    /// kept changing the dataset, [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub async fn attach(&self, context: &Context, dataset: Uuid, node: Uuid) -> Result<()> {
        context.about(dataset);
        let mut acquired = false;
        let ended = self.run(context, dataset, node, &mut acquired).await;
        match ended {
            Err(error) if acquired && is_final(error.situation()) => {
                let _guard = self.locks.lock(context, dataset).await?;
                match self.cluster.release_lease_of(dataset, Some(node)).await {
                    Ok(Release::Released | Release::NotHeld) => Err(error),
                    // A final answer would promise that nothing is left, so the caller has to come back.
                    Err(still_leased) => Err(still_leased.while_doing(error.chain())),
                }
            }
            ended => ended,
        }
    }

    /// Releases the lease of `node` on `dataset`, or anybody's for `None`. The dataset stays where it is.
    ///
    /// # Errors
    /// [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub async fn detach(&self, context: &Context, dataset: Uuid, node: Option<Uuid>) -> Result<Release> {
        context.about(dataset);
        let _guard = self.locks.lock(context, dataset).await?;
        self.cluster.release_lease_of(dataset, node).await
    }

    async fn run(&self, context: &Context, dataset: Uuid, node: Uuid, acquired: &mut bool) -> Result<()> {
        let mut restarts = 0;
        while restarts <= RESTARTS {
            match self.pass(context, dataset, node, acquired).await? {
                Pass::Attached => return Ok(()),
                Pass::StartOver => restarts += 1,
                Pass::NodeReturned => {}
            }
            context.check()?;
        }
        Err(Error::new(
            Situation::Busy,
            format!(
                "dataset {dataset} was leased, moved or deleted by somebody else {RESTARTS} times while it was being \
                 attached to node {node}; find out who, and try again"
            ),
        ))
    }

    async fn pass(&self, context: &Context, dataset: Uuid, node: Uuid, acquired: &mut bool) -> Result<Pass> {
        let guard = self.locks.lock(context, dataset).await?;
        let before = self
            .cluster
            .fresh_for(context, Lists::CONFIGURATION | Lists::LEASES | Lists::NODES)
            .await?;
        let primary = before
            .live_dataset(dataset)
            .ok_or_else(|| unknown(dataset))?
            .primary;
        if !before.lists_node(node) {
            drop(guard);
            self.cluster.wait_for_node(context, node).await?;
            return Ok(Pass::NodeReturned);
        }
        match before.lease(dataset) {
            Some(lease) if lease.node_uuid != node => {
                return Err(held_elsewhere(dataset, node, lease.node_uuid));
            }
            Some(lease) if lease.expires.is_none() => {}
            Some(_) | None => match self.cluster.claim_lease(dataset, node).await? {
                Claim::New => *acquired = true,
                Claim::Renewed => {}
                Claim::HeldByAnother => return self.lost_race(context, dataset, node).await,
            },
        }
        if primary != node && self.cluster.move_dataset(dataset, node).await? == Change::Gone {
            return Err(unknown(dataset));
        }
        // Others may work on the dataset while it converges: a publish elsewhere is refused, not kept waiting.
        drop(guard);
        self.cluster
            .wait_until(Lists::NODES | Lists::STATE, context, |snapshot| {
                alone(snapshot, dataset, node)
            })
            .await?;
        let after = self
            .cluster
            .fresh_for(context, Lists::CONFIGURATION | Lists::LEASES)
            .await?;
        let ours = after.lease(dataset).is_some_and(|lease| lease.node_uuid == node)
            && after
                .live_dataset(dataset)
                .is_some_and(|dataset| dataset.primary == node);
        Ok(if ours { Pass::Attached } else { Pass::StartOver })
    }

    async fn lost_race(&self, context: &Context, dataset: Uuid, node: Uuid) -> Result<Pass> {
        let snapshot = self.cluster.fresh_for(context, Lists::LEASES).await?;
        match snapshot.lease(dataset) {
            Some(lease) if lease.node_uuid != node => Err(held_elsewhere(dataset, node, lease.node_uuid)),
            Some(_) | None => Ok(Pass::StartOver),
        }
    }
}

/// Returns the publish context of a volume that was attached to `node`: it tells the node that the controller
/// holds the lease.
pub fn publish_context(node: Uuid) -> HashMap<String, String> {
    HashMap::from([(NODE_CONTEXT_KEY.to_owned(), node.to_string())])
}

/// Whether no node but `node` has the dataset, as far as nodes report it. The mount on `node` is watched there.
fn alone(snapshot: &Snapshot, dataset: Uuid, node: Uuid) -> Probe<()> {
    if !snapshot.lists_node(node) {
        return Probe::Waiting(Phase::NodeReporting { node });
    }
    let elsewhere = snapshot
        .states(dataset)
        .iter()
        .filter_map(|state| state.primary)
        .find(|primary| *primary != node);
    match elsewhere {
        Some(other) => Probe::Waiting(Phase::ReleasedByOtherNode { node: other }),
        None => Probe::Ready(()),
    }
}

/// Makes the error of a dataset that does not exist, or not any more.
pub fn unknown(dataset: Uuid) -> Error {
    Error::new(
        Situation::UnknownVolume,
        format!("volume {dataset} does not exist: Flocker has no live dataset of that id"),
    )
}

fn held_elsewhere(dataset: Uuid, node: Uuid, holder: Uuid) -> Error {
    Error::new(
        Situation::HeldElsewhere,
        format!(
            "volume {dataset} cannot be attached to node {node}: it is attached to node {holder}, which holds its \
             lease; unpublish it there first"
        ),
    )
}
