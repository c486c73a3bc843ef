//! `NodeUnstageVolume`: our mount of a volume goes, and with the last one the right to it.

use std::sync::Arc;

use super::Core;
use super::calls::Unstage;
use super::host::{Host, Staged};
use super::release::release_later;
use crate::error::Result;
use crate::operation::Context;
use crate::volume::dataset_of;

/// Unstages a volume. What is not staged counts as unstaged.
pub(super) async fn unstage(
    core: Arc<Core>,
    host: Arc<Host>,
    context: Context,
    unstage: Unstage,
) -> Result<()> {
    let Some(staging) = core
        .resolve_existing("staging_target_path", unstage.staging)
        .await?
    else {
        return Ok(());
    };
    let recorded = host.recorded_dataset(staging.path(), &unstage.volume_id);
    // Without a record, an id that is a dataset's still tells what its mount would look like.
    let Some(dataset) = recorded.or_else(|| dataset_of(&unstage.volume_id)) else {
        return Ok(());
    };
    context.about(dataset);
    core.clear(
        &context,
        &host,
        &Staged {
            dataset,
            staging: staging.path().to_owned(),
        },
    )
    .await
}

impl Core {
    /// Removes everything of a volume at one staging path; with the last of them its device node, the lease that
    /// staging took, and the pin, in this order.
    pub(super) async fn clear(
        self: &Arc<Self>,
        context: &Context,
        host: &Arc<Host>,
        staged: &Staged,
    ) -> Result<()> {
        let guard = self.locks.lock(context, staged.dataset).await?;
        let unmount = staged.clone();
        let left = host.blocking(move |host| host.unmount_staged(&unmount)).await?;
        if left.staged_elsewhere {
            let forget = staged.clone();
            return host.blocking(move |host| host.forget(&forget)).await;
        }
        if left.takes_lease {
            self.release_or_defer(host, staged).await?;
        } else {
            let forget = staged.clone();
            host.blocking(move |host| host.forget(&forget)).await?;
        }
        host.unpin(staged.dataset);
        drop(guard);
        Ok(())
    }

    /// Releases the lease that staging took. While Flocker does not answer, the record says that it is to be done.
    async fn release_or_defer(self: &Arc<Self>, host: &Arc<Host>, staged: &Staged) -> Result<()> {
        let marked = staged.clone();
        // Written first: whoever finds the mount gone and the process dead must know that the lease is left.
        host.blocking(move |host| host.mark_release_pending(&marked))
            .await?;
        match self.release(host, staged).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(
                    dataset.id = %staged.dataset,
                    error = %error.chain(),
                    "The lease on dataset {} is released as soon as Flocker answers",
                    staged.dataset
                );
                release_later(Arc::clone(self), Arc::clone(host), staged.clone());
                Ok(())
            }
        }
    }
}
