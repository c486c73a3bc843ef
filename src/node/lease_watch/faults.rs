//! The line of the log when a staged volume becomes abnormal, and the one when it is healthy again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::error::Result;
use crate::host::{FaultReason, Host, RecordedDataset, VolumeFault};
use crate::node::NodeCore;
use crate::node::census::NOT_ANSWERING;
use crate::telemetry::AbnormalVolumes;

/// The faults that were logged and have not ended. Those of leases are logged where the leases are read.
#[derive(Default)]
pub(super) struct FaultLog {
    volumes: AbnormalVolumes<FaultReason>,
}

impl FaultLog {
    /// Looks at the staged volumes, and logs what has changed.
    pub(super) async fn update(&mut self, core: &NodeCore, host: &Arc<Host>) {
        let staged = host.recorded_datasets();
        if staged.is_empty() {
            self.volumes.keep(|_| false);
            return;
        }
        let (found, settled) = match look(core, host).await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Cannot check which staged volumes have a fault");
                return;
            }
        };
        let is_staged = |dataset: Uuid| staged.iter().any(|recorded| recorded.dataset == dataset);
        self.volumes.keep(is_staged);
        for RecordedDataset { dataset, .. } in &staged {
            match found.get(dataset) {
                None => self.volumes.healthy(*dataset),
                // It is logged there, and neither ends another fault nor is one here.
                Some(VolumeFault::Lease(_)) => {}
                // An operation is changing them, and finds out by itself what is wrong.
                Some(VolumeFault::Mount(_)) if !settled.contains(dataset) => {}
                Some(fault) => self.volumes.abnormal(*dataset, fault.reason(), fault),
            }
        }
    }
}

/// Returns the faults of the staged volumes, and those volumes with a fault of their mounts on which no operation worked
/// meanwhile: an operation changes mounts and record one after the other.
async fn look(core: &NodeCore, host: &Arc<Host>) -> Result<(BTreeMap<Uuid, VolumeFault>, BTreeSet<Uuid>)> {
    let not_answering = core.usage.not_answering(NOT_ANSWERING);
    let again = not_answering.clone();
    let found = host.blocking(move |host| host.faults(&not_answering)).await?;
    let of_mounts = found
        .iter()
        .filter(|(_, fault)| matches!(fault, VolumeFault::Mount(_)));
    let locked: BTreeMap<Uuid, _> = of_mounts
        .filter_map(|(dataset, _)| Some((*dataset, core.locks.try_lock(*dataset)?)))
        .collect();
    let found = if locked.is_empty() {
        found
    } else {
        host.blocking(move |host| host.faults(&again)).await?
    };
    Ok((found.into_iter().collect(), locked.into_keys().collect()))
}
