//! The one protocol that puts a dataset on a node and lets go of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Absence, Change, Claim, Cluster, Lists, Probe, Release, Snapshot};
use crate::operation::{Context, Locks, Phase, Wanted};
use crate::volume::NODE_CONTEXT_KEY;

/// How often an attachment starts over when somebody else changes the dataset meanwhile.
const RESTARTS: u32 = 5;
/// How often lease and configuration are read again while the dataset converges, which may take for ever.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// When a volume is taken from a node that still holds its lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Takeover {
    /// Never.
    #[default]
    Never,
    /// When the node is lost.
    NodeGone,
}

/// Attaches datasets to nodes.
///
/// Flocker stores leases but checks them nowhere except when it unmounts, so the protocol is: acquire the lease,
/// which only one node can, then move, then wait until no other node has the dataset, then read everything again.
#[derive(Clone)]
pub struct Attach {
    cluster: Cluster,
    locks: Locks,
    takeover: Takeover,
    releases: Option<Arc<dyn PendingReleases>>,
    unreturned: Arc<Mutex<HashSet<(Uuid, Uuid)>>>,
}

/// The leases that the node of this process still has to release, from stagings that have been undone.
pub trait PendingReleases: Send + Sync {
    /// Gives up whatever release is due of the lease of `node` on `dataset`, and tells whether there was one: the lease
    /// is the caller's from here on, who holds the dataset's lock.
    fn take_over(&self, dataset: Uuid, node: Uuid) -> BoxFuture<'_, Result<bool>>;
}

/// What is done about a lease of another node that is not to be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OthersLease {
    /// Attaching is refused at once: who detaches and attaches keeps the order.
    Refuse,
    /// It is waited for as long as callers wait: where only nodes are asked, a task that was restarted elsewhere is
    /// staged a moment before its predecessor is cleaned up.
    WaitFor,
}

impl Attach {
    /// Makes the protocol for `cluster`. `locks` serialises it with whatever else changes a dataset.
    pub fn new(cluster: Cluster, locks: Locks) -> Self {
        Self {
            cluster,
            locks,
            takeover: Takeover::default(),
            releases: None,
            unreturned: Arc::default(),
        }
    }

    /// Makes an attachment take over the lease that a node of this process is about to release, which it would lose
    /// otherwise a moment later. `locks` have to be those under which that releases.
    #[must_use]
    pub fn taking_from(self, releases: Arc<dyn PendingReleases>) -> Self {
        Self {
            releases: Some(releases),
            ..self
        }
    }

    /// Decides when a dataset is taken from a node that has not given it up.
    #[must_use]
    pub fn taking_over(self, takeover: Takeover) -> Self {
        Self { takeover, ..self }
    }

