//! Stopping writes to what another node may have.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::confirmation::Confirmation;
use super::decide::{Evidence, LeaseView, PrimaryView, Verdict, decide};
use super::whose::{lease_of, primary_of};
use super::{PATIENCE, TOGETHER, report};
use crate::error::Result;
use crate::flocker::cluster::Lists;
use crate::host::{Host, LeaseCondition, Protection, RecordedDataset, StopReason, StopScope, VolumeUse};
use crate::node::NodeCore;
use crate::telemetry::Counter;

/// Whether every volume was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    All,
    /// An operation had locked one, or what was to be done failed.
    NotAll,
}

/// Stops writes to every volume in use that another node may have, before anything else is done about any.
pub(super) async fn stop_all(
    core: &Arc<NodeCore>,
    host: &Arc<Host>,
    node: Uuid,
    in_question: &[(&RecordedDataset, LeaseView)],
) -> Settled {
    let mut settled = Settled::All;
    let mut lost = Vec::new();
    for (recorded, lease) in in_question {
        match protection(host, recorded, node, *lease).await {
            Ok(protection @ (Protection::Lost | Protection::Replaced)) => {
                lost.push((*recorded, evidence(core, recorded, *lease, protection)));
            }
            Ok(_) => {}
            Err(error) => {
                settled = Settled::NotAll;
                report_failure(recorded.dataset, &error);
            }
        }
    }
    for together in lost.chunks(TOGETHER) {
        let mut locked = Vec::new();
        for (recorded, evidence) in together {
            match core.locks.try_lock(recorded.dataset) {
                Some(guard) => locked.push((guard, *recorded, *evidence)),
                // An operation that unmounts the volume finds out by itself.
                None => settled = Settled::NotAll,
            }
        }
        let mut confirmation = Confirmation::default();
        for (_guard, recorded, mut evidence) in locked {
            let stopped = async {
                confirm(core, host, recorded, node, &mut evidence, &mut confirmation).await?;
                stop_if_lost(core, host, recorded, node, evidence).await
            };
            if let Err(error) = stopped.await {
                settled = Settled::NotAll;
                report_failure(recorded.dataset, &error);
            }
        }
    }
    settled
}

/// Returns what is known of a volume before anything else is read; what was not looked for counts as a use.
fn evidence(
    core: &NodeCore,
    recorded: &RecordedDataset,
    lease: LeaseView,
    protection: Protection,
) -> Evidence {
    Evidence {
        lease,
        primary: PrimaryView::Unknown,
        takes_lease: recorded.takes_lease,
        used: true,
        unused_for: Duration::ZERO,
        grace: core.settings.leases.abandoned_grace,
        just_released: false,
        protection,
    }
}

/// Reads again whose the volume is: its lease, and where that does not say it, its configured primary. The caller holds the
/// dataset's lock.
pub(super) async fn confirm(
    core: &Arc<NodeCore>,
    host: &Arc<Host>,
    recorded: &RecordedDataset,
    node: Uuid,
    evidence: &mut Evidence,
    confirmation: &mut Confirmation,
) -> Result<()> {
    loop {
        let mut lists = Lists::LEASES;
        lists.set(Lists::CONFIGURATION, evidence.asks_primary());
        let snapshot = confirmation.read(core, lists).await?;
        evidence.lease = lease_of(&snapshot, recorded, node);
        evidence.primary = primary_of(&snapshot, recorded, node);
        evidence.protection = protection(host, recorded, node, evidence.lease).await?;
        if !evidence.asks_primary() || snapshot.lists().contains(Lists::CONFIGURATION) {
            return Ok(());
        }
    }
}

/// Returns whether another node may have a volume with this lease. Where the lease is the one of this machine under another
/// UUID than that of the staging, that is not asked.
pub(super) async fn protection(
    host: &Arc<Host>,
    recorded: &RecordedDataset,
    node: Uuid,
    lease: LeaseView,
) -> Result<Protection> {
    let dataset = recorded.dataset;
    match lease {
        LeaseView::OtherNodes(holder) if holder == node => Ok(Protection::Pinned),
        _ => host.blocking(move |host| host.protection(dataset)).await,
    }
}

