//! The paths of a request, as the file system has them.

use futures::FutureExt;
use host_fs::mount::{Target, TargetPath, is_in_memory};

use std::path::Path;
use std::sync::Arc;

use super::NodeCore;
use crate::error::{Error, Result};
use crate::host::{Host, PathPermit};
use crate::operation::{Context, Phase};

impl NodeCore {
    /// Waits until a thread may look up these paths, as a phase of `context`'s operation.
    ///
    /// # Errors
    /// [`Cancelled`](crate::error::Situation::Cancelled) when the operation is cancelled first.
    pub(super) async fn enter(&self, context: &Context, paths: &[&Path]) -> Result<PathPermit> {
        let mut entered = std::pin::pin!(self.paths.enter(paths));
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
}

impl NodeCore {
    /// Looks up paths for which a file system has to be asked, before the dataset's lock is held: where one hangs, no other
    /// call about the volume waits for it. What the lookup finds is looked at again under the lock.
    pub(super) async fn look_up_paths(
        &self,
        host: &Arc<Host>,
        context: &Context,
        paths: &[&TargetPath],
    ) -> Result<()> {
        let unknown = paths.iter().filter(|path| !is_in_memory(path.as_path()));
        let unknown: Vec<TargetPath> = unknown.copied().cloned().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let entered: Vec<_> = unknown.iter().map(TargetPath::as_path).collect();
        let permit = self.enter(context, &entered).await?;
        let look = move |_: &Host| {
            for path in &unknown {
                path.resolve().ok();
            }
            Ok(())
        };
        context
            .unless_cancelled(host.blocking_on_paths(permit, look))
            .await?
    }
}

/// Follows the symbolic links above a path, which has to have a parent. Blocks.
///
/// # Errors
/// [`InvalidArgument`](crate::error::Situation::InvalidArgument) naming the field.
pub(super) fn resolve(field: &str, path: &TargetPath) -> Result<Target> {
    path.resolve().map_err(|error| Error::from(error).context(field))
}

/// As [`resolve`]; a path whose parent does not exist is nothing. Blocks.
///
/// # Errors
/// As [`resolve`].
pub(super) fn resolve_existing(field: &str, path: &TargetPath) -> Result<Option<Target>> {
    match path.resolve() {
        Ok(target) => Ok(Some(target)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(Error::from(error).context(field)),
    }
}
