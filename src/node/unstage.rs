//! `NodeUnstageVolume`: unmounts a volume from its staging path, and with the last use releases its lease and pin.

use std::sync::Arc;

use host_fs::mount::{Relation, Target, TargetPath};

use super::lease_release::release;
use super::operations::Unstage;
use super::paths::resolve_existing;
use super::{NodeCore, about};
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
    let named = dataset_of(&unstage.volume_id);
    let spelled = unstage.staging.clone();
    let mut all = staged_at(&host, permit, unstage).await?;
    let mut elsewhere = Vec::new();
    for staged in &all {
        elsewhere.extend(core.same_directory(&context, &host, staged, &spelled).await?);
    }
    all.append(&mut elsewhere);
    for staged in all {
        about(&context, &host, staged.dataset);
        core.clear(&context, &host, &staged, Goal::Unstage).await?;
        host.blocking(move |host| host.check_readable(&staged)).await?;
    }
    if let Some(dataset) = named {
        core.release_unexplained(&context, &host, dataset).await?;
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
    /// Returns the stagings of the dataset whose paths are other views of the same directory, where none is recorded at
    /// the path itself: an earlier call may have unmounted them and ended before their records were removed.
    async fn same_directory(
        &self,
        context: &Context,
        host: &Arc<Host>,
        staged: &Staged,
        spelled: &TargetPath,
    ) -> Result<Vec<Staged>> {
        let mut same = Vec::new();
        for other in host.namesakes(staged) {
            let permit = self.enter(context, &[spelled.as_path(), &other.staging]).await?;
            let (spelled, path) = (spelled.clone(), other.staging.clone());
            let relation = host.blocking_on_paths(permit, move |_, permit| {
                let Some(staging) = resolve_existing("staging_target_path", &spelled, permit)? else {
                    return Ok(Relation::Apart);
                };
                // A path that leads nowhere any more is no other view of this one.
                let other = Target::open_from(&path, permit.next_parent());
                other.map_or(Ok(Relation::Apart), |other| Ok(staging.relation_to(&other)?))
            });
            if relation.await? == Relation::Same {
                same.push(other);
            }
        }
        Ok(same)
    }

    /// Unstages a volume from one staging path; with the last of them it releases the lease that staging took and the
    /// pin. Directories, device node and records come last, and hold nothing up.
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
        self.stop_before_unmount(host, staged.dataset).await;
        let at = staged.clone();
        let unmounted = host
            .blocking(move |host| {
                let unmounted = host.unmount_alias(&at, goal)?;
                if let Unmounted::Then(ended) = &unmounted {
                    for staged in &ended.leases {
                        // Before the request: a process that finds no mount must know that the lease is still to be
                        // released.
                        host.mark_release_pending(staged);
                    }
                }
                Ok(unmounted)
            })
            .await?;
        let Unmounted::Then(ended) = unmounted else {
            return Ok(UnstageOutcome::Nothing);
        };
        if !ended.leases.is_empty() {
            let (core, host) = (Arc::clone(self), Arc::clone(host));
            let release = release(core, host, ended, guard);
            let released = context.during(Phase::FlockerAnswering, release).await;
            return Ok(if released {
                UnstageOutcome::Nothing
            } else {
                UnstageOutcome::Lease
            });
        }
        if ended.unpin {
            host.unpin(ended.dataset);
        }
        let cleaned = host.blocking(move |host| {
            host.clean_up(&ended);
            Ok(())
        });
        cleaned.await?;
        drop(guard);
        Ok(UnstageOutcome::Nothing)
    }
}
