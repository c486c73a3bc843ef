//! The directories that a node needs, looked at every few seconds by one thread at most.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use host_fs::LockedDirectory;
use rustix::fs::{Access, access, statvfs};

use crate::operation::Elapsed;
use crate::telemetry::Latest;

/// How long a look may take before it is left to end by itself.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// After this time a file system counts as one that does not answer.
const HANGS: Duration = Duration::from_secs(10);

/// The directories, and what the last look at them found.
#[derive(Debug)]
pub(super) struct Directories {
    state_dir: PathBuf,
    mount_root: PathBuf,
    latest: Latest<Found>,
}

/// What is wrong with the directories.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) state_dir: Result<String, String>,
    pub(super) mount_root: Result<String, String>,
}

impl Directories {
    pub(super) fn new(state_dir: PathBuf, mount_root: PathBuf) -> Self {
        Self {
            state_dir,
            mount_root,
            latest: Latest::default(),
        }
    }

    /// Looks at the directories, unless the last look still waits for a file system.
    pub(super) async fn look(self: &Arc<Self>) {
        let directories = Arc::clone(self);
        let look = move || Found {
            state_dir: state_dir(&directories.state_dir),
            mount_root: mount_root(&directories.mount_root),
        };
        self.latest.look(ANSWERS_WITHIN, look).await;
    }

    /// Returns what was found last; `None` before the first look has ended.
    pub(super) fn found(&self) -> Option<Found> {
        match self.latest.waits_since() {
            Some(since) if since.elapsed() >= HANGS => {
                let hangs = |path: &Path| {
                    let (path, since) = (path.display(), Elapsed(since.elapsed()));
                    Err(format!("the file system of {path} has not answered for {since}"))
                };
                Some(Found {
                    state_dir: hangs(&self.state_dir),
                    mount_root: hangs(&self.mount_root),
                })
            }
            _ => self.latest.last(),
        }
    }
}

/// Checks that records can be written, and that the directory is the one that this process has locked.
fn state_dir(path: &Path) -> Result<String, String> {
    let at = path.display();
    is_directory(path, "the records of staged volumes")?;
    access(path, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("{at} cannot be written to: {error}"))?;
    if LockedDirectory::lock_file(path).symlink_metadata().is_err() {
        return Err(format!(
            "{at} is not the directory that this process has locked: another one took its place; start the plugin again"
        ));
    }
    match statvfs(path) {
        Ok(file_system) if file_system.f_blocks > 0 && file_system.f_bavail == 0 => Err(format!(
            "the file system of {at} is full, so no record can be written"
        )),
        Ok(_) => Ok(format!("{at} can be written to")),
        Err(error) => Err(format!("the file system of {at} cannot be examined: {error}")),
    }
}

/// Checks that Flocker has where to mount volumes.
fn mount_root(path: &Path) -> Result<String, String> {
    is_directory(path, "the mounts of Flocker")?;
    Ok(format!("{} exists", path.display()))
}

fn is_directory(path: &Path, holds: &str) -> Result<(), String> {
    let at = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("{at} should be the directory of {holds}, and is a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("{at}, the directory of {holds}, does not exist"))
        }
        Err(error) => Err(format!("{at}, the directory of {holds}, cannot be read: {error}")),
    }
}
