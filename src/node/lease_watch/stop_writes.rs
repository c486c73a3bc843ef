//! Stopping writes to what another node may have.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::confirmation::Confirmation;
use super::decide::{Evidence, LeaseView, Verdict, decide};
use super::{PATIENCE, TOGETHER, lease_of, report};
use crate::error::Result;
use crate::flocker::cluster::Lists;
use crate::host::{Host, LeaseCondition, Protection, RecordedDataset, VolumeUse};
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
    without_lease: &[(&RecordedDataset, LeaseView)],
) -> Settled {
    let mut settled = Settled::All;
    let mut lost = Vec::new();
    for (recorded, lease) in without_lease {
        match protection(host, recorded, node, *lease).await {
            Ok(Protection::Lost) => lost.push(*recorded),
            Ok(_) => {}
            Err(error) => {
                settled = Settled::NotAll;
                report_failure(recorded.dataset, &error);
            }
        }
    }
    for together in lost.chunks(TOGETHER) {
        let mut locked = Vec::new();
        for recorded in together {
            match core.locks.try_lock(recorded.dataset) {
                Some(guard) => locked.push((guard, *recorded)),
                // An operation that unmounts the volume finds out by itself.
                None => settled = Settled::NotAll,
            }
        }
        let mut confirmation = Confirmation::default();
        for (_guard, recorded) in locked {
            let stopped = async {
                let snapshot = confirmation.read(core).await?;
                let lease = lease_of(&snapshot, recorded, node)?;
                stop_if_lost(core, host, recorded, node, lease).await
            };
            if let Err(error) = stopped.await {
                settled = Settled::NotAll;
                report_failure(recorded.dataset, &error);
            }
        }
    }
    settled
}

/// Returns whether another node may have a volume with this lease. Where the lease is this node's or no node's, that is not
/// asked, and neither where it is the one of this machine under another UUID than that of the staging.
pub(super) async fn protection(
    host: &Arc<Host>,
    recorded: &RecordedDataset,
    node: Uuid,
    lease: LeaseView,
) -> Result<Protection> {
    let dataset = recorded.dataset;
    match lease {
        LeaseView::OtherNodes(holder) if holder != node => {
            host.blocking(move |host| host.protection(dataset)).await
        }
        _ => Ok(Protection::Pinned),
    }
}

/// Stops writes to a volume if that is what this lease requires. The caller holds the dataset's lock since before the lease
/// was read.
async fn stop_if_lost(
    core: &Arc<NodeCore>,
    host: &Arc<Host>,
    recorded: &RecordedDataset,
    node: Uuid,
    lease: LeaseView,
) -> Result<()> {
    let dataset = recorded.dataset;
    let protection = protection(host, recorded, node, lease).await?;
    if protection != Protection::Lost {
        return Ok(());
    }
    let used_by = match host.blocking(move |host| host.use_of(dataset)).await? {
        VolumeUse::NotHeld | VolumeUse::Unused => return Ok(()),
        VolumeUse::Used(how) => how,
    };
    let evidence = Evidence {
        lease,
        takes_lease: recorded.takes_lease,
        used: true,
        unused_for: Duration::ZERO,
        grace: core.settings.leases.abandoned_grace,
        just_released: false,
        protection,
    };
    if let Verdict::StopWrites(holder) = decide(&evidence) {
        let protection = stop_writes(core, host, recorded.dataset, holder).await;
        let condition = LeaseCondition::of_other(holder, protection);
        let node = recorded.nodes.first().copied().unwrap_or(node);
        report(core, host, recorded.dataset, node, Some(condition), &used_by);
    }
    Ok(())
}

/// Shuts down the file systems of a volume, and counts and logs it.
pub(super) async fn stop_writes(
    core: &Arc<NodeCore>,
    host: &Arc<Host>,
    dataset: Uuid,
    holder: Uuid,
) -> Protection {
    let stopped = host.blocking(move |host| host.stop_writes(dataset)).await;
    let protection = stopped.unwrap_or_else(|error| {
        report_failure(dataset, &error);
        Protection::Unstoppable
    });
    let known = host.lease_condition(dataset);
    if known != Some(LeaseCondition::of_other(holder, protection)) {
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
        "Dataset {dataset} is staged here without a lease of this node, and whether writes to it have to be stopped cannot be \
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
        let is_lost = host.blocking(move |host| Ok(host.protection(dataset)? == Protection::Lost));
        if !matches!(is_lost.await, Ok(true)) {
            return;
        }
        let stopped = async {
            let node = (self.this_node)().await?;
            let snapshot = self.cluster.fresh(Lists::LEASES).await?;
            let lease = lease_of(&snapshot, &recorded, node)?;
            stop_if_lost(self, host, &recorded, node, lease).await
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
