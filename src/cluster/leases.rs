//! Releasing leases, for which Flocker offers no condition.

use flocker_client::Lease;
use uuid::Uuid;

use super::{Cluster, Lists};
use crate::error::{Error, Result};

/// What became of a claim for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The lease is the node's, and was nobody's before.
    New,
    /// The lease was the node's already.
    Renewed,
    /// The lease is another node's.
    HeldByAnother,
}

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The lease is gone.
    Released,
    /// There was none to release.
    NotHeld,
}

/// How often an unclear release is read again and repeated.
const ATTEMPTS: u32 = 3;

impl Cluster {
    /// Releases the lease on `dataset` if a fresh read says that `node` holds it, or whoever does for `None`.
    ///
    /// The DELETE carries no condition. So it is never repeated blindly, and when it turns out to have hit a lease
    /// that another node acquired in between, that lease is put back at once.
    ///
    /// # Errors
    /// Flocker refused or failed, and whether the lease is gone could not be learned.
    pub async fn release_lease_of(&self, dataset: Uuid, node: Option<Uuid>) -> Result<Release> {
        let mut attempt = 1;
        loop {
            let snapshot = self.fresh(Lists::LEASES).await?;
            let Some(held) = snapshot
                .lease(dataset)
                .filter(|lease| node.is_none_or(|node| lease.node_uuid == node))
            else {
                return Ok(Release::NotHeld);
            };
            let holder = held.node_uuid;
            match self.client().await?.release_lease(dataset).await {
                Ok(released) => {
                    if let Some(other) = released.filter(|released| released.node_uuid != holder) {
                        self.put_back(&other).await?;
                    }
                    return Ok(Release::Released);
                }
                Err(error) if error.is_unclear() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => {
                    let doing = format!("release the lease of node {holder} on dataset {dataset}");
                    return Err(Error::flocker(doing, error));
                }
            }
        }
    }

    async fn put_back(&self, lease: &Lease) -> Result<()> {
        let Lease {
            dataset_id,
            node_uuid,
            expires,
        } = lease;
        tracing::warn!(
            dataset.id = %dataset_id,
            node.id = %node_uuid,
            "Releasing the lease on dataset {dataset_id} hit a newer one of node {node_uuid}; it is put back"
        );
        let mut attempt = 1;
        loop {
            let client = self.client().await?;
            match client.acquire_lease(*dataset_id, *node_uuid, *expires).await {
                Ok(_) => return Ok(()),
                // Somebody holds the lease, and that is all it is for.
                Err(error) if error.is_conflict() => return Ok(()),
                // Acquiring it twice for one node is harmless.
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => {
                    let doing = format!(
                        "put back the lease of node {node_uuid} on dataset {dataset_id}, which was released by mistake"
                    );
                    return Err(Error::flocker(doing, error));
                }
            }
        }
    }
}
