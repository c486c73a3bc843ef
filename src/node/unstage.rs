//! `NodeUnstageVolume`: our mount of a volume goes, and with the last one the right to it.

use std::sync::Arc;

use super::NodeCore;
use super::calls::Unstage;
use super::paths::resolve_existing;
use super::release::release;
use crate::error::Result;
use crate::host::{Host, PathPermit, Staged, Unmounted, Wish};
use crate::operation::Context;
use crate::volume::dataset_of;

/// Unstages a volume. What is not staged counts as unstaged.
pub(super) async fn unstage(
    core: Arc<NodeCore>,
    host: Arc<Host>,
    context: Context,
    unstage: Unstage,
) -> Result<()> {
    let permit = core.enter(&context, &[unstage.staging.as_path()]).await?;
    for staged in staged_at(&host, permit, unstage).await? {
        context.about(staged.dataset);
        core.clear(&context, &host, &staged, Wish::Unstage).await?;
    }
    Ok(())
}

/// Returns what is staged at the path under this volume id; without a record, what may be.
async fn staged_at(host: &Arc<Host>, permit: PathPermit, unstage: Unstage) -> Result<Vec<Staged>> {
    host.blocking_on_paths(permit, move |host, permit| {
        let Unstage { volume_id, staging } = unstage;
        // Where the way to it does not exist, nothing can be mounted, but the record and the lease may be left.
        let staging = resolve_existing("staging_target_path", &staging, permit)?.map_or_else(
            || staging.as_path().to_owned(),
            |staging| staging.path().to_owned(),
        );
        let recorded = host.recorded_dataset(&staging, &volume_id);
        // Without a record, an id that is a dataset's still says what its mount would look like; a name does not.
        let datasets = match recorded.or_else(|| dataset_of(&volume_id)) {
            Some(dataset) => vec![dataset],
            None => host.unrecorded_at(&staging)?,
        };
        let staged = |dataset| Staged {
            dataset,
            staging: staging.clone(),
        };
        Ok(datasets.into_iter().map(staged).collect())
    })
    .await
}

/// What is left of a volume that was cleared away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remainder {
    Nothing,
    /// The lease that staging took, which is released as soon as Flocker answers.
    Lease,
}

impl NodeCore {
    /// Removes everything of a volume at one staging path; with the last of them its device node, the lease that
    /// staging took, and the pin, in this order.
    pub(super) async fn clear(
        self: &Arc<Self>,
        context: &Context,
        host: &Arc<Host>,
        staged: &Staged,
        wish: Wish,
    ) -> Result<Remainder> {
        // All but the lease is gone then, and that is taken care of: the operation that does so may hold the dataset's
        // lock for as long as Flocker does not answer.
        if host.is_release_pending(staged) {
            return Ok(Remainder::Nothing);
        }
        let guard = self.locks.lock(context, staged.dataset).await?;
        let at = staged.clone();
        let unmounted = host
            .blocking(move |host| {
                let unmounted = host.unmount_alias(&at, wish)?;
                if let Unmounted::Then(afterwards) = unmounted {
                    if afterwards.release_lease {
                        // Written first: a process that finds the mount gone must know that the lease is left.
                        host.mark_release_pending(&at)?;
                    } else {
                        host.forget(&at)?;
                    }
                }
                Ok(unmounted)
            })
            .await?;
        let Unmounted::Then(afterwards) = unmounted else {
            return Ok(Remainder::Nothing);
        };
        if afterwards.release_lease {
            let (core, host) = (Arc::clone(self), Arc::clone(host));
            let released = release(core, host, staged.clone(), guard).await;
            return Ok(if released {
                Remainder::Nothing
            } else {
                Remainder::Lease
            });
        }
        if afterwards.let_go {
            host.unpin(staged.dataset);
        }
        drop(guard);
        Ok(Remainder::Nothing)
    }
}
