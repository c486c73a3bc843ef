//! Resolution of the paths of a request.

use futures::FutureExt;
use host_fs::mount::{CachedParent, Target, TargetPath, is_in_memory};

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::NodeCore;
use crate::error::{Error, Result};
use crate::host::{Host, PathPermit};
use crate::operation::{Context, Phase, VolumeGuard};

impl NodeCore {
    /// Waits until a thread may look up these paths, as a phase of `context`'s operation.
    ///
    /// # Errors
    /// [`Cancelled`](crate::error::Situation::Cancelled) when the operation is cancelled first.
    pub(super) async fn enter(&self, context: &Context, paths: &[&Path]) -> Result<PathPermit> {
        let parents = paths.iter().map(|path| CachedParent::of(path)).collect();
        self.enter_from(context, paths, parents).await
    }

    /// As [`Self::enter`], with what was found of the directories above the paths.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(super) async fn enter_from(
        &self,
        context: &Context,
        paths: &[&Path],
        parents: Vec<CachedParent>,
    ) -> Result<PathPermit> {
        let mut entered = std::pin::pin!(self.paths.enter_from(paths, parents));
        if let Some(permit) = entered.as_mut().now_or_never() {
            return Ok(permit);
        }
        let waiting_for = context.phase();
        let path = paths.first().copied().unwrap_or(Path::new("/")).to_owned();
        context.enter(Phase::FileSystemAnswering { path });
        let permit = context.unless_cancelled(entered).await?;
        context.enter(waiting_for);
        Ok(permit)
    }

    /// Takes the lock of a dataset for work on these paths, and the right to look them up.
    ///
    /// Paths for which another machine or program has to be asked are looked up once before the lock is held: where one
    /// hangs, no other call about the volume waits for it. What the lookup finds is read again under the lock.
    ///
    /// # Errors
    /// [`Cancelled`](crate::error::Situation::Cancelled) when the operation is cancelled first.
    pub(super) async fn lock_for_paths(
        &self,
        host: &Arc<Host>,
        context: &Context,
        dataset: Option<Uuid>,
        paths: &[&TargetPath],
    ) -> Result<(Option<VolumeGuard>, PathPermit)> {
        let spelled: Vec<_> = paths.iter().map(|path| path.as_path()).collect();
        let find = || {
            spelled
                .iter()
                .map(|path| CachedParent::of(path))
                .collect::<Vec<_>>()
        };
        let mut parents = find();
        let mut unknown: Vec<TargetPath> = Vec::new();
        for (path, parent) in paths.iter().zip(&parents) {
            if !parent.is_local() && !is_in_memory(path.as_path()) {
                unknown.push((*path).clone());
            }
        }
        if !unknown.is_empty() {
            parents.clear();
            self.look_up_paths(host, context, unknown).await?;
            parents = find();
        }
        let guard = match dataset {
            None => None,
            Some(dataset) => {
                let mut locked = std::pin::pin!(self.locks.lock(context, dataset));
                Some(if let Some(locked) = locked.as_mut().now_or_never() {
                    locked?
                } else {
                    // What is open keeps a mount busy, and is not what the path leads to after the wait.
                    parents.clear();
                    let locked = locked.await?;
                    parents = find();
                    locked
                })
            }
        };
        let permit = self.enter_from(context, &spelled, parents).await?;
        Ok((guard, permit))
    }

    /// Looks up paths, whatever that finds.
    async fn look_up_paths(&self, host: &Arc<Host>, context: &Context, paths: Vec<TargetPath>) -> Result<()> {
        let entered: Vec<_> = paths.iter().map(TargetPath::as_path).collect();
        let permit = self.enter(context, &entered).await?;
        let look_up = move |_: &Host, _: &mut PathPermit| {
            for path in &paths {
                path.resolve().ok();
            }
            Ok(())
        };
        context
            .unless_cancelled(host.blocking_on_paths(permit, look_up))
            .await?
    }
}

/// Follows the symbolic links above a path, which must have a parent. Blocks.
///
/// # Errors
/// [`InvalidArgument`](crate::error::Situation::InvalidArgument) naming the field.
pub(super) fn resolve(field: &str, path: &TargetPath, permit: &mut PathPermit) -> Result<Target> {
    let resolved = path.resolve_from(permit.next_parent());
    resolved.map_err(|error| Error::from(error).context(field))
}

/// As [`resolve`]; `None` for a path whose parent does not exist. Blocks.
///
/// # Errors
/// As [`resolve`].
pub(super) fn resolve_existing(
    field: &str,
    path: &TargetPath,
    permit: &mut PathPermit,
) -> Result<Option<Target>> {
    match path.resolve_from(permit.next_parent()) {
        Ok(target) => Ok(Some(target)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(Error::from(error).context(field)),
    }
}
