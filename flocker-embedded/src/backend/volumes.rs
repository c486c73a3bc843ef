//! The backing files, one sparse file per dataset, and the capacity they share.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use host_fs::durable::{remove_file, replace_file_with};
use rustix::fs::statvfs;
use uuid::Uuid;

use super::error::StepError;
use crate::Error;
use crate::data_dir::remove_unfinished;

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// The backing files of all nodes.
#[derive(Debug)]
pub(crate) struct Volumes {
    directory: PathBuf,
    capacity: u64,
    /// Sizes of the files that exist, or that are being created.
    sizes: Mutex<BTreeMap<Uuid, u64>>,
}

impl Volumes {
    /// Finds the files of an earlier run. The default capacity is the free space of the file system, plus what these
    /// files occupy of it.
    pub(super) fn open(directory: PathBuf, capacity: Option<u64>) -> Result<Self, Error> {
        let list = || Error::file("list", &directory);
        remove_unfinished(&directory);
        let mut sizes = BTreeMap::new();
        let mut occupied = 0;
        for entry in fs::read_dir(&directory).map_err(list())? {
            let entry = entry.map_err(list())?;
            let Some(dataset) = entry
                .file_name()
                .to_str()
                .and_then(|name| Uuid::parse_str(name).ok())
            else {
                continue;
            };
            let metadata = entry.metadata().map_err(list())?;
            sizes.insert(dataset, metadata.len());
            occupied += metadata.blocks() * BLOCK;
        }
        let capacity = match capacity {
            Some(capacity) => capacity,
            None => free_space(&directory).map_err(Error::file("examine", &directory))? + occupied,
        };
        Ok(Self {
            directory,
            capacity,
            sizes: Mutex::new(sizes),
        })
    }

    pub(super) fn path(&self, dataset: Uuid) -> PathBuf {
        self.directory.join(dataset.to_string())
    }

    /// Returns the size of every volume that exists.
    pub(crate) fn sizes(&self) -> BTreeMap<Uuid, u64> {
        self.lock().clone()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Creates the file of a dataset, complete or not at all, if it does not exist yet and the capacity suffices.
    pub(crate) fn create(&self, dataset: Uuid, size: u64) -> Result<(), StepError> {
        if !self.reserve(dataset, size)? {
            return Ok(());
        }
        let path = self.path(dataset);
        replace_file_with(&path, 0o600, |file| file.set_len(size)).map_err(|source| {
            self.lock().remove(&dataset);
            StepError::io("create", &path)(source)
        })
    }

    /// Removes the file of a dataset.
    pub(super) fn destroy(&self, dataset: Uuid) -> Result<(), StepError> {
        let path = self.path(dataset);
        remove_file(&path).map_err(StepError::io("remove", &path))?;
        self.lock().remove(&dataset);
        Ok(())
    }

    /// Reserves a part of the capacity; returns `false` if the dataset has one already.
    fn reserve(&self, dataset: Uuid, size: u64) -> Result<bool, StepError> {
        let mut sizes = self.lock();
        if sizes.contains_key(&dataset) {
            return Ok(false);
        }
        let free = self.capacity.saturating_sub(sizes.values().sum());
        if size > free {
            return Err(StepError::OverCapacity {
                size,
                capacity: self.capacity,
                free,
            });
        }
        sizes.insert(dataset, size);
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, u64>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn free_space(directory: &Path) -> io::Result<u64> {
    let space = statvfs(directory)?;
    Ok(space.f_bavail * space.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sparse_have_their_size_and_are_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let dataset = Uuid::new_v4();
        let volumes = Volumes::open(directory.path().to_owned(), None).unwrap();
        volumes.create(dataset, 1 << 30).unwrap();
        let metadata = fs::metadata(volumes.path(dataset)).unwrap();
        assert_eq!((metadata.len(), metadata.blocks()), (1 << 30, 0));

        let again = Volumes::open(directory.path().to_owned(), None).unwrap();
        assert_eq!(again.sizes(), BTreeMap::from([(dataset, 1 << 30)]));
        again.destroy(dataset).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn sizes_may_add_up_to_the_capacity_and_not_a_byte_more() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path().to_owned(), Some(3 << 20)).unwrap();
        let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
        volumes.create(first, 2 << 20).unwrap();
        let error = volumes.create(second, (1 << 20) + 1024).unwrap_err();
        assert!(
            error.to_string().contains("only 1048576 of the capacity"),
            "{error}"
        );
        volumes.create(second, 1 << 20).unwrap();
    }
}
