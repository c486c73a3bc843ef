//! The protocol that attaches a dataset to a node and detaches it.

mod publish_context;
mod refusal;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{
    Absence, Cluster, FirstRead, LeaseOutcome, Lists, Probe, Release, Snapshot, WriteOutcome,
};
use crate::operation::{Context, Locks, Phase, Wanted};

pub(crate) use publish_context::publish_context;

/// How often an attachment starts over when another process changes the dataset during it.
const RESTARTS: u32 = 5;

/// When a volume is taken from a node that still holds its lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Takeover {
    /// Never.
    #[default]
    Never,
    /// When the node counts as gone.
    NodeGone,
}

/// Attaches datasets to nodes.
///
/// Flocker stores leases but checks them only when it unmounts, so the protocol is: acquire the lease, which only one
/// node can hold, then move, then wait until no other node has the dataset, then read everything again.
#[derive(Clone)]
pub struct Attach {
    cluster: Cluster,
    locks: Locks,
    takeover: Takeover,
    releases: Option<Arc<dyn PendingReleases>>,
    unreturned: Arc<Mutex<HashSet<(Uuid, Uuid)>>>,
}

/// The leases that this process's node still has to release, of stagings that have been undone.
pub(crate) trait PendingReleases: Send + Sync {
    /// Cancels every pending release of the lease of `node` on `dataset`, and returns whether there was one. The lease is
    /// the caller's from then on, which holds the dataset's lock.
    fn take_over(&self, dataset: Uuid, node: Uuid) -> BoxFuture<'_, Result<bool>>;
}

/// What an attachment does about a lease of another node that it may not take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherNodesLease {
    /// It fails at once: the orchestrator detaches before it attaches.
    Refuse,
    /// It waits for the release as long as callers wait: where the orchestrator only calls nodes, a task that restarts
    /// on another node is staged a moment before its predecessor is cleaned up.
    WaitFor,
}

impl Attach {
    /// Makes the protocol for `cluster`. `locks` serialises it with other changes of a dataset.
    pub fn new(cluster: Cluster, locks: Locks) -> Self {
        Self {
            cluster,
            locks,
            takeover: Takeover::default(),
            releases: None,
            unreturned: Arc::default(),
        }
    }

    /// Makes an attachment keep a lease that this process's node is about to release; it would lose it a moment later.
    /// `locks` have to be those under which the node releases.
    #[must_use]
    pub(crate) fn taking_from(self, releases: Arc<dyn PendingReleases>) -> Self {
        Self {
            releases: Some(releases),
            ..self
        }
    }

    /// Sets when a dataset is taken from a node that has not released it.
    #[must_use]
    pub(crate) fn taking_over(self, takeover: Takeover) -> Self {
        Self { takeover, ..self }
    }

    /// Acquires the lease on `dataset` for `node` and makes it the only node that has the dataset.
    ///
    /// Repeating it is harmless. When it ends with a final error, a lease is released that it acquired, or that an earlier
    /// attachment of this process requested without ending in success. One that the node had before stays, because it
    /// may protect a volume in use.
    ///
    /// # Errors
    /// [`Situation::UnknownVolume`], [`Situation::HeldElsewhere`] naming the node, [`Situation::Busy`] when another
    /// process kept changing the dataset, [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub(crate) async fn attach(
        &self,
        context: &Context,
        dataset: Uuid,
        node: Uuid,
        other_lease: OtherNodesLease,
    ) -> Result<()> {
        context.about(dataset);
        let attachment = Attachment {
            attach: self,
            context,
            dataset,
            node,
            other_lease,
        };
        let lease = (dataset, node);
        match attachment.run().await {
            Ok(()) => {
                self.unreturned().remove(&lease);
                Ok(())
            }
            Err(error) if error.situation().is_final() && self.unreturned().contains(&lease) => {
                let _guard = self.locks.lock(context, dataset).await?;
                match self.cluster.release_lease_for(context, dataset, Some(node)).await {
                    Ok(Release::Released | Release::NotHeld) => {
                        self.unreturned().remove(&lease);
                        Err(error)
                    }
                    // A final answer promises that nothing is left, so the caller has to repeat the call.
                    Err(still_leased) => Err(still_leased.context(error.chain())),
                }
            }
            ended => ended,
        }
    }

    /// Releases the lease of `node` on `dataset`, or of any node for `None`. The dataset stays on its node.
    ///
    /// # Errors
    /// [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub(crate) async fn detach(
        &self,
        context: &Context,
        dataset: Uuid,
        node: Option<Uuid>,
    ) -> Result<Release> {
        context.about(dataset);
        let _guard = self.locks.lock(context, dataset).await?;
        let release = self.cluster.release_lease_for(context, dataset, node).await?;
        self.unreturned()
            .retain(|(leased, holder)| *leased != dataset || node.is_some_and(|node| node != *holder));
        Ok(release)
    }

    /// The leases, by dataset and node, that attachments of this process have requested and that no caller has been
    /// answered with yet. A request whose outcome is unclear counts: it may have been carried out.
    fn unreturned(&self) -> MutexGuard<'_, HashSet<(Uuid, Uuid)>> {
        self.unreturned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a lease may be taken from the node that holds it.
    fn may_take_over(&self, snapshot: &Snapshot, holder: Uuid) -> bool {
        // Queried with every setting: the message contains it.
        !snapshot.lists_node(holder)
            && self.cluster.absence(holder) == Absence::Gone
            && self.takeover == Takeover::NodeGone
    }
}

