//! `NodeUnstageVolume`: unmounts a volume from its staging path, and with the last use releases its lease and pin.

use std::sync::Arc;

use super::NodeCore;
use super::lease_release::release;
use super::operations::Unstage;
use super::paths::resolve_existing;
use crate::error::Result;
use crate::host::{Goal, Host, PathPermit, Staged, Unmounted};
use crate::operation::{Context, Phase};
use crate::volume::dataset_of;

/// Unstages a volume. A volume that is not staged counts as unstaged.
pub(super) async fn unstage(
    core: Arc<NodeCore>,
    host: Arc<Host>,
    context: Context,
    unstage: Unstage,
) -> Result<()> {
    let permit = core.enter(&context, &[unstage.staging.as_path()]).await?;
    for staged in staged_at(&host, permit, unstage).await? {
        context.about(staged.dataset);
        core.clear(&context, &host, &staged, Goal::Unstage).await?;
    }
    Ok(())
}

/// Returns what is staged at the path under this volume id; without a record, what may be staged.
async fn staged_at(host: &Arc<Host>, permit: PathPermit, unstage: Unstage) -> Result<Vec<Staged>> {
    host.blocking_on_paths(permit, move |host, permit| {
        let Unstage { volume_id, staging } = unstage;
        // Where the parent of the path does not exist, nothing can be mounted, but record and lease may remain.
        let staging = resolve_existing("staging_target_path", &staging, permit)?.map_or_else(
            || staging.as_path().to_owned(),
            |staging| staging.path().to_owned(),
        );
        let recorded = host.recorded_dataset(&staging, &volume_id);
        // Without a record, a dataset id still identifies the mount; a name does not.
        let datasets = match recorded.or_else(|| dataset_of(&volume_id)) {
            Some(dataset) => vec![dataset],
            None => host.unrecorded_at(&staging)?,
        };
        let staged = |dataset| Staged {
            dataset,
            staging: staging.clone(),
        };
        let staged: Vec<_> = datasets.into_iter().map(staged).collect();
        if recorded.is_none() {
            staged
                .iter()
                .try_for_each(|staged| host.refuse_overlap_of_unstaging(staged))?;
        }
        Ok(staged)
    })
    .await
}

/// What remains of a volume after it is unstaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnstageOutcome {
    Nothing,
    /// The lease that staging took, which is released when Flocker answers.
    Lease,
}

impl NodeCore {
    /// Unstages a volume from one staging path; with the last of them it releases the device node, the lease that
    /// staging took, and the pin, in this order.
    pub(super) async fn clear(
        self: &Arc<Self>,
        context: &Context,
        host: &Arc<Host>,
        staged: &Staged,
        goal: Goal,
    ) -> Result<UnstageOutcome> {
        // Only the lease remains then, and another operation releases it: that one may hold the dataset's lock until
        // Flocker answers.
        if host.is_release_pending(staged) {
            return Ok(UnstageOutcome::Nothing);
        }
        let guard = self.locks.lock(context, staged.dataset).await?;
        let at = staged.clone();
        let unmounted = host
            .blocking(move |host| {
                let unmounted = host.unmount_alias(&at, goal)?;
                if let Unmounted::Then(afterwards) = unmounted {
                    if afterwards.release_lease {
                        // Written first: a process that finds no mount must know that the lease is still to be
                        // released.
                        host.mark_release_pending(&at)?;
                    } else {
                        host.forget(&at)?;
                    }
                }
                Ok(unmounted)
            })
            .await?;
        let Unmounted::Then(afterwards) = unmounted else {
            return Ok(UnstageOutcome::Nothing);
        };
        if afterwards.release_lease {
            let (core, host) = (Arc::clone(self), Arc::clone(host));
            let release = release(core, host, staged.clone(), guard);
            let released = context.during(Phase::FlockerAnswering, release).await;
            return Ok(if released {
                UnstageOutcome::Nothing
            } else {
                UnstageOutcome::Lease
            });
        }
        if afterwards.unpin {
            host.unpin(staged.dataset);
        }
        drop(guard);
        Ok(UnstageOutcome::Nothing)
    }
}
