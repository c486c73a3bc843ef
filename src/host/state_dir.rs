//! The directory that keeps what the node side must not forget, and the right to use it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::host::durable::make_directory;

/// The file whose lock is the right to use the directory.
const LOCK: &str = "lock";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateDirError {
    /// Another process uses it.
    #[error(
        "the state directory {} is in use by {}; only one process may serve the volumes of a node, \
         so stop that one or give this one a state_dir of its own", .path.display(), describe_holder(*.pid)
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// The process, if it has said so already; its id in its own PID namespace.
        pid: Option<u32>,
    },
    /// The file system refused a step.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it answered.
        #[source]
        source: io::Error,
    },
}

fn describe_holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process that has just started".to_owned(),
        |pid| format!("process {pid}"),
    )
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    move |source| StateDirError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The state directory, held against every other process until this value is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    lock: File,
}

impl StateDir {
    /// Makes the directory if need be and takes the right to use it, which ends with the process at the latest.
    pub(crate) fn claim(path: &Path) -> Result<StateDir, StateDirError> {
        make_directory(path).map_err(failed("make the state directory", path))?;
        let lock = path.join(LOCK);
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(&lock).map_err(failed("open", &lock))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateDirError::Held {
                    path: path.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(error) => return Err(failed("lock", &lock)(error.into())),
        }
        write_pid(&mut file).map_err(failed("write", &lock))?;
        Ok(StateDir { lock: file })
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // A program that is being started at this moment holds a copy of the descriptor until it runs, and with it the
        // lock; what is unlocked is so for all copies. Where that fails, closing does it.
        flock(&self.lock, FlockOperation::Unlock).ok();
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Reads who holds the lock; between taking it and writing this there is a moment without an answer.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Returns the id of this boot of the machine.
pub(crate) fn boot_id() -> io::Result<Uuid> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    text.trim()
        .parse()
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_user_learns_who_has_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("far/below");
        let first = StateDir::claim(&path).unwrap();
        let error = StateDir::claim(&path).unwrap_err();
        assert!(matches!(error, StateDirError::Held { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        // As a program has one that is being started at this moment.
        let _copy = first.lock.try_clone().unwrap();
        drop(first);
        StateDir::claim(&path).unwrap();
    }

    #[test]
    fn a_longer_id_of_an_earlier_holder_leaves_no_digits() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(LOCK), "99999999999999999999\n").unwrap();
        let _first = StateDir::claim(root.path()).unwrap();
        let error = StateDir::claim(root.path()).unwrap_err();
        assert!(matches!(error, StateDirError::Held { pid: Some(pid), .. } if pid == std::process::id()));
    }

    #[test]
    fn the_directory_is_for_root_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        let _state = StateDir::claim(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
