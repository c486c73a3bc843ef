//! The data directory: its layout, and the lock that makes one process its owner.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use host_fs::durable::{self, make_directory};
use host_fs::{LockError, LockedDirectory, exposure};
use uuid::Uuid;

use crate::Error;
use crate::options::CertificateProfile;

/// A data directory that this process owns until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    /// Without symbolic links, because it is compared with paths in the kernel's tables.
    root: PathBuf,
    _lock: LockedDirectory,
}

impl DataDir {
    /// Creates the directory if it does not exist, and locks it.
    pub(crate) fn claim(path: &Path) -> Result<Self, Error> {
        let lock = LockedDirectory::claim(path).map_err(|error| match error {
            LockError::Held { path, pid } => Error::DataDirInUse {
                path,
                holder: pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")),
            },
            error => Error::DataDir(error),
        })?;
        let root = fs::canonicalize(path).map_err(Error::file("resolve", path))?;
        if let Ok(Some(exposure)) = exposure(&root) {
            tracing::warn!(
                "Other users can change what is in the data directory {}: {exposure}",
                root.display()
            );
        }
        Ok(Self { root, _lock: lock })
    }

    /// Fails if the directory shows that it has had a state file: the absence of that file is then a loss, and no
    /// sign of a first start.
    pub(crate) fn check_first_start(&self) -> Result<(), Error> {
        let state = self.state_file();
        let lost = |found| Error::LostState {
            path: state.clone(),
            found,
        };
        // The state file is written before the keys, so that they exist only where it did.
        for directory in [self.volumes(), self.root.join("pki")] {
            remove_unfinished(&directory);
            match fs::read_dir(&directory).map(|mut entries| entries.next()) {
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(Some(entry)) => {
                    let entry = entry.map_err(Error::file("list", &directory))?;
                    return Err(lost(entry.path()));
                }
                Err(error) => return Err(Error::file("list", &directory)(error)),
            }
        }
        Ok(())
    }

    /// Creates the directory of the backing files, unless it exists.
    pub(crate) fn make_volumes(&self) -> Result<(), Error> {
        let volumes = self.volumes();
        make_directory(&volumes).map_err(Error::file("create", &volumes))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the state file of earlier versions.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// Returns the database that has the state.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("state.redb")
    }

    /// Returns the file that keeps room on the disk for changes of the state.
    pub(crate) fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Returns the datasets that have a backing file, by its name.
    pub(crate) fn volume_ids(&self) -> Result<BTreeSet<Uuid>, Error> {
        let directory = self.volumes();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(Error::file("list", &directory))?,
        };
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        let ids = names.filter_map(|name| match name {
            Ok(name) => dataset_of_file(name.to_str()?).map(|(dataset, _)| Ok(dataset)),
            Err(error) => Some(Err(error)),
        });
        ids.collect::<io::Result<_>>()
            .map_err(Error::file("list", &directory))
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

/// What follows the id of a dataset in the name of a backing file that is not formatted yet.
const FORMATTING: &str = ".formatting";

/// What the name of a backing file says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has never been mounted.
    Formatting,
    /// It may have data.
    Formatted,
}

/// Returns the name of the backing file of a dataset.
pub(crate) fn file_name(dataset: Uuid, stage: Stage) -> String {
    match stage {
        Stage::Formatting => format!("{dataset}{FORMATTING}"),
        Stage::Formatted => dataset.to_string(),
    }
}

/// Returns whose backing file has a name, and its stage, if any has.
pub(crate) fn dataset_of_file(name: &str) -> Option<(Uuid, Stage)> {
    let (id, stage) = match name.strip_suffix(FORMATTING) {
        Some(id) => (id, Stage::Formatting),
        None => (name, Stage::Formatted),
    };
    // The parser accepts other notations of an id, which are not the names of its file.
    let dataset = Uuid::parse_str(id).ok()?;
    (dataset.to_string() == id).then_some((dataset, stage))
}

/// Removes the files of a directory that an earlier process did not finish writing. A file that cannot be removed does
/// no harm, so the start continues.
pub(crate) fn remove_unfinished(directory: &Path) {
    if let Err(error) = durable::remove_unfinished(directory) {
        tracing::warn!(
            %error,
            "Cannot remove what an earlier process has not finished writing in {}",
            directory.display()
        );
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

        drop(first);
        assert!(DataDir::claim(directory.path()).is_ok());
    }
}
