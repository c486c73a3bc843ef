//! Watching the leases of the volumes that are staged here.
//!
//! An orchestrator may release a lease that a volume still needs, and may never unstage one that it no longer uses: then
//! the pin would keep that from every other node, and from being destroyed. So the leases are read when the plugin starts,
//! and every 30 s while anything is staged.

mod calls;
mod confirmation;
pub(crate) mod decide;
mod faults;
mod stop_writes;
mod unexplained;
mod whose;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::NodeCore;
use super::operations::NodeOperation;
use crate::error::Result;
use crate::flocker::cluster::{LeaseOutcome, Lists, Snapshot};
use crate::host::{Host, LeaseCondition, RecordedDataset, VolumeUse};
use crate::telemetry::Counter;
use confirmation::Confirmation;
use decide::{Evidence, LeaseView, PrimaryView, Verdict, decide};
use faults::FaultLog;
use stop_writes::{Settled, confirm, protection, stop_all, stop_writes};
use unexplained::Unexplained;
use whose::lease_of;

/// How often the leases are read; more often where a volume is let go sooner.
const EVERY: Duration = Duration::from_secs(30);
/// The shortest time between two reads, whatever the settings.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// How soon the first read is attempted again while it fails: until it has succeeded, another node may have what is staged
/// here. The distance doubles.
const FIRST_READ_AGAIN: Duration = Duration::from_millis(250);
/// The longest distance between two attempts of the first read, and the one after which a volume is looked at again that
/// another operation had locked.
const FIRST_READ_AT_LEAST_EVERY: Duration = Duration::from_secs(2);
/// How long Flocker may take to answer while a volume is locked.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many volumes are locked for one confirming read. When a whole node loses its leases, each of its volumes needs one.
const TOGETHER: usize = 16;

/// What is done about leases that are not as they should be.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// How long a volume that nothing uses stays staged without a lease.
    pub abandoned_grace: Duration,
    /// How old a lease is at least that is reported because nothing of its volume is here.
    pub unexplained_grace: Duration,
    /// Whether unstaging a volume that is unknown here releases the lease of this node on it.
    pub only_nodes_attach: bool,
}

/// One read of the leases, and what was staged before it.
struct LeaseRead {
    staged: Vec<RecordedDataset>,
    node: Uuid,
    snapshot: Arc<Snapshot>,
}

/// What the watch remembers from one read to the next.
#[derive(Default)]
struct LeaseWatch {
    has_read: bool,
    /// Since when nothing uses a volume whose lease is not this node's.
    unused: HashMap<Uuid, Instant>,
    unexplained: Unexplained,
}

/// Starts to watch the leases, until the plugin stops or the node service no longer exists.
pub(super) fn start(core: &Arc<NodeCore>, host: &Arc<Host>) {
    let (watching, watched) = (Arc::downgrade(core), Arc::downgrade(host));
    // To its end: a volume that is being let go keeps its lock until that is done.
    let tasks = core.cluster.tasks();
    tasks.spawn_to_end("watching the leases of staged volumes", move || {
        watch(Weak::clone(&watching), Weak::clone(&watched))
    });
}

async fn watch(core: Weak<NodeCore>, host: Weak<Host>) {
    let mut watch = LeaseWatch::default();
    let mut faults = FaultLog::default();
    let mut first_read_again = FIRST_READ_AGAIN;
    loop {
        let (Some(core), Some(host)) = (core.upgrade(), host.upgrade()) else {
            return;
        };
        let mut every = EVERY.min(core.settings.leases.abandoned_grace).max(AT_MOST_EVERY);
        let stop = core.cluster.tasks().stop().clone();
        let read = stop.run_until_cancelled(watch.read(&core, &host)).await;
        match read {
            None => return,
            Some(Ok(None)) => {}
            Some(Ok(Some(read))) => {
                if watch.settle_all(&core, &host, &read).await == Settled::NotAll {
                    every = every.min(FIRST_READ_AT_LEAST_EVERY);
                }
            }
            Some(Err(error)) => {
                tracing::debug!(error = %error.chain(), "The leases of staged volumes cannot be checked now");
                if !watch.has_read {
                    every = every.min(first_read_again);
                    first_read_again = (first_read_again * 2).min(FIRST_READ_AT_LEAST_EVERY);
                }
            }
        }
        core.first_look.send_replace(true);
        faults.update(&core, &host).await;
        drop((core, host));
        if stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_none()
        {
            return;
        }
    }
}

