//! Leases of this node that are still to be released.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::Core;
use super::host::{Host, Staged};
use crate::error::Result;

impl Core {
    /// Releases this node's lease on the dataset and forgets the record that asked for it.
    ///
    /// The caller holds the dataset's lock.
    pub(super) async fn release(&self, host: &Arc<Host>, staged: &Staged) -> Result<()> {
        let node = (self.this_node)().await?;
        self.cluster.release_lease_of(staged.dataset, Some(node)).await?;
        let forget = staged.clone();
        host.blocking(move |host| host.forget(&forget)).await
    }
}

/// Tries again, less and less often, until the lease is released or a new staging has taken the record over.
pub(super) fn release_later(core: Arc<Core>, host: Arc<Host>, staged: Staged) {
    tokio::spawn(async move {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(60))
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            tokio::time::sleep(waits.next().unwrap_or(Duration::from_secs(60))).await;
            let _guard = core.locks.lock_in_background(staged.dataset).await;
            if !host.is_release_pending(&staged) {
                return;
            }
            match core.release(&host, &staged).await {
                Ok(()) => {
                    tracing::info!(dataset.id = %staged.dataset, "Released the lease on dataset {}", staged.dataset);
                    return;
                }
                Err(error) => {
                    tracing::debug!(dataset.id = %staged.dataset, error = %error.chain(), "Flocker still does not answer");
                }
            }
        }
    });
}