    /// Gives `node` the lease on `dataset` and makes it the only node that has it.
    ///
    /// Repeating it is harmless. When it ends with a final error, a lease is released that it acquired, or that an earlier
    /// attachment of this process requested without ending in success. One that the node had before stays, because it
    /// may protect a volume in use.
    ///
    /// # Errors
    /// [`Situation::UnknownVolume`], [`Situation::HeldElsewhere`] naming the node, [`Situation::Busy`] when others
    /// kept changing the dataset, [`Situation::FlockerUnavailable`], [`Situation::Cancelled`].
    pub async fn attach(
        &self,
        context: &Context,
        dataset: Uuid,
        node: Uuid,
        others: OthersLease,
    ) -> Result<()> {
        context.about(dataset);
        let attachment = Attachment {
            attach: self,
            context,
            dataset,
            node,
            others,
        };
        let lease = (dataset, node);
        match attachment.run().await {
            Ok(()) => {
                self.unreturned().remove(&lease);
                Ok(())
            }
            Err(error) if error.situation().is_final() && self.unreturned().contains(&lease) => {
                let _guard = self.locks.lock(context, dataset).await?;
                match self.cluster.release_lease_of(dataset, Some(node)).await {
                    Ok(Release::Released | Release::NotHeld) => {
                        self.unreturned().remove(&lease);
                        Err(error)
                    }
                    // A final answer would promise that nothing is left, so the caller has to come back.
                    Err(still_leased) => Err(still_leased.context(error.chain())),
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
        let release = self.cluster.release_lease_of(dataset, node).await?;
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
        // Asked whatever the setting is: the answer is part of what is told.
        !snapshot.lists_node(holder)
            && self.cluster.absence(holder) == Absence::Gone
            && self.takeover == Takeover::NodeGone
    }
}

/// What one pass through the protocol ended with.
enum Pass {
    Attached,
    /// Somebody changed lease, primary or configuration meanwhile.
    StartOver,
    /// What stood in the way from the beginning has gone.
    WayIsFree,
}

/// One attachment.
struct Attachment<'a> {
    attach: &'a Attach,
    context: &'a Context,
    dataset: Uuid,
    node: Uuid,
    others: OthersLease,
}

impl Attachment<'_> {
    async fn run(&self) -> Result<()> {
        let mut restarts = 0;
        while restarts <= RESTARTS {
            match self.pass().await? {
                Pass::Attached => return Ok(()),
                Pass::StartOver => restarts += 1,
                Pass::WayIsFree => {}
            }
            self.context.check()?;
        }
        let Self { dataset, node, .. } = self;
        Err(Error::new(
            Situation::Busy,
            format!(
                "dataset {dataset} was leased, moved or deleted by somebody else {RESTARTS} times while it was being \
                 attached to node {node}; find out who, and try again"
            ),
        ))
    }

    async fn pass(&self) -> Result<Pass> {
        let (context, dataset, node) = (self.context, self.dataset, self.node);
        let cluster = &self.attach.cluster;
        let guard = self.attach.locks.lock(context, dataset).await?;
        let before = cluster
            .fresh_for(context, Lists::CONFIGURATION | Lists::LEASES | Lists::NODES)
            .await?;
        let primary = before
            .live_dataset(dataset)
            .ok_or_else(|| Error::unknown_volume(dataset))?
            .primary;
        if !before.lists_node(node) {
            drop(guard);
            cluster.wait_for_node(context, node).await?;
            return Ok(Pass::WayIsFree);
        }
        let lease = before.lease(dataset);
        if let Some(holder) = lease
            .map(|lease| lease.node_uuid)
            .filter(|holder| *holder != node)
        {
            if !self.attach.may_take_over(&before, holder) {
                drop(guard);
                return self.held_by(holder, &before).await;
            }
            context.check()?;
            cluster.take_over_lease(dataset, holder).await?;
        }
        if let Some(releases) = &self.attach.releases
            && releases.take_over(dataset, node).await?
        {
            self.attach.unreturned().insert((dataset, node));
        }
        if lease.is_none_or(|lease| lease.node_uuid != node || lease.expires.is_some()) {
            context.enter(Phase::Configured {
                what: Wanted::Lease,
                node,
            });
            let claim = cluster.claim_lease(dataset, node).await;
            let had_none = lease.is_none_or(|lease| lease.node_uuid != node);
            if matches!(&claim, Ok(Claim::New)) || (had_none && claim.as_ref().is_err_and(Error::is_unclear))
            {
                self.attach.unreturned().insert((dataset, node));
            }
            // The race for the lease may be lost; the next read shows to which node.
            if claim? == Claim::HeldByAnother {
                self.attach.unreturned().remove(&(dataset, node));
                return Ok(Pass::StartOver);
            }
        }
        if primary != node {
            context.enter(Phase::Configured {
                what: Wanted::Move,
                node,
            });
            if cluster.move_dataset(dataset, node).await? == Change::Gone {
                return Err(Error::unknown_volume(dataset));
            }
        }
        // Others may work on the dataset while it converges: a publish elsewhere is refused, not kept waiting.
        drop(guard);
        self.converged().await
    }

    /// Waits until no other node has the dataset, and looks whether it is still to be this node's.
    async fn converged(&self) -> Result<Pass> {
        let (context, dataset, node) = (self.context, self.dataset, self.node);
        let cluster = &self.attach.cluster;
        let lists = Lists::CONFIGURATION | Lists::LEASES;
        let alone = cluster.wait_until(Lists::NODES | Lists::STATE, context, |snapshot| {
            alone(snapshot, dataset, node)
        });
        let mut alone = std::pin::pin!(alone);
        loop {
            tokio::select! {
                alone = &mut alone => break alone?,
                // What somebody has moved away or deleted would be waited for in vain. A look that fails says nothing.
                meanwhile = cluster.later(lists, LOOK_AGAIN) => {
                    if meanwhile.is_ok_and(|meanwhile| !belongs_to(&meanwhile, dataset, node)) {
                        return Ok(Pass::StartOver);
                    }
                }
            }
        }
        let after = cluster.fresh_for(context, lists).await?;
        Ok(if belongs_to(&after, dataset, node) {
            Pass::Attached
        } else {
            Pass::StartOver
        })
    }

    /// Refuses because of another node's lease, or waits until that is no obstacle any more.
    async fn held_by(&self, holder: Uuid, seen: &Snapshot) -> Result<Pass> {
        let (context, dataset) = (self.context, self.dataset);
        let lists = Lists::LEASES | Lists::NODES;
        if self.others == OthersLease::Refuse {
            return Err(self.held_elsewhere(holder, seen));
        }
        let freed = self.attach.cluster.wait_until(lists, context, |snapshot| {
            if holder_of(snapshot, dataset) != Some(holder) || self.attach.may_take_over(snapshot, holder) {
                Probe::Ready(())
            } else {
                Probe::Waiting(Phase::LeaseOfNode { node: holder })
            }
        });
        tokio::select! {
            freed = freed => freed?,
            () = context.out_of_time() => {
                let last = self.attach.cluster.fresh_for(context, lists).await?;
                if let Some(holder) = holder_of(&last, dataset).filter(|holder| *holder != self.node) {
                    return Err(self.held_elsewhere(holder, &last));
                }
            }
        }
        Ok(Pass::WayIsFree)
    }

    fn held_elsewhere(&self, holder: Uuid, seen: &Snapshot) -> Error {
        let Self { dataset, node, .. } = self;
        let missing = if seen.lists_node(holder) {
            None
        } else {
            Some(match self.attach.cluster.absence(holder) {
                Absence::Gone => "is gone".to_owned(),
                Absence::Missing { since } => {
                    format!(
                        "has not been listed by Flocker for {:.0} s",
                        since.elapsed().as_secs_f64()
                    )
                }
                Absence::Unknown => "is not listed by Flocker".to_owned(),
            })
        };
        let what_to_do = match (missing, self.attach.takeover) {
            (None, _) => "unpublish it there first".to_owned(),
            (Some(missing), Takeover::Never) => format!(
                "that node {missing}; if it is off for certain, unpublish the volume from it (takeover = never)"
            ),
            (Some(missing), Takeover::NodeGone) => format!(
                "that node {missing}; once it has been missing for takeover_grace, the volume is taken from it: try again"
            ),
        };
        Error::new(
            Situation::HeldElsewhere,
            format!(
                "volume {dataset} cannot be attached to node {node}: it is attached to node {holder}, which holds its \
                 lease; {what_to_do}"
            ),
        )
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

/// Whether lease and configuration say that the dataset is the node's.
fn belongs_to(snapshot: &Snapshot, dataset: Uuid, node: Uuid) -> bool {
    holder_of(snapshot, dataset) == Some(node)
        && snapshot
            .live_dataset(dataset)
            .is_some_and(|dataset| dataset.primary == node)
}

fn holder_of(snapshot: &Snapshot, dataset: Uuid) -> Option<Uuid> {
    snapshot.lease(dataset).map(|lease| lease.node_uuid)
}
