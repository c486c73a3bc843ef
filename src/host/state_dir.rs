//! Locking and cleaning of the plugin's directories.

use std::path::{Path, PathBuf};

use host_fs::durable::remove_unfinished;
use host_fs::{LockError, LockedDirectory};

use crate::error::{Error, Result, Situation};
use crate::telemetry::spawn_blocking;

/// Returns the directory of the staging records in a state directory.
pub(crate) fn stages(state_dir: &Path) -> PathBuf {
    state_dir.join("stages")
}

/// Returns the directory of the notes of directories that an undo could not remove.
pub(crate) fn leftovers(state_dir: &Path) -> PathBuf {
    state_dir.join("leftovers")
}

/// Locks a directory for this process: its state directory, or its device directory. Another process is refused until
/// this one ends.
///
/// # Errors
/// [`Situation::NotTheNodePlugin`] while another process holds it, or the file system refuses: the plugin tries again, and
/// node calls are retried until then.
pub(crate) fn claim(setting: &str, path: &Path) -> Result<LockedDirectory> {
    LockedDirectory::claim(path).map_err(|error| match error {
        LockError::Held { .. } => Error::of(Situation::NotTheNodePlugin, &error).context(format!(
            "the {setting} of this plugin is taken; stop the other process, or give this one a state_dir and a device_dir \
             of its own"
        )),
        _ => Error::of(Situation::NotTheNodePlugin, &error).context(format!("the {setting} cannot be used")),
    })
}

/// Removes unfinished files of killed processes from the state directory. A failure is only logged: nothing needs these
/// files.
pub(crate) async fn tidy(directory: PathBuf) {
    let tidy = move || {
        if let Err(error) = remove_unfinished(&directory) {
            tracing::warn!(
                %error,
                "Cannot remove unfinished files of an earlier process from {}",
                directory.display()
            );
        }
    };
    // It panics only on a bug, and the panic is in the log.
    spawn_blocking(tidy).await.ok();
}