/// The outcome of one attempt.
enum AttemptOutcome {
    Attached,
    /// Another process changed lease, primary or configuration during it.
    StartOver,
    /// What blocked it from the beginning does so no longer.
    Unblocked,
}

/// One attachment.
struct Attachment<'a> {
    attach: &'a Attach,
    context: &'a Context,
    dataset: Uuid,
    node: Uuid,
    other_lease: OtherNodesLease,
}

impl Attachment<'_> {
    async fn run(&self) -> Result<()> {
        let mut restarts = 0;
        while restarts <= RESTARTS {
            match self.attempt().await? {
                AttemptOutcome::Attached => return Ok(()),
                AttemptOutcome::StartOver => restarts += 1,
                AttemptOutcome::Unblocked => {}
            }
            self.context.check()?;
        }
        let Self { dataset, node, .. } = self;
        Err(Error::new(
            Situation::Busy,
            format!(
                "dataset {dataset} was leased, moved or deleted by another process {RESTARTS} times while it was being \
                 attached to node {node}; find out which, and try again"
            ),
        ))
    }

    async fn attempt(&self) -> Result<AttemptOutcome> {
        let (context, dataset, node) = (self.context, self.dataset, self.node);
        let cluster = &self.attach.cluster;
        let guard = self.attach.locks.lock(context, dataset).await?;
        let (primary, lease) = if let Some(primary) = cluster.take_created(dataset, node) {
            // Nothing can have used it before. If another process has leased it since, acquiring the lease is refused.
            (primary, None)
        } else {
            let before = match self.read_before(cluster.nodes_unless_recent()).await? {
                before if self.is_clear(&before) => before,
                // A node that counts as missing, or another node's lease, is only ever judged by a new list of the nodes.
                before if before.lists().contains(Lists::NODES) => before,
                _ => self.read_before(Lists::NODES).await?,
            };
            let primary = before
                .live_dataset(dataset)?
                .ok_or_else(|| Error::unknown_volume(dataset))?
                .primary;
            if !cluster.listed_lately(&before, node) {
                drop(guard);
                self.node_reporting().await?;
                return Ok(AttemptOutcome::Unblocked);
            }
            let lease = before.lease(dataset)?.cloned();
            if let Some(holder) = self.other_holder(&before)?
                && !self.attach.may_take_over(&before, holder)
            {
                drop(guard);
                return self.held_by(holder, &before).await;
            }
            (primary, lease)
        };
        if let Some(holder) = lease
            .as_ref()
            .map(|lease| lease.node_uuid)
            .filter(|holder| *holder != node)
        {
            context.check()?;
            let taking = cluster.take_over_lease(dataset, holder);
            context.during(Phase::FlockerAnswering, taking).await?;
        }
        if let Some(releases) = &self.attach.releases
            && releases.take_over(dataset, node).await?
        {
            self.attach.unreturned().insert((dataset, node));
        }
        let lease = lease.as_ref();
        if lease.is_none_or(|lease| lease.node_uuid != node || lease.expires.is_some()) {
            context.enter(Phase::Configured {
                what: Wanted::Lease,
                node,
            });
            let leased = cluster.acquire_lease(dataset, node).await;
            let had_none = lease.is_none_or(|lease| lease.node_uuid != node);
            if matches!(&leased, Ok(LeaseOutcome::New))
                || (had_none && leased.as_ref().is_err_and(Error::is_unclear))
            {
                self.attach.unreturned().insert((dataset, node));
            }
            // The race for the lease may be lost; the next read shows to which node.
            if leased? == LeaseOutcome::HeldByAnother {
                self.attach.unreturned().remove(&(dataset, node));
                return Ok(AttemptOutcome::StartOver);
            }
        }
        if primary != node {
            context.enter(Phase::Configured {
                what: Wanted::Move,
                node,
            });
            if cluster.move_dataset(dataset, node).await? == WriteOutcome::NoSuchDataset {
                return Err(Error::unknown_volume(dataset));
            }
        }
        // Without the lock while the dataset converges: a publish to another node is refused at once.
        drop(guard);
        let first = if primary == node {
            FirstRead::AtOnce
        } else {
            // The other node cannot have released it yet.
            let (node, mounted) = (primary, false);
            context.enter(Phase::ReleasedByOtherNode { node, mounted });
            FirstRead::Soon
        };
        self.converged(first).await
    }

    /// Reads what decides how the attachment starts; the leases last.
    async fn read_before(&self, more: Lists) -> Result<Arc<Snapshot>> {
        let lists = Lists::CONFIGURATION | Lists::LEASES | more;
        self.attach.cluster.fresh_for(self.context, lists).await
    }

    /// Whether the dataset exists, the node is listed, and no other node holds the lease.
    fn is_clear(&self, before: &Snapshot) -> bool {
        let listed = self.attach.cluster.listed_lately(before, self.node);
        listed
            && matches!(before.live_dataset(self.dataset), Ok(Some(_)))
            && matches!(self.other_holder(before), Ok(None))
    }

    fn other_holder(&self, snapshot: &Snapshot) -> Result<Option<Uuid>> {
        let holder = holder_of(snapshot, self.dataset)?;
        Ok(holder.filter(|holder| *holder != self.node))
    }

    /// Waits until no other node has the dataset, and checks that it is still configured for this node.
    async fn converged(&self, first: FirstRead) -> Result<AttemptOutcome> {
        let (context, dataset, node) = (self.context, self.dataset, self.node);
        let cluster = &self.attach.cluster;
        let lists = Lists::CONFIGURATION | Lists::LEASES;
        let alone = cluster.wait_unless(
            (Lists::STATE, first),
            context,
            |snapshot| alone(snapshot, dataset, node),
            // A dataset that was moved or deleted during the wait never converges.
            lists,
            |snapshot| (!belongs_to(snapshot, dataset, node)).then_some(AttemptOutcome::StartOver),
        );
        match alone.await? {
            AttemptOutcome::Attached => {}
            changed => return Ok(changed),
        }
        let after = cluster.fresh_for(context, lists).await?;
        Ok(if belongs_to(&after, dataset, node) {
            AttemptOutcome::Attached
        } else {
            AttemptOutcome::StartOver
        })
    }
}

