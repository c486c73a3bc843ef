//! The line of the log when a staged volume becomes abnormal, and the one when it is healthy again.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

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
        let not_answering = core.usage.not_answering(NOT_ANSWERING);
        let found = match host.blocking(move |host| host.faults(&not_answering)).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Cannot check which staged volumes have a fault");
                return;
            }
        };
        let is_staged = |dataset: Uuid| staged.iter().any(|recorded| recorded.dataset == dataset);
        self.volumes.keep(is_staged);
        let found: BTreeMap<_, _> = found.into_iter().collect();
        for RecordedDataset { dataset, .. } in &staged {
            match found.get(dataset) {
                None => self.volumes.healthy(*dataset),
                // It is logged there, and neither ends another fault nor is one here.
                Some(VolumeFault::Lease(_)) => {}
                Some(fault) => self.volumes.abnormal(*dataset, fault.reason(), fault),
            }
        }
    }
}
