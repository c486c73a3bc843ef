//! Where a volume's storage is made: waiting for it, and choosing another node when the first one has gone.

use uuid::Uuid;

use super::provisioner::Provisioner;
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Absence, Change, Lists, Probe, Snapshot};
use crate::operation::{Context, Phase};

/// What a snapshot tells about a dataset whose backing volume is waited for.
enum Seen {
    Backed,
    Deleted,
    /// The node that was to make it has gone.
    Orphaned(Uuid),
}

impl Provisioner {
    /// Waits until some node reports the dataset, mounted or not: its backing volume exists from then on.
    ///
    /// A dataset whose node is gone is given to another one.
    ///
    /// # Errors
    /// [`Situation::UnknownVolume`] when somebody deleted the dataset meanwhile; [`Situation::InUse`],
    /// [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub(super) async fn wait_until_backed(&self, context: &Context, dataset: Uuid) -> Result<()> {
        let lists = Lists::CONFIGURATION | Lists::STATE | Lists::NODES;
        loop {
            let seen = self
                .cluster
                .wait_until(lists, context, |snapshot| self.look(snapshot, dataset))
                .await?;
            match seen {
                Seen::Backed => return Ok(()),
                Seen::Deleted => return Err(Error::unknown_volume(dataset)),
                Seen::Orphaned(gone) => self.move_off(context, dataset, gone).await?,
            }
        }
    }

    fn look(&self, snapshot: &Snapshot, dataset: Uuid) -> Probe<Seen> {
        let Some(configured) = snapshot.live_dataset(dataset) else {
            return Probe::Ready(Seen::Deleted);
        };
        let primary = configured.primary;
        if !snapshot.states(dataset).is_empty() {
            Probe::Ready(Seen::Backed)
        } else if snapshot.lists_node(primary) {
            Probe::Waiting(Phase::BackingVolume { node: primary })
        } else if self.cluster.absence(primary) == Absence::Gone {
            Probe::Ready(Seen::Orphaned(primary))
        } else {
            Probe::Waiting(Phase::NodeReporting { node: primary })
        }
    }

    /// Makes a live node the primary of a dataset whose primary `gone` is gone.
    ///
    /// Nothing happens when the dataset has another primary, or none, by this time: the caller looks again.
    ///
    /// # Errors
    /// [`Situation::InUse`] naming the node that holds the dataset's lease, [`Situation::NodeNotReporting`] when there
    /// is no other node, [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub async fn move_off(&self, context: &Context, dataset: Uuid, gone: Uuid) -> Result<()> {
        let only = context.unless_cancelled(self.settings.scope.node()).await??;
        let _guard = self.locks.lock(context, dataset).await?;
        let lists = Lists::CONFIGURATION | Lists::STATE | Lists::NODES | Lists::LEASES;
        let snapshot = self.cluster.fresh_for(context, lists).await?;
        if snapshot
            .live_dataset(dataset)
            .is_none_or(|found| found.primary != gone)
            || snapshot.lists_node(gone)
        {
            return Ok(());
        }
        if let Some(lease) = snapshot.lease(dataset) {
            let text = format!(
                "volume {dataset} is on node {gone}, which is gone, but node {} holds its lease; unpublish it there first",
                lease.node_uuid
            );
            return Err(Error::new(Situation::InUse, text));
        }
        let nodes = snapshot
            .nodes()
            .map(|node| node.uuid)
            .filter(|node| only.is_none_or(|only| only == *node));
        let usage = self.usage(&snapshot);
        let Some(target) = usage.least_loaded(nodes) else {
            let text = format!(
                "volume {dataset} is on node {gone}, which is gone, and no other node can take it over"
            );
            return Err(Error::new(Situation::NodeNotReporting, text));
        };
        context.check()?;
        if self.cluster.move_dataset(dataset, target).await? == Change::Done {
            tracing::warn!(
                dataset.id = %dataset,
                node.id = %target,
                "Dataset {dataset} was moved to node {target}, because node {gone}, where it was, is gone"
            );
        }
        Ok(())
    }
}