/// Whether no node but `node` has the dataset, as far as nodes report it. Staging waits for the mount on `node`.
///
/// Without an entry of the dataset the list proves nothing: it is empty after a restart of the control service, and while
/// datasets move. Then the node has to be listed by the same read. An entry comes from a node that reports, and one without
/// a primary says that no node has the dataset mounted.
fn alone(snapshot: &Snapshot, dataset: Uuid, node: Uuid) -> Probe<AttemptOutcome> {
    let states = snapshot.states(dataset);
    if states.iter().any(|state| state.unreadable_primary) {
        return Probe::Waiting(Phase::ReleasedByUnknownNode);
    }
    let elsewhere = states
        .iter()
        .filter_map(|state| Some((state.primary?, state.path.is_some())))
        .find(|(primary, _)| *primary != node);
    if let Some((node, mounted)) = elsewhere {
        return Probe::Waiting(Phase::ReleasedByOtherNode { node, mounted });
    }
    if !states.is_empty() {
        Probe::Ready(AttemptOutcome::Attached)
    } else if !snapshot.lists().contains(Lists::NODES) {
        Probe::Needs(Lists::NODES)
    } else if snapshot.lists_node(node) {
        Probe::Ready(AttemptOutcome::Attached)
    } else {
        Probe::Waiting(Phase::NodeReporting { node })
    }
}

/// Whether lease and configuration assign the dataset to the node. What cannot be read does not.
fn belongs_to(snapshot: &Snapshot, dataset: Uuid, node: Uuid) -> bool {
    holder_of(snapshot, dataset).is_ok_and(|holder| holder == Some(node))
        && matches!(snapshot.live_dataset(dataset), Ok(Some(found)) if found.primary == node)
}

/// Returns the node that holds the lease on a dataset.
fn holder_of(snapshot: &Snapshot, dataset: Uuid) -> Result<Option<Uuid>> {
    Ok(snapshot.lease(dataset)?.map(|lease| lease.node_uuid))
}
