//! A directory that one process at a time may use.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::durable::make_directory;

/// The file whose lock is the right to use the directory.
const LOCK: &str = "lock";

/// How often a directory is recreated that its last user removes at the same time.
const ATTEMPTS: usize = 1000;

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
    /// The lock is something else than a file, so it was not made by a process that uses the directory.
    #[error("{} is not a regular file, so it is no lock of this directory and is left unchanged; remove it", .path.display())]
    NotAFile {
        /// The path of the lock.
        path: PathBuf,
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

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LockError {
    move |source| LockError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// A directory that this process uses; no other does until this value is dropped.
#[derive(Debug)]
pub struct LockedDirectory {
    path: PathBuf,
    lock: File,
    transient: bool,
}

impl LockedDirectory {
    /// Returns the file in a directory whose lock is the right to use it. It exists as long as the directory is locked.
    pub fn lock_file(directory: &Path) -> PathBuf {
        directory.join(LOCK)
    }

    /// Makes the directory, for root alone, if it does not exist, and locks it. The lock ends with the process at the
    /// latest.
    ///
    /// # Errors
    /// [`LockError::Held`] while another process uses the directory; [`LockError::NotAFile`] when the lock is a link, a
    /// pipe or the like; [`LockError::Io`] when the file system refuses.
    pub fn claim(path: &Path) -> Result<LockedDirectory, LockError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            make_directory(path).map_err(io_error("make the directory", path))?;
            let lock = Self::lock_file(path);
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .create(true)
                // Another process may hold the lock, and its id is in the file.
                .truncate(false)
                .mode(0o600)
                // A link would lock and overwrite another file, a pipe or device without a reader would block.
                .custom_flags(
                    (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC)
                        .bits()
                        .cast_signed(),
                );
            let opened = match options.open(&lock) {
                // What is locked for other processes is the file, not its content.
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                    options.write(false).create(false).open(&lock).map_err(|_| error)
                }
                opened => opened,
            };
            let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
            let mut file = match opened {
                Ok((found, file)) if found.is_file() => file,
                // The last user of a transient directory has removed it in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => continue,
                // What is there prevents it, or the file system does.
                Err(error) if lock.symlink_metadata().map_or(true, |found| found.is_file()) => {
                    return Err(io_error("open", &lock)(error));
                }
                _ => return Err(LockError::NotAFile { path: lock }),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held {
                        path: path.to_owned(),
                        pid: read_pid(&mut file),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(io_error("lock", &lock)(error)),
            }
            // A file that was removed before it was locked keeps no other process out.
            if file.metadata().map_err(io_error("examine", &lock))?.nlink() == 0 {
                continue;
            }
            // Only the message to another process needs it: a full or read-only disk prevents no start.
            if let Err(error) = write_pid(&mut file) {
                tracing::warn!(%error, "Cannot write the id of this process to {}", lock.display());
            }
            return Ok(LockedDirectory {
                path: path.to_owned(),
                lock: file,
                transient: false,
            });
        }
    }

    /// Removes the directory when it is dropped, if nothing is in it then.
    #[must_use]
    pub fn transient(self) -> LockedDirectory {
        let mut directory = self;
        directory.transient = true;
        directory
    }

    fn is_empty(&self) -> bool {
        let entries = fs::read_dir(&self.path);
        entries
            .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK)))
    }
}

impl Drop for LockedDirectory {
    fn drop(&mut self) {
        if self.transient && self.is_empty() {
            // A directory that is in use, or a mount point, stays; the next claim recreates its lock file.
            fs::remove_file(self.path.join(LOCK)).ok();
            fs::remove_dir(&self.path).ok();
        }
        // A child process between fork and exec has a copy of the descriptor, and with it the lock; an unlock holds for
        // all copies. Where that fails, closing does it.
        self.lock.unlock().ok();
    }
}

