//! The paths of a request, as the file system has them.

use host_fs::mount::{Target, TargetPath};

use crate::error::{Error, Result};

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
