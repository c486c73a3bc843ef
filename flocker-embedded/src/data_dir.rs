//! The data directory: its layout, and the lock that makes one process its owner.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::options::CertificateProfile;

/// A data directory that this process owns until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    /// Without symbolic links, because it is compared with paths in the kernel's tables.
    root: PathBuf,
    lock: File,
}

impl DataDir {
    /// Creates the directory if it does not exist, and locks it.
    pub(crate) fn claim(path: &Path) -> Result<Self, Error> {
        create_private(path)?;
        let root = fs::canonicalize(path).map_err(Error::file("resolve", path))?;
        let lock_file = root.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_file)
            .map_err(Error::file("open", &lock_file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::DataDirInUse {
                    path: root,
                    holder: read_holder(&mut lock),
                });
            }
            Err(TryLockError::Error(error)) => return Err(Error::file("lock", &lock_file)(error)),
        }
        record_holder(&mut lock).map_err(Error::file("write", &lock_file))?;
        let directory = Self { root, lock };
        create_private(&directory.volumes())?;
        Ok(directory)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// Returns the directory of the backing files.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Returns the directory that the datasets of a node are mounted in.
    pub(crate) fn mount_root(&self, node_number: usize) -> PathBuf {
        self.root.join("flocker").join(format!("node-{node_number}"))
    }

    /// Returns the directory of the keys of a certificate profile.
    pub(crate) fn pki(&self, profile: CertificateProfile) -> PathBuf {
        self.root.join("pki").join(profile.name())
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // A program that is being started at this moment holds a copy of the descriptor until it runs, and with it
        // the lock; unlocking affects all copies. Where that fails, closing the descriptor unlocks.
        self.lock.unlock().ok();
    }
}

/// Creates a directory for root only, and its parents.
pub(crate) fn create_private(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::file("create", path))
}

fn record_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn read_holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<u32>().ok())
    {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_with_the_process_id_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDir::claim(directory.path()).unwrap();
        let error = DataDir::claim(directory.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );

        // A program that is being started at this moment holds such a copy.
        let _copy = first.lock.try_clone().unwrap();
        drop(first);
        assert!(DataDir::claim(directory.path()).is_ok());
    }
}