/// Replaces the content in place: on a full disk, a file that was cut off could get no block again.
fn write_pid(file: &mut File) -> io::Result<()> {
    let text = format!("{}\n", std::process::id());
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
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
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use rustix::io::{FdFlags, fcntl_getfd};
    use rustix::mount::{MountFlags, mount_remount};

    use crate::mount::testing::{in_own_namespace, tmpfs};

    #[test]
    fn a_directory_on_a_full_or_read_only_disk_is_claimed_by_one_process_at_a_time() {
        in_own_namespace(|scratch| {
            let disk = scratch.join("disk");
            tmpfs(&disk);
            let path = disk.join("state");
            drop(LockedDirectory::claim(&path).unwrap());
            mount_remount(&disk, MountFlags::RDONLY, "").unwrap();
            let claimed = LockedDirectory::claim(&path).unwrap();
            assert!(matches!(
                LockedDirectory::claim(&path),
                Err(LockError::Held { .. })
            ));
            drop(claimed);
            mount_remount(&disk, MountFlags::empty(), "size=64k").unwrap();
            fs::write(disk.join("filler"), vec![0; 256 << 10]).unwrap_err();
            fs::write(path.join(LOCK), "").unwrap();
            let claimed = LockedDirectory::claim(&path).unwrap();
            assert!(matches!(
                LockedDirectory::claim(&path),
                Err(LockError::Held { .. })
            ));
            drop(claimed);
        });
    }

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
    fn a_refused_process_leaves_the_id_of_the_holder_in_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let _first = LockedDirectory::claim(root.path()).unwrap();
        for _ in 0..2 {
            assert!(matches!(
                LockedDirectory::claim(root.path()),
                Err(LockError::Held { .. })
            ));
            let text = fs::read_to_string(root.path().join(LOCK)).unwrap();
            assert_eq!(text, format!("{}\n", std::process::id()));
        }
    }

    #[test]
    fn a_lock_that_is_no_regular_file_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (other, lock) = (root.path().join("other"), root.path().join(LOCK));
        fs::write(&other, "precious").unwrap();
        let refused = || {
            let error = LockedDirectory::claim(root.path()).unwrap_err();
            assert!(
                matches!(&error, LockError::NotAFile { path } if *path == lock),
                "{error}"
            );
        };

        symlink(&other, &lock).unwrap();
        refused();
        assert_eq!(fs::read(&other).unwrap(), b"precious");
        fs::remove_file(&lock).unwrap();

        symlink(root.path().join("missing"), &lock).unwrap();
        refused();
        assert!(!root.path().join("missing").exists());
        fs::remove_file(&lock).unwrap();

        // Opened for reading alone, a pipe would block.
        mknodat(CWD, &lock, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        refused();
        fs::remove_file(&lock).unwrap();

        let _socket = UnixListener::bind(&lock).unwrap();
        refused();
        fs::remove_file(&lock).unwrap();

        fs::create_dir(&lock).unwrap();
        refused();
        fs::remove_dir(&lock).unwrap();
        LockedDirectory::claim(root.path()).unwrap();
    }

    #[test]
    fn a_file_system_that_refuses_the_lock_is_the_error() {
        in_own_namespace(|scratch| {
            let directory = scratch.join("devices");
            tmpfs(&directory);
            mount_remount(&directory, MountFlags::RDONLY, "").unwrap();
            let error = LockedDirectory::claim(&directory).unwrap_err();
            assert!(
                matches!(&error, LockError::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem),
                "{error}"
            );
        });
    }

    #[test]
    fn a_program_that_this_process_starts_does_not_inherit_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let held = LockedDirectory::claim(root.path()).unwrap();
        assert!(fcntl_getfd(&held.lock).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn the_directory_is_for_root_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state");
        let _state = LockedDirectory::claim(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_transient_directory_is_removed_unless_anything_else_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("devices");
        let directory = LockedDirectory::claim(&path).unwrap().transient();
        fs::write(path.join("node"), "").unwrap();
        drop(directory);
        assert!(path.join("node").exists());
        fs::remove_file(path.join("node")).unwrap();
        drop(LockedDirectory::claim(&path).unwrap().transient());
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_is_removed_and_made_again_all_the_time_has_one_user_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("devices");
        let users = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(directory) = LockedDirectory::claim(&path) {
                            assert_eq!(users.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            users.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(directory.transient());
                        }
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}
