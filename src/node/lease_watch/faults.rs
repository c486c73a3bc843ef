//! The line of the log when a staged volume becomes abnormal, and the one when it is healthy again.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::host::{FaultReason, Host, VolumeFault};
use crate::node::NodeCore;
use crate::node::census::NOT_ANSWERING;

/// The faults that were logged and have not ended. Those of leases are logged where the leases are read.
#[derive(Default)]
pub(super) struct FaultLog {
    known: BTreeMap<Uuid, FaultReason>,
}

impl FaultLog {
    /// Looks at the staged volumes, and logs what has changed.
    pub(super) async fn update(&mut self, core: &NodeCore, host: &Arc<Host>) {
        let staged = host.recorded_datasets();
        if staged.is_empty() {
            self.known.clear();
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
        let mut before = std::mem::take(&mut self.known);
        for (dataset, fault) in found {
            if matches!(fault, VolumeFault::Lease(_)) {
                continue;
            }
            let reason = fault.reason();
            if before.remove(&dataset) != Some(reason) {
                let name = host.volume_labels(dataset).and_then(|labels| labels.name);
                tracing::warn!(
                    volume.id = %dataset,
                    volume.name = name,
                    "Volume {dataset} is abnormal: {fault}"
                );
            }
            self.known.insert(dataset, reason);
        }
        for dataset in before.into_keys() {
            // What was unstaged is no longer looked at.
            if staged.iter().any(|recorded| recorded.dataset == dataset) {
                let name = host.volume_labels(dataset).and_then(|labels| labels.name);
                tracing::info!(volume.id = %dataset, volume.name = name, "Volume {dataset} is healthy again");
            }
        }
    }
}
