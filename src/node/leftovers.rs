//! Removing, in the background, what undos could not remove.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{sleep, timeout};

use super::NodeCore;
use crate::host::{Host, Leftover};

/// The pause before the first attempt; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long one leftover is waited for, so that a disk that hangs keeps no other waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// Removes what is left, and whatever will be left, for as long as the host is open.
pub(super) fn remove_in_background(core: &Arc<NodeCore>, host: &Arc<Host>) {
    let (core_of_task, host) = (Arc::downgrade(core), Arc::downgrade(host));
    let tasks = core.cluster.tasks();
    tasks.spawn("removing what unstaging and unpublishing left", move || {
        remove_all(Weak::clone(&core_of_task), Weak::clone(&host))
    });
}

async fn remove_all(core: Weak<NodeCore>, host: Weak<Host>) {
    let Some(added) = host.upgrade().map(|host| host.leftovers().added()) else {
        return;
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(left) = host.upgrade().map(|host| host.leftovers().all()) else {
            return;
        };
        if left.is_empty() {
            pause = FIRST_PAUSE;
            // Also when the host is closed.
            added.notified().await;
            continue;
        }
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        for leftover in left {
            let (Some(core), Some(host)) = (core.upgrade(), host.upgrade()) else {
                return;
            };
            // What is abandoned here ends by itself, or stays in a thread of its own that the paths' gate counts.
            let removed = timeout(PATIENCE, remove(&core, &host, &leftover)).await;
            if removed == Ok(true) {
                // One that can be removed may mean that the disk takes everything again.
                pause = FIRST_PAUSE;
                tracing::info!(
                    volume.id = %leftover.dataset,
                    "Removed {}, which was left of volume {}",
                    leftover.path.display(),
                    leftover.dataset
                );
            }
        }
    }
}

/// Removes one leftover, and returns whether it is none any more.
async fn remove(core: &NodeCore, host: &Arc<Host>, leftover: &Leftover) -> bool {
    let _guard = core.locks.lock_in_background(leftover.dataset).await;
    // No call about the volume waits behind a file system that hangs.
    let Some(permit) = core.paths.enter(&[&leftover.path]).now_or_never() else {
        return false;
    };
    let leftover = leftover.clone();
    let removed = host.blocking_on_paths(permit, move |host, _permit| host.remove_leftover(&leftover));
    match removed.await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(error = %error.chain(), "Something that is left cannot be removed yet");
            false
        }
    }
}
