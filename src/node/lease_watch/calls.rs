//! What a call does about the lease of its volume, beside what the watch does.

use std::sync::Arc;

use tokio::time::timeout;
use uuid::Uuid;

use super::{PATIENCE, is_being_staged};
use crate::error::Result;
use crate::flocker::cluster::{Lists, Release};
use crate::host::{Host, LeaseCondition, RecordedDataset};
use crate::node::NodeCore;
use crate::operation::Context;

impl NodeCore {
    /// Reads the leases again where the last read showed that of a staged volume with another node, so that the volume can
    /// be published as soon as this node has it again. What is staged needs no Flocker, so that may fail. The caller holds
    /// the dataset's lock.
    pub(in crate::node) async fn check_lease_again(&self, host: &Host, dataset: Uuid) {
        let is_of_dataset = |recorded: &RecordedDataset| recorded.dataset == dataset;
        if matches!(host.lease_condition(dataset), Some(LeaseCondition::HeldBy(_)))
            && let Some(recorded) = host.recorded_datasets().into_iter().find(is_of_dataset)
            && let Ok(Ok(snapshot)) = timeout(PATIENCE, self.cluster.fresh(Lists::LEASES)).await
            && let Ok(Some(holder)) = snapshot
                .lease(dataset)
                .map(|lease| lease.map(|lease| lease.node_uuid))
            && recorded.nodes.contains(&holder)
        {
            host.note_lease(dataset, None);
        }
    }

    /// Releases the lease of this node on a volume of which nothing is here, where only nodes attach volumes: then it is left
    /// over from a record that was lost. A Flocker that does not answer is not waited for.
    pub(in crate::node) async fn release_unexplained(
        self: &Arc<Self>,
        context: &Context,
        host: &Arc<Host>,
        dataset: Uuid,
    ) -> Result<()> {
        // A pending release of the lease has a record.
        if !self.settings.leases.only_nodes_attach || host.has_record(dataset) {
            return Ok(());
        }
        let guard = self.locks.lock(context, dataset).await?;
        if is_being_staged(self, dataset) || host.blocking(move |host| host.is_known_here(dataset)).await? {
            return Ok(());
        }
        let core = Arc::clone(self);
        // A request that was sent ends under the dataset's lock: it could release the lease of the next staging otherwise.
        let releasing = tokio::spawn(async move {
            let released = match (core.this_node)().await {
                Ok(node) => core.cluster.release_lease_of(dataset, Some(node)).await,
                Err(error) => Err(error),
            };
            drop(guard);
            match released {
                Ok(Release::Released) => tracing::warn!(
                    volume.id = %dataset,
                    "Released the lease of this node on dataset {dataset}, of which it had neither a record nor a mount"
                ),
                Ok(Release::NotHeld) => {}
                Err(error) => tracing::warn!(
                    volume.id = %dataset,
                    error = %error.chain(),
                    "Whether this node still holds the lease on dataset {dataset} could not be settled; unstage it again"
                ),
            }
        });
        timeout(PATIENCE, releasing).await.ok();
        Ok(())
    }
}