/// Stops writes to a volume if that is what this evidence requires, apart from its use, which is looked for here. The caller
/// holds the dataset's lock since before the evidence was read.
async fn stop_if_lost(
    core: &Arc<NodeCore>,
    host: &Arc<Host>,
    recorded: &RecordedDataset,
    node: Uuid,
    mut evidence: Evidence,
) -> Result<()> {
    let dataset = recorded.dataset;
    // A use takes long to look for.
    if !matches!(decide(&evidence), Verdict::StopWrites(_)) {
        return Ok(());
    }
    let used_by = match host.blocking(move |host| host.use_of(dataset)).await? {
        VolumeUse::NotHeld => return Ok(()),
        VolumeUse::Unused => None,
        VolumeUse::Used(how) => Some(how),
    };
    evidence.used = used_by.is_some();
    if let Verdict::StopWrites(reason) = decide(&evidence) {
        let protection = stop_writes(core, host, dataset, reason).await;
        let condition = LeaseCondition::after_stop(reason, protection);
        let node = recorded.nodes.first().copied().unwrap_or(node);
        let how = used_by.as_deref().unwrap_or("nothing uses it");
        report(core, host, dataset, node, Some(condition), how);
    }
    Ok(())
}

/// Shuts down the file systems of a volume, and counts and logs it.
pub(super) async fn stop_writes(
    core: &Arc<NodeCore>,
    host: &Arc<Host>,
    dataset: Uuid,
    reason: StopReason,
) -> Protection {
    let scope = match reason {
        StopReason::LeaseOf(_) | StopReason::PrimaryIs(_) => StopScope::All,
        StopReason::Replaced => StopScope::Replaced,
    };
    let stopped = host.blocking(move |host| host.stop_writes(dataset, scope)).await;
    let protection = stopped.unwrap_or_else(|error| {
        report_failure(dataset, &error);
        Protection::Unstoppable
    });
    let known = host.lease_condition(dataset);
    if known != Some(LeaseCondition::after_stop(reason, protection)) {
        core.cluster.counters().count(match protection {
            Protection::Stopped => Counter::WritesStopped,
            _ => Counter::WritesNotStopped,
        });
    }
    protection
}

fn report_failure(dataset: Uuid, error: &crate::error::Error) {
    tracing::error!(
        volume.id = %dataset,
        error = %error.chain(),
        "Dataset {dataset} is staged here without protection, and whether writes to it have to be stopped cannot be \
         settled; it is tried again"
    );
}

impl NodeCore {
    /// Waits until the leases of what is staged here have been looked at since the start, as far as Flocker answers.
    pub(in crate::node) async fn after_first_look(&self) {
        let mut looked = self.first_look.subscribe();
        if timeout(PATIENCE, looked.wait_for(|looked| *looked))
            .await
            .is_err()
        {
            // The next call does not wait again.
            self.first_look.send_replace(true);
        }
    }

    /// Stops writes to a volume that another node may have, and that is in use beyond what is about to be unmounted. A Flocker
    /// that does not answer is not waited for. The caller holds the dataset's lock.
    pub(in crate::node) async fn stop_before_unmount(self: &Arc<Self>, host: &Arc<Host>, dataset: Uuid) {
        let of_dataset = |recorded: &RecordedDataset| recorded.dataset == dataset;
        let Some(recorded) = host.recorded_datasets().into_iter().find(of_dataset) else {
            return;
        };
        let Ok(protection @ (Protection::Lost | Protection::Replaced)) =
            host.blocking(move |host| host.protection(dataset)).await
        else {
            return;
        };
        let stopped = async {
            let node = (self.this_node)().await?;
            // Of a volume that Flocker has mounted from another device, the lease says nothing.
            let mut evidence = evidence(self, &recorded, LeaseView::Own, protection);
            if protection == Protection::Lost {
                evidence.lease = LeaseView::NoNodes;
                let mut confirmation = Confirmation::default();
                confirm(self, host, &recorded, node, &mut evidence, &mut confirmation).await?;
            }
            stop_if_lost(self, host, &recorded, node, evidence).await
        };
        match timeout(PATIENCE, stopped).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = %error.chain(), "The lease of dataset {dataset} cannot be read");
            }
            Err(_elapsed) => tracing::debug!("The lease of dataset {dataset} cannot be read in time"),
        }
    }
}
