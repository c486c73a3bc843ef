//! What wakes the agents: the configuration as the control service hands it out, and the mount table.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Duration, sleep};

use crate::backend::MOUNT_TABLE;
use crate::cluster::Cluster;
use crate::options::Timing;
use crate::store::{Snapshot, Store, now};

/// How long mounts come and go before the agents look at them.
const SETTLING: Duration = Duration::from_millis(500);
/// How often leases are looked at, as long as there are any that end.
const SWEEP: Duration = Duration::from_secs(1);

/// Where the agents are told of news.
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

/// Tells the agents whenever the configuration or any node's report has changed. Runs for ever.
///
/// The configuration counts as told anew even if only a report has changed: that too is what a control
/// service sends out, and it wakes agents that have something left to do.
pub(crate) async fn publish(status: Arc<Status>, store: Arc<Store>, cluster: Arc<Cluster>, timing: Timing) {
    let mut configuration = store.subscribe();
    let mut news = cluster.subscribe();
    loop {
        // Neither sender can be gone: they are part of what this task owns.
        select! {
            _ = configuration.changed() => {}
            _ = news.changed() => {}
        }
        if let Some(batch) = timing.batch() {
            sleep(batch).await;
        }
        news.mark_unchanged();
        let snapshot = Arc::clone(&configuration.borrow_and_update());
        status.configuration.send_replace(snapshot);
    }
}

/// Removes leases that have ended, once a second as long as there are any that can end. Runs for ever.
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

/// Tells the agents when the mount table has changed. Runs for ever, unless the table cannot be watched.
pub(crate) async fn watch_mounts(status: Arc<Status>) {
    if let Err(error) = follow_mounts(&status).await {
        tracing::warn!(%error, "Cannot watch the mount table; foreign mounts are seen only at the next change");
    }
}

#[allow(
    unsafe_code,
    reason = "tokio has no safe way to wait for a file's exceptional conditions"
)]
async fn follow_mounts(status: &Status) -> io::Result<()> {
    let table = File::open(MOUNT_TABLE)?;
    // SAFETY: a `File` owns its one descriptor from its creation until it is dropped, and this one is moved
    // into the `AsyncFd`.
    let table = unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY)? };
    loop {
        table.ready(Interest::PRIORITY).await?.clear_ready();
        sleep(SETTLING).await;
        status.mounts.send_replace(());
    }
}
