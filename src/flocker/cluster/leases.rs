//! Leases. Flocker releases them without a condition, so releasing takes care not to hit another node's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use flocker_client::Lease;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Cluster, Lists};
use crate::error::{Error, Result};
use crate::operation::{Context, Phase};
use crate::telemetry::Counter;

/// The outcome of a request to acquire a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseOutcome {
    /// The node holds the lease, and no node did before.
    New,
    /// The node held the lease before.
    Renewed,
    /// Another node holds the lease.
    HeldByAnother,
}

/// The outcome of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The lease no longer exists.
    Released,
    /// There was no lease to release.
    NotHeld,
}

/// How often a release is tried whose outcome is unclear.
const ATTEMPTS: u32 = 3;
/// How long a lease that this process has released on request is not acquired again by itself.
const LEAVE_RELEASED: Duration = Duration::from_secs(60);

/// The leases that this process has released lately.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnReleases(Arc<Mutex<HashMap<Uuid, Instant>>>);

impl OwnReleases {
    fn note(&self, dataset: Uuid) {
        let mut released = self.lock();
        released.retain(|_, when| when.elapsed() < LEAVE_RELEASED);
        released.insert(dataset, Instant::now());
    }

    pub(super) fn forget(&self, dataset: Uuid) {
        self.lock().remove(&dataset);
    }

    fn has(&self, dataset: Uuid) -> bool {
        let released = self.lock();
        released
            .get(&dataset)
            .is_some_and(|when| when.elapsed() < LEAVE_RELEASED)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Releases the lease on `dataset` if a fresh read shows that `node` holds it, or any node for `None`.
    ///
    /// The DELETE carries no condition. So it is never repeated without another read, and if it has hit a lease that
    /// another node acquired in between, that lease is acquired again at once.
    ///
    /// # Errors
    /// Flocker refused or failed, and it is not known whether the lease still exists.
    pub async fn release_lease_of(&self, dataset: Uuid, node: Option<Uuid>) -> Result<Release> {
        let mut attempt = 1;
        loop {
            let snapshot = self.fresh(Lists::LEASES).await?;
            let held = match (snapshot.lease(dataset), node) {
                (Ok(lease), _) => lease
                    .map(|lease| lease.node_uuid)
                    .filter(|holder| node.is_none_or(|node| *holder == node))
                    .map(Some),
                // The lease of any node is to be released, also of one that is not known.
                (Err(_), None) => Some(None),
                (Err(unreadable), Some(_)) => return Err(unreadable),
            };
            let Some(holder) = held else {
                // After an attempt with an unclear outcome: it was carried out.
                return Ok(if attempt == 1 {
                    Release::NotHeld
                } else {
                    Release::Released
                });
            };
            self.own_releases.note(dataset);
            match self.client().await?.release_lease(dataset).await {
                Ok(Some(other)) if holder.is_some_and(|holder| holder != other.node_uuid) => {
                    self.reacquire(&other).await?;
                    return Ok(Release::NotHeld);
                }
                Ok(Some(_)) => return Ok(Release::Released),
                Ok(None) => return Ok(Release::NotHeld),
                Err(error) if error.is_unclear() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => {
                    let holder =
                        holder.map_or("an unknown node".to_owned(), |holder| format!("node {holder}"));
                    let doing = format!("release the lease of {holder} on dataset {dataset}");
                    return Err(Error::flocker(doing, error));
                }
            }
        }
    }

    /// As [`Self::release_lease_of`], as a step of an operation, which it is to its end: a DELETE that was sent cannot be
    /// taken back.
    ///
    /// # Errors
    /// Those of [`Self::release_lease_of`].
    pub(crate) async fn release_lease_for(
        &self,
        context: &Context,
        dataset: Uuid,
        node: Option<Uuid>,
    ) -> Result<Release> {
        let release = self.release_lease_of(dataset, node);
        context.during(Phase::FlockerAnswering, release).await
    }

    /// Whether this process has released the lease on `dataset` within the last minute.
    pub(crate) fn has_released(&self, dataset: Uuid) -> bool {
        self.own_releases.has(dataset)
    }

    /// Releases the lease on `dataset` that `gone` holds, a node that counts as gone.
    ///
    /// # Errors
    /// Those of [`Self::release_lease_of`].
    pub async fn take_over_lease(&self, dataset: Uuid, gone: Uuid) -> Result<Release> {
        let release = self.release_lease_of(dataset, Some(gone)).await?;
        if release == Release::Released {
            self.counters().count(Counter::LeasesTakenOver);
            tracing::warn!(
                volume.id = %dataset,
                node.id = %gone,
                "The lease on dataset {dataset} was taken from node {gone}, because that node is gone; if it still runs \
                 and only does not reach Flocker, it can still write to the volume"
            );
        }
        Ok(release)
    }

    /// Acquires a lease again that was released by mistake. It may take a while: its node relies on it.
    async fn reacquire(&self, lease: &Lease) -> Result<()> {
        let Lease {
            dataset_id,
            node_uuid,
            expires,
        } = *lease;
        self.counters().count(Counter::LeasesPutBack);
        tracing::warn!(
            volume.id = %dataset_id,
            node.id = %node_uuid,
            "Releasing the lease on dataset {dataset_id} hit a newer one of node {node_uuid}, which is acquired again"
        );
        let acquire = || async {
            let client = self.flocker.client().await?;
            client.acquire_lease(dataset_id, node_uuid, expires).await
        };
        // Acquiring it twice for one node is harmless.
        let back_off = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(10);
        match acquire.retry(back_off).when(|error| !error.is_conflict()).await {
            Ok(_) => Ok(()),
            // Another node holds it by now, so the volume is protected.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => {
                let doing = format!(
                    "acquire again the lease of node {node_uuid} on dataset {dataset_id}, which was released by mistake; \
                     publish the volume to that node again"
                );
                Err(Error::flocker(doing, error))
            }
        }
    }
}
