//! Releasing leases, for which Flocker offers no condition.

use std::sync::PoisonError;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
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

/// What this process has done to leases that nobody had asked it to touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Leases released although their node had not given them up, because it is gone.
    pub taken_over: u64,
    /// Leases released by mistake, because a release hit a newer one, and acquired again for their node.
    pub put_back: u64,
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
                // Gone after an unclear attempt: that was carried out.
                return Ok(if attempt == 1 {
                    Release::NotHeld
                } else {
                    Release::Released
                });
            };
            let holder = held.node_uuid;
            match self.client().await?.release_lease(dataset).await {
                Ok(Some(other)) if other.node_uuid != holder => {
                    self.put_back(&other).await?;
                    return Ok(Release::NotHeld);
                }
                Ok(Some(_)) => return Ok(Release::Released),
                Ok(None) => return Ok(Release::NotHeld),
                Err(error) if error.is_unclear() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => {
                    let doing = format!("release the lease of node {holder} on dataset {dataset}");
                    return Err(Error::flocker(doing, error));
                }
            }
        }
    }

    /// Releases the lease that the node `gone`, which is, still holds on `dataset`.
    ///
    /// # Errors
    /// As of [`Self::release_lease_of`].
    pub async fn take_over_lease(&self, dataset: Uuid, gone: Uuid) -> Result<Release> {
        let release = self.release_lease_of(dataset, Some(gone)).await?;
        if release == Release::Released {
            self.count(|counts| counts.taken_over += 1);
            tracing::warn!(
                dataset.id = %dataset,
                node.id = %gone,
                "The lease on dataset {dataset} was taken from node {gone}, because that node is gone; nothing keeps it \
                 from writing if it is only out of Flocker's sight"
            );
        }
        Ok(release)
    }

    /// Returns what has been done to leases since the start.
    pub fn lease_counts(&self) -> LeaseCounts {
        *self.lease_counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut LeaseCounts)) {
        change(&mut self.lease_counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Acquires a lease again that was released by mistake. It may take a while: the node relies on it.
    async fn put_back(&self, lease: &Lease) -> Result<()> {
        let Lease {
            dataset_id,
            node_uuid,
            expires,
        } = *lease;
        self.count(|counts| counts.put_back += 1);
        tracing::warn!(
            dataset.id = %dataset_id,
            node.id = %node_uuid,
            "Releasing the lease on dataset {dataset_id} hit a newer one of node {node_uuid}; it is put back"
        );
        let acquire = || async {
            let client = self.flocker.client().await?;
            client.acquire_lease(dataset_id, node_uuid, expires).await
        };
        // Acquiring it twice for one node is harmless.
        let patience = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(10);
        match acquire.retry(patience).when(|error| !error.is_conflict()).await {
            Ok(_) => Ok(()),
            // Somebody holds the lease, and that is all it is for.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => {
                let doing = format!(
                    "put back the lease of node {node_uuid} on dataset {dataset_id}, which was released by mistake; \
                     publish the volume to that node again"
                );
                Err(Error::flocker(doing, error))
            }
        }
    }
}
