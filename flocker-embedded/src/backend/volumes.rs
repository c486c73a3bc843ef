//! The backing files, one sparse file per dataset, and the capacity they share.
//!
//! A file has the name of its dataset only when it is formatted. Until then its name ends in `.formatting`, and no file
//! of another name is ever made, replaced or formatted: what the state file records and what a file is called have to
//! agree before anything is written over.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use host_fs::durable::{remove_file, rename_new, replace_file_with};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use uuid::Uuid;

use super::error::StepError;
use super::loop_device::count_below;
use crate::Error;
pub(crate) use crate::data_dir::Stage;
use crate::data_dir::{dataset_of_file, file_name, remove_unfinished};
use crate::options::Allocation;

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// A backing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VolumeFile {
    pub(crate) size: u64,
    pub(crate) stage: Stage,
}

/// The space that the backing files take and can take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) used: u64,
    pub(crate) free: u64,
}

/// The backing files of all nodes.
#[derive(Debug)]
pub(crate) struct Volumes {
    directory: PathBuf,
    capacity: u64,
    allocation: Allocation,
    /// The files that exist, or that are being created.
    files: Mutex<BTreeMap<Uuid, VolumeFile>>,
}

impl Volumes {
    /// Finds the files of an earlier run. The default capacity is the free space of the file system, plus what these
    /// files occupy of it.
    ///
    /// A directory that does not exist is not created: it has no files until it is mounted again.
    pub(super) fn open(
        directory: PathBuf,
        capacity: Option<u64>,
        allocation: Allocation,
    ) -> Result<Self, Error> {
        let list = || Error::file("list", &directory);
        remove_unfinished(&directory);
        let mut files = BTreeMap::new();
        let mut occupied = 0;
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            entries => Some(entries.map_err(list())?),
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(list())?;
            let Some((dataset, stage)) = entry.file_name().to_str().and_then(dataset_of_file) else {
                continue;
            };
            let metadata = entry.metadata().map_err(list())?;
            if !metadata.is_file() {
                // It counts as missing: nothing is done to what it is or leads to.
                tracing::warn!(dataset.id = %dataset, "{} is not a regular file, so it is no volume; it is left as it is", entry.path().display());
                continue;
            }
            occupied += metadata.blocks() * BLOCK;
            let file = VolumeFile {
                size: metadata.len(),
                stage,
            };
            // With files of both names, the one that may have data is the volume.
            files
                .entry(dataset)
                .and_modify(|other| {
                    if stage == Stage::Formatted {
                        *other = file;
                    }
                })
                .or_insert(file);
        }
        let capacity = match capacity {
            Some(capacity) => capacity,
            None => free_space(&directory).map_err(Error::file("examine", &directory))? + occupied,
        };
        Ok(Self {
            directory,
            capacity,
            allocation,
            files: Mutex::new(files),
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns what the files occupy of their file system, and what that has free. Blocks.
    pub(crate) fn space(&self) -> io::Result<Space> {
        let mut used = 0;
        for (dataset, file) in self.files() {
            match self.path_at(dataset, file.stage).symlink_metadata() {
                Ok(found) => used += found.blocks() * BLOCK,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let free = free_space(&self.directory)?;
        Ok(Space { used, free })
    }

    /// Returns how many loop devices have one of these files. Blocks.
    pub(crate) fn loop_devices(&self) -> io::Result<u64> {
        count_below(&self.directory)
    }

    /// Returns the path that the file of a dataset has, or is to have when it is formatted.
    pub(super) fn path(&self, dataset: Uuid) -> PathBuf {
        self.path_at(dataset, self.stage(dataset).unwrap_or(Stage::Formatted))
    }

    /// Returns the stage of the volume of a dataset, if it exists.
    pub(super) fn stage(&self, dataset: Uuid) -> Option<Stage> {
        self.lock().get(&dataset).map(|file| file.stage)
    }

    /// Returns the path of the file of a dataset at a stage.
    pub(super) fn path_at(&self, dataset: Uuid, stage: Stage) -> PathBuf {
        self.directory.join(file_name(dataset, stage))
    }

    /// Returns every volume that exists.
    pub(crate) fn files(&self) -> BTreeMap<Uuid, VolumeFile> {
        self.lock().clone()
    }

    /// Returns the size of every volume that exists.
    pub(crate) fn sizes(&self) -> BTreeMap<Uuid, u64> {
        let files = self.lock();
        files
            .iter()
            .map(|(dataset, file)| (*dataset, file.size))
            .collect()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Returns the formatted file of a dataset, also if it has appeared since the start: its file system may have been
    /// mounted, or a backup restored.
    ///
    /// Fails with what is wrong if it does not exist.
    pub(super) fn find(&self, dataset: Uuid) -> Result<VolumeFile, StepError> {
        let path = self.path_at(dataset, Stage::Formatted);
        let file = match path.symlink_metadata() {
            Ok(found) if found.is_file() => VolumeFile {
                size: found.len(),
                stage: Stage::Formatted,
            },
            Ok(_) => return Err(StepError::NotAFile(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StepError::Missing { path, device: None });
            }
            Err(error) => return Err(StepError::io("examine", &path)(error)),
        };
        self.lock().insert(dataset, file);
        Ok(file)
    }

    /// Forgets the file of a dataset that no longer exists.
    pub(super) fn forget(&self, dataset: Uuid) {
        self.lock().remove(&dataset);
    }

    /// Creates the file of a dataset, complete or not at all, if it does not exist yet and the capacity suffices. It is
    /// not formatted then.
    pub(crate) fn create(&self, dataset: Uuid, size: u64) -> Result<(), StepError> {
        if let Some(file) = self.lock().get(&dataset).copied() {
            let is_same = file.stage == Stage::Formatting && file.size == size;
            let path = self.path_at(dataset, file.stage);
            return if is_same {
                Ok(())
            } else {
                Err(StepError::Unknown(path))
            };
        }
        let formatted = self.path_at(dataset, Stage::Formatted);
        match formatted.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StepError::io("examine", &formatted)(error)),
            Ok(_) => return Err(StepError::Unknown(formatted)),
        }
        self.reserve(dataset, size)?;
        let path = self.path_at(dataset, Stage::Formatting);
        let made = replace_file_with(&path, 0o600, |file| match self.allocation {
            Allocation::Thin => file.set_len(size),
            Allocation::Thick => Ok(fallocate(file, FallocateFlags::empty(), 0, size)?),
        });
        made.map_err(|source| {
            self.forget(dataset);
            match Errno::from_io_error(&source) {
                Some(Errno::OPNOTSUPP) => StepError::CannotAllocate(path),
                Some(Errno::NOSPC | Errno::FBIG) if self.allocation == Allocation::Thick => {
                    StepError::NoSpace { path, size }
                }
                _ => StepError::io("create", &path)(source),
            }
        })
    }

    /// Gives the file of a dataset the name of one that is formatted.
    pub(super) fn finish_formatting(&self, dataset: Uuid) -> Result<(), StepError> {
        let [from, to] = [Stage::Formatting, Stage::Formatted].map(|stage| self.path_at(dataset, stage));
        let renamed = rename_new(&from, &to).map_err(StepError::io("rename", &from));
        // It has the new name also if only the directory could not be synced.
        let has_moved = renamed.is_ok() || from.symlink_metadata().is_err() && to.symlink_metadata().is_ok();
        if let Some(file) = self.lock().get_mut(&dataset).filter(|_| has_moved) {
            file.stage = Stage::Formatted;
        }
        renamed
    }

    /// Removes the file of a dataset.
    pub(super) fn destroy(&self, dataset: Uuid) -> Result<(), StepError> {
        for stage in [Stage::Formatted, Stage::Formatting] {
            let path = self.path_at(dataset, stage);
            // Nothing of another kind was made here, and what a link leads to may be anything.
            if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
                return Err(StepError::NotAFile(path));
            }
            remove_file(&path).map_err(StepError::io("remove", &path))?;
        }
        self.forget(dataset);
        Ok(())
    }

    /// Reserves a part of the capacity.
    fn reserve(&self, dataset: Uuid, size: u64) -> Result<(), StepError> {
        let mut files = self.lock();
        let free = self
            .capacity
            .saturating_sub(files.values().map(|file| file.size).sum());
        if size > free {
            return Err(StepError::OverCapacity {
                size,
                capacity: self.capacity,
                free,
            });
        }
        let stage = Stage::Formatting;
        files.insert(dataset, VolumeFile { size, stage });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, VolumeFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the free space of the file system that has a directory, or is to have it.
fn free_space(directory: &Path) -> io::Result<u64> {
    let existing = directory.ancestors().find(|path| path.exists());
    let space = statvfs(existing.unwrap_or(directory))?;
    Ok(space.f_bavail * space.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sparse_have_their_size_and_are_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let dataset = Uuid::new_v4();
        let volumes = Volumes::open(directory.path().to_owned(), None, Allocation::Thin).unwrap();
        volumes.create(dataset, 1 << 30).unwrap();
        let metadata = fs::metadata(volumes.path(dataset)).unwrap();
        assert_eq!((metadata.len(), metadata.blocks()), (1 << 30, 0));

        for stage in [Stage::Formatting, Stage::Formatted] {
            let again = Volumes::open(directory.path().to_owned(), None, Allocation::Thin).unwrap();
            let file = VolumeFile { size: 1 << 30, stage };
            assert_eq!(again.files(), BTreeMap::from([(dataset, file)]));
            if stage == Stage::Formatting {
                again.finish_formatting(dataset).unwrap();
            } else {
                again.destroy(dataset).unwrap();
            }
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn sizes_may_add_up_to_the_capacity_and_not_a_byte_more() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path().to_owned(), Some(3 << 20), Allocation::Thin).unwrap();
        let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
        volumes.create(first, 2 << 20).unwrap();
        let error = volumes.create(second, (1 << 20) + 1024).unwrap_err();
        assert!(
            error.to_string().contains("only 1048576 of the capacity"),
            "{error}"
        );
        volumes.create(second, 1 << 20).unwrap();
    }

    #[test]
    fn a_file_that_may_have_data_is_neither_replaced_nor_renamed_over() {
        let directory = tempfile::tempdir().unwrap();
        let dataset = Uuid::new_v4();
        let volumes = Volumes::open(directory.path().to_owned(), None, Allocation::Thin).unwrap();
        volumes.create(dataset, 1 << 20).unwrap();
        let path = directory.path().join(dataset.to_string());
        fs::write(&path, "data").unwrap();
        volumes.finish_formatting(dataset).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"data");

        // The one that may have data is the volume.
        let again = Volumes::open(directory.path().to_owned(), None, Allocation::Thin).unwrap();
        assert_eq!(again.files()[&dataset].stage, Stage::Formatted);
        again.create(dataset, 1 << 20).unwrap_err();
        again.forget(dataset);
        again.create(dataset, 1 << 20).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn only_a_regular_file_of_exactly_the_name_is_a_volume_and_nothing_else_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let ids: [Uuid; 3] = std::array::from_fn(|_| Uuid::new_v4());
        let path = |name: String| directory.path().join(name);
        fs::write(path("elsewhere".to_owned()), "data").unwrap();
        std::os::unix::fs::symlink("elsewhere", path(ids[0].to_string())).unwrap();
        fs::create_dir(path(ids[1].to_string())).unwrap();
        fs::write(path(ids[2].simple().to_string()), "data").unwrap();
        let volumes = Volumes::open(directory.path().to_owned(), None, Allocation::Thin).unwrap();
        assert_eq!(volumes.files(), BTreeMap::new());
        for dataset in &ids[..2] {
            assert!(matches!(volumes.find(*dataset), Err(StepError::NotAFile(_))));
            volumes.create(*dataset, 1 << 20).unwrap_err();
            volumes.destroy(*dataset).unwrap_err();
        }
        assert!(matches!(volumes.find(ids[2]), Err(StepError::Missing { .. })));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }
}
