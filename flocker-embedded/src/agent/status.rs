//! What wakes the agents: the configuration as the control service sends it, and changes of the mount table.

use std::io;
use std::sync::Arc;

use host_fs::mount::MountEvents;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Duration, sleep};

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::options::Timing;
use crate::store::{Snapshot, Store, now};

/// How long the agents wait after a change of the mount table before they observe: mounts usually change in groups.
const SETTLING: Duration = Duration::from_millis(500);
/// The interval at which leases are examined while any of them can end.
const SWEEP: Duration = Duration::from_secs(1);
/// The shortest and the longest time between two examinations of the deleted datasets.
const UNLIST: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// What the agents are notified of.
#[derive(Debug)]
pub(crate) struct Status {
    configuration: watch::Sender<Arc<Snapshot>>,
    mounts: watch::Sender<()>,
}

impl Status {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            configuration: watch::Sender::new(store.snapshot()),
            mounts: watch::Sender::new(()),
        }
    }

    pub(super) fn configuration(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.configuration.subscribe()
    }

    pub(super) fn mounts(&self) -> watch::Receiver<()> {
        self.mounts.subscribe()
    }
}

/// Sends the agents the configuration whenever it, or the report of any node, has changed. Never returns.
///
/// The configuration counts as changed even if only a report has changed: a control service sends that too, and it
/// wakes agents that have steps left.
pub(crate) async fn publish(status: Arc<Status>, store: Arc<Store>, cluster: Arc<Cluster>, timing: Timing) {
    let mut configuration = store.subscribe();
    let mut changes = cluster.subscribe();
    loop {
        // Both senders are owned by this task, so they exist.
        select! {
            _ = configuration.changed() => {}
            _ = changes.changed() => {}
        }
        if let Some(batch) = timing.batch() {
            sleep(batch).await;
        }
        changes.mark_unchanged();
        let snapshot = Arc::clone(&configuration.borrow_and_update());
        status.configuration.send_replace(snapshot);
    }
}

/// Removes leases that have ended, once a second while any lease can end. Never returns.
pub(crate) async fn sweep_leases(store: Arc<Store>) {
    let mut configuration = store.subscribe();
    loop {
        let ends = |snapshot: &Arc<Snapshot>| {
            snapshot
                .configuration
                .leases
                .values()
                .any(|lease| lease.expires.is_some())
        };
        if configuration.wait_for(ends).await.is_err() {
            return;
        }
        sleep(SWEEP).await;
        let store = Arc::clone(&store);
        match tokio::task::spawn_blocking(move || store.sweep(now()))
            .await
            .map_err(io::Error::other)
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%error, "Cannot remove the leases that have ended");
            }
        }
    }
}

/// Removes from the list the datasets that were deleted at least `keep` ago and are destroyed. Never returns.
pub(crate) async fn unlist_deleted(store: Arc<Store>, backend: Arc<Backend>, keep: Duration) {
    let mut configuration = store.subscribe();
    loop {
        let has_deleted = |snapshot: &Arc<Snapshot>| {
            snapshot
                .configuration
                .datasets
                .values()
                .any(|dataset| dataset.deleted)
        };
        if configuration.wait_for(has_deleted).await.is_err() {
            return;
        }
        let (store, backend) = (Arc::clone(&store), Arc::clone(&backend));
        let unlist = move || {
            let files = backend.volumes().files();
            store.unlist_deleted(keep, |dataset| files.contains_key(&dataset))
        };
        let next = tokio::task::spawn_blocking(unlist)
            .await
            .map_err(io::Error::other);
        let next = match next {
            Ok(Ok(next)) => next.unwrap_or_default(),
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%error, "Cannot remove deleted datasets from the list");
                Duration::ZERO
            }
        };
        // Those that are due are not destroyed yet. The clock may be set.
        sleep(next.clamp(keep.clamp(SWEEP, UNLIST.0), UNLIST.1)).await;
    }
}

/// Notifies the agents when the mount table has changed. Never returns, unless the table cannot be watched.
pub(crate) async fn watch_mounts(status: Arc<Status>) {
    if let Err(error) = follow_mounts(&status).await {
        tracing::warn!(%error, "Cannot watch the mount table; mounts of other processes are seen only at the next change of the configuration");
    }
}

#[allow(
    unsafe_code,
    reason = "tokio has no safe way to wait for a file's exceptional conditions"
)]
async fn follow_mounts(status: &Status) -> io::Result<()> {
    let table = MountEvents::of_this_thread()?;
    // SAFETY: `MountEvents` owns its one descriptor from its creation until it is dropped, and this one is moved into the
    // `AsyncFd`.
    let table = unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY)? };
    loop {
        table.ready(Interest::PRIORITY).await?.clear_ready();
        sleep(SETTLING).await;
        status.mounts.send_replace(());
    }
}