impl LeaseWatch {
    /// Reads the leases, unless nothing depends on them.
    async fn read(&self, core: &NodeCore, host: &Host) -> Result<Option<LeaseRead>> {
        let staged = host.recorded_datasets();
        let is_due = self.unexplained.is_due(core.settings.leases.unexplained_grace);
        if self.has_read && staged.is_empty() && !is_due {
            return Ok(None);
        }
        let node = (core.this_node)().await?;
        let snapshot = core.cluster.fresh(Lists::LEASES).await?;
        Ok(Some(LeaseRead {
            staged,
            node,
            snapshot,
        }))
    }

    /// Does what the leases require. What another node may have is stopped first, as the rest may take a while.
    async fn settle_all(&mut self, core: &Arc<NodeCore>, host: &Arc<Host>, read: &LeaseRead) -> Settled {
        let LeaseRead { staged, node, .. } = read;
        self.has_read = true;
        self.unused
            .retain(|dataset, _| staged.iter().any(|recorded| recorded.dataset == *dataset));
        host.forget_leases_of_unstaged();
        let lease_of = |recorded: &RecordedDataset| lease_of(&read.snapshot, recorded, *node);
        let own = staged
            .iter()
            .filter(|recorded| lease_of(recorded) == LeaseView::Own);
        let own: Vec<Uuid> = own.map(|recorded| recorded.dataset).collect();
        // One job for all, and mostly nothing to do.
        let replaced = host.blocking(move |host| host.replaced_or_stopped(&own)).await;
        let replaced = replaced.unwrap_or_else(|error| {
            tracing::warn!(error = %error.chain(), "Cannot check which volumes Flocker has mounted again");
            Vec::new()
        });
        let mut in_question = Vec::new();
        for recorded in staged {
            let (dataset, lease) = (recorded.dataset, lease_of(recorded));
            if lease == LeaseView::Own && !replaced.contains(&dataset) {
                self.unused.remove(&dataset);
                report(core, host, dataset, *node, None, "");
            } else {
                in_question.push((recorded, lease));
            }
        }
        let settled = stop_all(core, host, *node, &in_question).await;
        core.first_look.send_replace(true);
        for together in in_question.chunks(TOGETHER) {
            // All of them before the read that confirms what is done. An operation that works on one finds out by itself.
            let locked: Vec<_> = together
                .iter()
                .filter_map(|(recorded, lease)| {
                    Some((core.locks.try_lock(recorded.dataset)?, recorded, lease))
                })
                .collect();
            let mut confirmation = Confirmation::default();
            for (_guard, recorded, lease) in locked {
                let settled = self.settle(core, host, recorded, *node, *lease, &mut confirmation);
                if let Err(error) = settled.await {
                    let dataset = recorded.dataset;
                    tracing::warn!(
                        volume.id = %dataset,
                        error = %error.chain(),
                        "Dataset {dataset} is staged on node {node} without protection, and what follows failed; it is tried \
                         again"
                    );
                }
            }
        }
        if let Err(error) = self.report_unexplained(core, host, read).await {
            tracing::warn!(error = %error.chain(), "Cannot check which leases of this node belong to no volume on it");
        }
        settled
    }

    /// Decides about a volume whose lease was not this node's, and does it. The caller holds the dataset's lock since before
    /// the confirming read.
    async fn settle(
        &mut self,
        core: &Arc<NodeCore>,
        host: &Arc<Host>,
        recorded: &RecordedDataset,
        node: Uuid,
        lease: LeaseView,
        confirmation: &mut Confirmation,
    ) -> Result<()> {
        let dataset = recorded.dataset;
        // It may only wait for the lease.
        if is_being_staged(core, dataset) {
            return Ok(());
        }
        let used_by = match host.blocking(move |host| host.use_of(dataset)).await? {
            VolumeUse::NotHeld => {
                host.note_lease(dataset, None);
                return Ok(());
            }
            VolumeUse::Unused => None,
            VolumeUse::Used(how) => Some(how),
        };
        let unused_for = if used_by.is_none() && lease != LeaseView::Own {
            self.unused.entry(dataset).or_insert_with(Instant::now).elapsed()
        } else {
            self.unused.remove(&dataset);
            Duration::ZERO
        };
        let mut evidence = Evidence {
            lease,
            primary: PrimaryView::Unknown,
            takes_lease: recorded.takes_lease,
            used: used_by.is_some(),
            unused_for,
            grace: core.settings.leases.abandoned_grace,
            just_released: core.cluster.has_released(dataset),
            protection: protection(host, recorded, node, lease).await?,
        };
        let mut verdict = decide(&evidence);
        let is_known = |condition| host.lease_condition(dataset) == Some(condition);
        if evidence.asks_primary() || !matches!(verdict, Verdict::Abnormal(condition) if is_known(condition))
        {
            // A staging may have acquired the lease since the read.
            confirm(core, host, recorded, node, &mut evidence, confirmation).await?;
            verdict = decide(&evidence);
        }
        if let Verdict::StopWrites(reason) = verdict {
            evidence.protection = stop_writes(core, host, dataset, reason).await;
            verdict = decide(&evidence);
        }
        let how = used_by.as_deref().unwrap_or("nothing uses it");
        let holder = recorded.nodes.first().copied().unwrap_or(node);
        match verdict {
            Verdict::Fine => {
                self.unused.remove(&dataset);
                report(core, host, dataset, holder, None, how);
            }
            Verdict::Abnormal(condition) => report(core, host, dataset, holder, Some(condition), how),
            // Stopped above, so that no decision is the same again.
            Verdict::StopWrites(reason) => {
                let condition = LeaseCondition::Unstoppable(reason);
                report(core, host, dataset, holder, Some(condition), how);
            }
            Verdict::LeaseAgain => lease_again(core, host, dataset, holder, how).await?,
            Verdict::LetGo => {
                host.blocking(move |host| host.let_go(dataset)).await?;
                self.unused.remove(&dataset);
                host.note_lease(dataset, None);
                core.cluster.counters().count(Counter::VolumesLetGo);
                let whose = match evidence.lease {
                    LeaseView::OtherNodes(other) => format!("node {other} holds its lease"),
                    LeaseView::NoNodes | LeaseView::Own | LeaseView::Unreadable => {
                        "no node holds its lease".to_owned()
                    }
                };
                tracing::warn!(
                    volume.id = %dataset,
                    node.id = %holder,
                    "Dataset {dataset} was still staged on node {holder} although {whose}, and nothing used it: it was \
                     unmounted and released, as NodeUnstageVolume does"
                );
            }
        }
        Ok(())
    }

