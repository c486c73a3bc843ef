//! The directory that keeps what the node side must not forget.

use std::path::{Path, PathBuf};

use host_fs::durable::remove_unfinished;
use host_fs::{LockError, LockedDirectory};

use crate::error::{Error, Result, Situation};

/// Takes a directory for this process: its state directory, or its device directory. Another process is refused until
/// this one ends.
///
/// # Errors
/// [`Situation::NotTheNodePlugin`] while another process has it.
pub(crate) fn claim(setting: &str, path: &Path) -> Result<LockedDirectory> {
    LockedDirectory::claim(path).map_err(|error| match error {
        LockError::Held { .. } => Error::of(Situation::NotTheNodePlugin, &error).context(format!(
            "the {setting} of this plugin is taken; stop the other process, or give this one a state_dir and a device_dir \
             of its own"
        )),
        _ => Error::of(Situation::Internal, &error),
    })
}

/// Removes from the state directory what processes were writing when they were killed. A failure is only logged:
/// nothing needs these files.
pub async fn tidy(directory: PathBuf) {
    let tidy = move || {
        if let Err(error) = remove_unfinished(&directory) {
            tracing::warn!(
                %error,
                "Cannot remove from {} what an earlier process did not finish writing",
                directory.display()
            );
        }
    };
    // It panics only if there is a bug in it, and then that is in the log.
    tokio::task::spawn_blocking(tidy).await.ok();
}
