//! `NodeUnstageVolume`: our mount of a volume goes, and with the last one the right to it.

use std::sync::Arc;

use super::Core;
use super::calls::Unstage;
use super::release::release;
use crate::error::Result;
use crate::host::{Host, InTheWay, Staged};
use crate::operation::Context;
use crate::volume::dataset_of;

/// Unstages a volume. What is not staged counts as unstaged.
pub(super) async fn unstage(
    core: Arc<Core>,
    host: Arc<Host>,
    context: Context,
    unstage: Unstage,
) -> Result<()> {
    // Where the way to it is gone, nothing can be mounted, but the record and the lease may be left.
    let staging = core
        .resolve_existing("staging_target_path", unstage.staging.clone())
        .await?
        .map_or_else(
            || unstage.staging.as_path().to_owned(),
            |staging| staging.path().to_owned(),
        );
    let recorded = host.recorded_dataset(&staging, &unstage.volume_id);
    // Without a record, an id that is a dataset's still tells what its mount would look like; a name does not.
    let datasets = if let Some(dataset) = recorded.or_else(|| dataset_of(&unstage.volume_id)) {
        vec![dataset]
    } else {
        let staging = staging.clone();
        host.blocking(move |host| host.unrecorded_at(&staging)).await?
    };
    for dataset in datasets {
        context.about(dataset);
        let staged = Staged {
            dataset,
            staging: staging.clone(),
        };
        // All but the lease has gone then, and that is taken care of: whoever does so may hold the dataset's lock for
        // as long as Flocker does not answer.
        if !host.is_release_pending(&staged) {
            core.clear(&context, &host, &staged, InTheWay::Refused).await?;
        }
    }
    Ok(())
}

/// What is left of a volume that was cleared away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remainder {
    Nothing,
    /// The lease that staging took, which is released as soon as Flocker answers.
    Lease,
}

impl Core {
    /// Removes everything of a volume at one staging path; with the last of them its device node, the lease that
    /// staging took, and the pin, in this order.
    pub(super) async fn clear(
        self: &Arc<Self>,
        context: &Context,
        host: &Arc<Host>,
        staged: &Staged,
        in_the_way: InTheWay,
    ) -> Result<Remainder> {
        let guard = self.locks.lock(context, staged.dataset).await?;
        let unmount = staged.clone();
        let left = host
            .blocking(move |host| host.unmount_staged(&unmount, in_the_way))
            .await?;
        let noted = staged.clone();
        if left.staged_elsewhere {
            host.blocking(move |host| host.forget(&noted)).await?;
            return Ok(Remainder::Nothing);
        }
        if left.takes_lease {
            // Written first: whoever finds the mount gone and the process dead must know that the lease is left.
            host.blocking(move |host| host.mark_release_pending(&noted))
                .await?;
            let (core, host) = (Arc::clone(self), Arc::clone(host));
            let released = release(core, host, staged.clone(), guard).await;
            return Ok(if released {
                Remainder::Nothing
            } else {
                Remainder::Lease
            });
        }
        host.blocking(move |host| host.forget(&noted)).await?;
        host.unpin(staged.dataset);
        drop(guard);
        Ok(Remainder::Nothing)
    }
}