    /// Reports leases of this node without anything of the volume here.
    async fn report_unexplained(
        &mut self,
        core: &Arc<NodeCore>,
        host: &Arc<Host>,
        LeaseRead { node, snapshot, .. }: &LeaseRead,
    ) -> Result<()> {
        let grace = core.settings.leases.unexplained_grace;
        let of_node = snapshot.leases().filter(|lease| lease.node_uuid == *node);
        let without_record: Vec<_> = of_node
            .map(|lease| lease.dataset_id)
            .filter(|dataset| !host.has_record(*dataset))
            .collect();
        for dataset in self.unexplained.note(&without_record, grace) {
            if host.blocking(move |host| host.is_known_here(dataset)).await? {
                continue;
            }
            self.unexplained.reported(dataset);
            core.cluster.counters().count(Counter::LeasesUnexplained);
            tracing::warn!(
                volume.id = %dataset,
                node.id = %node,
                "Node {node} has held the lease on dataset {dataset} for at least {} s, but neither a record nor a mount of \
                 it is here, so no other node can use it. If nothing on this node is going to, release the lease: \
                 ControllerUnpublishVolume with volume_id {dataset} and node_id {node}, or flocker-csi leases release \
                 {dataset} --node {node}",
                grace.as_secs()
            );
        }
        Ok(())
    }
}

fn is_being_staged(core: &NodeCore, dataset: Uuid) -> bool {
    core.operations.any(|operation, progress| {
        matches!(operation, NodeOperation::Stage(_)) && progress.dataset == Some(dataset)
    })
}

/// Acquires the lease of a volume in use again. The caller holds the dataset's lock.
async fn lease_again(core: &NodeCore, host: &Host, dataset: Uuid, node: Uuid, how: &str) -> Result<()> {
    match core.cluster.acquire_lease(dataset, node).await? {
        LeaseOutcome::New => {
            core.cluster.counters().count(Counter::LeasesAcquiredAgain);
            host.note_lease(dataset, None);
            tracing::warn!(
                volume.id = %dataset,
                node.id = %node,
                "The lease on dataset {dataset} was released although node {node} uses the volume ({how}): it is acquired \
                 again. Another orchestrator of this node, or another client of Flocker, released it"
            );
        }
        LeaseOutcome::Renewed => {
            host.note_lease(dataset, None);
        }
        // The next read shows which node's it is.
        LeaseOutcome::HeldByAnother => {}
    }
    Ok(())
}

/// Notes the condition of a volume; one that is new is logged and counted.
fn report(
    core: &NodeCore,
    host: &Host,
    dataset: Uuid,
    node: Uuid,
    condition: Option<LeaseCondition>,
    how: &str,
) {
    if !host.note_lease(dataset, condition) {
        return;
    }
    if let Some(condition) = condition {
        core.cluster.counters().count(Counter::LeasesLost);
        tracing::error!(
            volume.id = %dataset,
            node.id = %node,
            "Dataset {dataset} on node {node}: {condition} ({how})"
        );
    } else {
        tracing::info!(
            volume.id = %dataset,
            node.id = %node,
            "Dataset {dataset} is staged under the lease of node {node} again"
        );
    }
}
