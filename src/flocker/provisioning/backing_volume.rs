//! A volume's storage: waiting until it is created, and moving the dataset when its node no longer exists.

use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

use super::placement::Placement;
use super::provisioner::Provisioner;
use super::request::Placed;
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Absence, AgentWork, FirstRead, Lists, Probe, Snapshot, WriteOutcome};
use crate::operation::{Context, Phase};
use crate::telemetry::log_names::NamedNode;
use crate::volume::end_of_use;

/// How a wait for the backing volume ends.
enum Ended {
    Backed,
    Deleted,
    /// Its entry in the configuration cannot be read.
    Unreadable(Error),
    /// The node that was to create it counts as gone.
    Orphaned(Uuid),
}

impl Provisioner {
    /// Waits until some node reports the dataset, mounted or not: its backing volume exists from then on.
    ///
    /// Only that list is read, and every 10 s whether the dataset is still to be created. A dataset whose node counts as gone
    /// is moved to another one.
    ///
    /// # Errors
    /// [`Situation::UnknownVolume`] when the dataset is deleted during the wait; [`Situation::InUse`],
    /// [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub(super) async fn wait_until_backed(
        &self,
        context: &Context,
        dataset: Uuid,
        mut placed: Placed,
        placement: &Placement,
    ) -> Result<()> {
        let checked = Lists::CONFIGURATION | Lists::NODES;
        loop {
            let first = if placed.new {
                FirstRead::After(AgentWork::Creating)
            } else {
                FirstRead::AtOnce
            };
            context.enter(Phase::BackingVolume { node: placed.primary });
            let missing = AtomicBool::new(!placed.listed);
            let probe = |snapshot: &Snapshot| {
                if !snapshot.states(dataset).is_empty() {
                    Probe::Ready(Ended::Backed)
                } else if snapshot.lists().contains(checked) {
                    self.see_unbacked(snapshot, dataset)
                } else if missing.load(Ordering::Relaxed) {
                    Probe::Needs(checked)
                } else {
                    Probe::Waiting(Phase::BackingVolume { node: placed.primary })
                }
            };
            let check = |snapshot: &Snapshot| match self.see_unbacked(snapshot, dataset) {
                Probe::Ready(ended) => Some(ended),
                Probe::Waiting(phase) => {
                    missing.store(matches!(phase, Phase::NodeReporting { .. }), Ordering::Relaxed);
                    None
                }
                Probe::Needs(_) => None,
            };
            let wait = self
                .cluster
                .wait_unless((Lists::STATE, first), context, probe, checked, check);
            match wait.await? {
                Ended::Backed => return Ok(()),
                Ended::Deleted => return Err(Error::unknown_volume(dataset)),
                Ended::Unreadable(error) => return Err(error),
                Ended::Orphaned(gone) => self.move_off(context, dataset, gone, placement).await?,
            }
            // What it is now, the first read shows.
            placed = Placed {
                listed: false,
                new: false,
                ..placed
            };
        }
    }

    /// Judges a dataset without a backing volume by the configuration and the nodes.
    fn see_unbacked(&self, snapshot: &Snapshot, dataset: Uuid) -> Probe<Ended> {
        let configured = match snapshot.live_dataset(dataset) {
            Ok(Some(configured)) => configured,
            Ok(None) => return Probe::Ready(Ended::Deleted),
            Err(unreadable) => return Probe::Ready(Ended::Unreadable(unreadable)),
        };
        let primary = configured.primary;
        if snapshot.lists_node(primary) {
            Probe::Waiting(Phase::BackingVolume { node: primary })
        } else if self.cluster.absence(primary) == Absence::Gone {
            Probe::Ready(Ended::Orphaned(primary))
        } else {
            Probe::Waiting(Phase::NodeReporting { node: primary })
        }
    }

    /// Moves a dataset from `gone`, a node that counts as gone, to a live node that `placement` chooses.
    ///
    /// It does nothing when the dataset has another primary by now, or does not exist: the caller reads again.
    ///
    /// # Errors
    /// [`Situation::InUse`] naming the node that holds the dataset's lease, [`Situation::NodeNotReporting`] without
    /// another node, [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub(crate) async fn move_off(
        &self,
        context: &Context,
        dataset: Uuid,
        gone: Uuid,
        placement: &Placement,
    ) -> Result<()> {
        let only = context.unless_cancelled(self.settings.scope.node()).await??;
        let _guard = self.locks.lock(context, dataset).await?;
        let lists = Lists::CONFIGURATION | Lists::STATE | Lists::NODES | Lists::LEASES;
        let snapshot = self.cluster.fresh_for(context, lists).await?;
        if snapshot
            .live_dataset(dataset)?
            .is_none_or(|found| found.primary != gone)
            || snapshot.lists_node(gone)
        {
            return Ok(());
        }
        if let Some(lease) = snapshot.lease(dataset)? {
            let text = format!(
                "volume {dataset} is on node {}, which is gone, but node {} holds its lease; {}",
                NamedNode(gone),
                NamedNode(lease.node_uuid),
                end_of_use(dataset, lease.node_uuid)
            );
            return Err(Error::new(Situation::InUse, text));
        }
        let nodes: Vec<_> = snapshot
            .nodes()
            .map(|node| node.uuid)
            .filter(|node| only.is_none_or(|only| only == *node))
            .collect();
        let Some(target) = placement.choose(&self.usage(&snapshot), &nodes) else {
            let text = format!(
                "volume {dataset} is on node {gone}, which is gone, and no other node that may have it reports to Flocker"
            );
            return Err(Error::new(Situation::NodeNotReporting, text));
        };
        context.check()?;
        if self.cluster.move_dataset(dataset, target).await? == WriteOutcome::Stored {
            tracing::warn!(
                volume.id = %dataset,
                node.id = %target,
                "Dataset {dataset} was moved from node {gone} to node {target}, because node {gone} is gone"
            );
        }
        Ok(())
    }
}
