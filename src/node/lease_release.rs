//! Leases of this node that are still to be released.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{NodeCore, NodeService};
use crate::error::{Error, Result};
use crate::flocker::attach::PendingReleases;
use crate::host::{Ended, Host, Staged};
use crate::operation::VolumeGuard;

/// How long unstaging waits for Flocker; the record says which lease is still to be released.
const PATIENCE: Duration = Duration::from_secs(3);

impl NodeService {
    /// Returns access to the leases that this node is still to release, for a controller in the same process that uses
    /// the same locks.
    pub(crate) fn pending_releases(&self) -> Arc<dyn PendingReleases> {
        Arc::clone(&self.core) as _
    }
}

impl PendingReleases for NodeCore {
    fn take_over(&self, dataset: Uuid, node: Uuid) -> BoxFuture<'_, Result<bool>> {
        async move {
            // Without the state directory there are no releases of this process.
            let Some(host) = self.host.lock().await.clone() else {
                return Ok(false);
            };
            if !host.has_releases(dataset) {
                return Ok(false);
            }
            // Older records do not name their node, which is this one.
            let is_this_node = (self.this_node)().await? == node;
            host.blocking(move |host| host.abandon_releases(dataset, node, is_this_node))
                .await
        }
        .boxed()
    }
}

impl NodeCore {
    /// Releases the lease of the node under which the dataset was staged.
    ///
    /// The caller holds the dataset's lock.
    async fn release(&self, host: &Arc<Host>, staged: &Staged) -> Result<()> {
        let node = match host.recorded_node(staged) {
            Some(node) => node,
            None => (self.this_node)().await?,
        };
        self.cluster.release_lease_of(staged.dataset, Some(node)).await?;
        Ok(())
    }
}

/// Releases the lease that the stagings took, unpins Flocker's mount, removes directories and device node, and returns
/// whether the lease was released in time.
///
/// A Flocker that does not answer is not waited for: the release is then retried in the background. A request that was
/// sent ends under the dataset's lock, because it could release the lease of the next staging otherwise.
pub(super) async fn release(core: Arc<NodeCore>, host: Arc<Host>, ended: Ended, guard: VolumeGuard) -> bool {
    let ended = Arc::new(ended);
    let (sender, receiver) = oneshot::channel();
    let tasks = core.cluster.tasks().clone();
    // After a panic only the retries are left, which acquire the lock again.
    let mut first = Some((sender, guard));
    tasks.spawn_to_end("releasing a lease", move || {
        let (first, core, host, ended) = (
            first.take(),
            Arc::clone(&core),
            Arc::clone(&host),
            Arc::clone(&ended),
        );
        async move {
            match first {
                Some((sender, guard)) => {
                    if release_once(&core, &host, &ended, sender, guard).await {
                        return;
                    }
                }
                None => give_back(&core, &host, &ended).await,
            }
            let stop = core.cluster.tasks().stop();
            for staged in &ended.leases {
                stop.run_until_cancelled(retry(&core, &host, staged)).await;
            }
        }
    });
    receiver.await.unwrap_or(false)
}

/// Releases the lease, sends through `in_time` whether that was done in time, and returns whether it was done at all.
async fn release_once(
    core: &NodeCore,
    host: &Arc<Host>,
    ended: &Arc<Ended>,
    in_time: oneshot::Sender<bool>,
    guard: VolumeGuard,
) -> bool {
    let releasing = async {
        for staged in &ended.leases {
            core.release(host, staged).await?;
            tracing::debug!(
                volume.id = %staged.dataset,
                step = "released",
                "The lease of this node on dataset {} is released",
                staged.dataset
            );
        }
        Ok::<_, Error>(())
    };
    let mut releasing = std::pin::pin!(releasing);
    let first = tokio::time::timeout(PATIENCE, &mut releasing).await;
    unpin_and_clean_up(host, ended).await;
    let (sender, released) = if let Ok(released) = first {
        (Some(in_time), released)
    } else {
        // The receiver no longer exists if unstaging was dropped with its runtime.
        in_time.send(false).ok();
        (None, releasing.await)
    };
    if released.is_ok() {
        forget(host, ended).await;
    }
    if let Some(in_time) = sender {
        in_time.send(released.is_ok()).ok();
    }
    drop(guard);
    if let Err(error) = &released {
        tracing::warn!(
            volume.id = %ended.dataset,
            error = %error.chain(),
            "The lease on dataset {} is released as soon as Flocker answers",
            ended.dataset
        );
    }
    released.is_ok()
}

/// Unpins a volume whose release ended in a panic, unless a later staging uses it.
async fn give_back(core: &NodeCore, host: &Arc<Host>, ended: &Arc<Ended>) {
    let _guard = core.locks.lock_in_background(ended.dataset).await;
    if ended.leases.iter().all(|staged| host.is_release_pending(staged)) {
        unpin_and_clean_up(host, ended).await;
    }
}

async fn unpin_and_clean_up(host: &Arc<Host>, ended: &Arc<Ended>) {
    if ended.unpin {
        host.unpin(ended.dataset);
    }
    let ended = Arc::clone(ended);
    let cleaned = host.blocking(move |host| {
        host.clean_up(&ended);
        Ok(())
    });
    // It fails only where the plugin stops; the records name what is left.
    cleaned.await.ok();
}

/// Removes the records of the stagings whose lease is released.
async fn forget(host: &Arc<Host>, ended: &Arc<Ended>) {
    let ended = Arc::clone(ended);
    let forgotten = host.blocking(move |host| {
        for staged in &ended.leases {
            host.forget(staged);
        }
        Ok(())
    });
    // As above; the next process releases a lease that is not held.
    forgotten.await.ok();
}

/// Releases in the background a lease that an earlier process did not release.
pub(super) fn release_later(core: Arc<NodeCore>, host: Arc<Host>, staged: Staged) {
    let tasks = core.cluster.tasks().clone();
    tasks.spawn("releasing a lease of an earlier process", move || {
        let (core, host, staged) = (Arc::clone(&core), Arc::clone(&host), staged.clone());
        async move {
            if !is_settled(&core, &host, &staged).await {
                retry(&core, &host, &staged).await;
            }
        }
    });
}

/// Retries with back-off until the lease is released or a later staging uses the record.
async fn retry(core: &NodeCore, host: &Arc<Host>, staged: &Staged) {
    let waits = ExponentialBuilder::default()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(60))
        .with_jitter()
        .without_max_times()
        .build();
    for wait in waits {
        tokio::time::sleep(wait).await;
        if is_settled(core, host, staged).await {
            return;
        }
    }
}

/// Releases a lease if that is still due, and returns whether nothing is left to do.
async fn is_settled(core: &NodeCore, host: &Arc<Host>, staged: &Staged) -> bool {
    let _guard = core.locks.lock_in_background(staged.dataset).await;
    let due = staged.clone();
    match host.blocking(move |host| host.is_release_due(&due)).await {
        Ok(true) => {}
        Ok(false) => return true,
        Err(error) => {
            tracing::warn!(error = %error.chain(), "Cannot check a lease that is still to be released");
            return false;
        }
    }
    match core.release(host, staged).await {
        Ok(()) => {
            let released = staged.clone();
            let forgotten = host.blocking(move |host| {
                host.forget(&released);
                Ok(())
            });
            forgotten.await.ok();
            tracing::info!(volume.id = %staged.dataset, "Released the lease on dataset {}", staged.dataset);
            true
        }
        Err(error) => {
            tracing::debug!(volume.id = %staged.dataset, error = %error.chain(), "Flocker still does not answer");
            false
        }
    }
}
