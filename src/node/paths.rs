//! Resolution of the paths of a request.

use futures::FutureExt;
use host_fs::mount::{Target, TargetPath};

use std::path::Path;

use super::NodeCore;
use crate::error::{Error, Result};
use crate::host::PathPermit;
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
