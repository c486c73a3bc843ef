//! A directory that one process at a time may use.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::durable::make_directory;

/// The file whose lock is the right to use the directory.
const LOCK: &str = "lock";

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process uses it.
    #[error("the directory {} is in use by {}", .path.display(), describe_holder(*.pid))]
    Held {
        /// The directory.
        path: PathBuf,
        /// The process, if it has written that yet; its id in its own PID namespace.
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

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LockError {
    move |source| LockError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// A directory that this process uses; no other does until this value is dropped.
#[derive(Debug)]
pub struct LockedDirectory {
    lock: File,
}

impl LockedDirectory {
    /// Makes the directory, for root alone, if it does not exist, and locks it. The lock ends with the process at the
    /// latest.
    ///
    /// # Errors
    /// [`LockError::Held`] while another process uses the directory; [`LockError::Io`] when the file system refuses.
    pub fn claim(path: &Path) -> Result<LockedDirectory, LockError> {
        make_directory(path).map_err(failed("make the directory", path))?;
        let lock = path.join(LOCK);
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(&lock).map_err(failed("open", &lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    path: path.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock)(error)),
        }
        write_pid(&mut file).map_err(failed("write", &lock))?;
        Ok(LockedDirectory { lock: file })
    }
}

impl Drop for LockedDirectory {
    fn drop(&mut self) {
        // A child process between fork and exec has a copy of the descriptor, and with it the lock; an unlock holds for
        // all copies. Where that fails, closing does it.
        self.lock.unlock().ok();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_process_is_refused_with_the_id_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("far/below");
        let first = LockedDirectory::claim(&path).unwrap();
        let error = LockedDirectory::claim(&path).unwrap_err();
        assert!(matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        // As a child process has one between fork and exec.
        let _copy = first.lock.try_clone().unwrap();
        drop(first);
        LockedDirectory::claim(&path).unwrap();
    }

    #[test]
    fn a_longer_id_of_an_earlier_holder_leaves_no_digits() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(LOCK), "99999999999999999999\n").unwrap();
        let _first = LockedDirectory::claim(root.path()).unwrap();
        let error = LockedDirectory::claim(root.path()).unwrap_err();
        assert!(matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()));
    }

    #[test]
    fn the_directory_is_for_root_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        let _state = LockedDirectory::claim(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
