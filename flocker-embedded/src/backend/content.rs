//! What a backing file has to be before it is attached and mounted. Nothing here changes it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use uuid::Uuid;

use super::direct_io::{LARGEST, attachment};
use super::error::StepError;
use super::loop_device::Attachment;
use super::storage::Backend;
use super::volumes::Stage;
use crate::options::Io;

/// How much of a device is read: the boot block and the superblock of ext2, ext3 and ext4.
const START: usize = 4096;
/// Where the superblock has its magic number, and the number.
const MAGIC: (usize, [u8; 2]) = (1080, [0x53, 0xEF]);
/// Where the superblock has the UUID of the file system.
const IDENTITY: usize = 1128;
/// Where the superblock has the number of times that a block is twice as large as 1 KiB.
const BLOCK_SIZE: usize = 1048;

/// A file system that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) uuid: Uuid,
    /// The size of its blocks, in bytes.
    pub(super) block_size: u32,
}

/// What the backing file of a dataset has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The least size, in bytes.
    pub(crate) size: u64,
    /// The UUID of the file system, if it is known.
    pub(crate) file_system: Option<Uuid>,
}

impl Expected {
    /// Fails unless a file system is the expected one.
    pub(crate) fn check_file_system(&self, path: &Path, found: Uuid) -> Result<(), StepError> {
        match self.file_system {
            Some(expected) if expected != found => Err(StepError::OtherFileSystem {
                path: path.to_owned(),
                found,
                expected,
            }),
            _ => Ok(()),
        }
    }
}

/// A backing file that is to be attached, and how.
pub(super) struct ToAttach {
    pub(super) file: File,
    pub(super) attachment: Attachment,
}

impl Backend {
    /// Opens the backing file of a dataset to be attached, if it is what is expected.
    pub(super) fn open_file(&self, dataset: Uuid, expected: &Expected) -> Result<ToAttach, StepError> {
        let stage = self.volumes.stage(dataset);
        let path = self.volumes.path(dataset);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.volumes.forget(dataset);
                return Err(StepError::Missing { path, device: None });
            }
            Err(error) if is_of_other_kind(&error) => return Err(StepError::NotAFile(path)),
            Err(error) => return Err(StepError::io("open", &path)(error)),
        };
        let found = file.metadata().map_err(StepError::io("examine", &path))?;
        if !found.is_file() {
            return Err(StepError::NotAFile(path));
        }
        if found.len() < expected.size {
            return Err(StepError::Shortened {
                path,
                found: found.len(),
                expected: expected.size,
            });
        }
        let mut block_size = LARGEST;
        if stage != Some(Stage::Formatting) {
            let found = file_system(&file, &path)?;
            expected.check_file_system(&path, found.uuid)?;
            block_size = found.block_size;
        }
        let direct = self.storage.io == Io::Direct;
        let attachment = attachment(&file, block_size, direct);
        Ok(ToAttach { file, attachment })
    }

    /// Returns the UUID of the file system on the device of a dataset.
    ///
    /// Fails if there is none, which is a damage: what has never been formatted is not asked for it.
    pub(crate) fn file_system(&self, dataset: Uuid, device: &Path) -> Result<Uuid, StepError> {
        let _held = self.hold(dataset, device)?;
        let file = File::open(device).map_err(StepError::io("open", device))?;
        Ok(file_system(&file, device)?.uuid)
    }
}

/// Returns the ext4 file system in a file or on a device.
pub(super) fn file_system(file: &File, path: &Path) -> Result<FileSystem, StepError> {
    let mut start = [0; START];
    file.read_exact_at(&mut start, 0)
        .map_err(StepError::io("read the superblock of", path))?;
    let at = |offset, length| start.get(offset..offset + length).unwrap_or_default();
    if at(MAGIC.0, MAGIC.1.len()) == MAGIC.1 {
        let doublings = at(BLOCK_SIZE, 4).try_into().map_or(0, u32::from_le_bytes);
        return Ok(FileSystem {
            uuid: Uuid::from_slice(at(IDENTITY, 16)).unwrap_or_default(),
            block_size: 1024_u32.checked_shl(doublings).unwrap_or_default(),
        });
    }
    let found = if start.iter().all(|byte| *byte == 0) {
        "its first 4 KiB are zero"
    } else {
        "its first 4 KiB have something else"
    };
    let path = path.to_owned();
    Err(StepError::Damaged { path, found })
}

/// Returns whether an error of open(2) says that the file is a symbolic link, a directory, or another thing that is not
/// a file.
fn is_of_other_kind(error: &io::Error) -> bool {
    let kinds = [Errno::LOOP, Errno::ISDIR, Errno::NXIO, Errno::NODEV];
    kinds
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_not_one_without_a_file_system() {
        // Nothing is mapped at its start, so reading it there fails with EIO.
        let path = Path::new("/proc/self/mem");
        let error = file_system(&File::open(path).unwrap(), path).unwrap_err();
        let StepError::Io { action, source, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(source.raw_os_error(), Some(Errno::IO.raw_os_error()));
        assert_eq!(action, "read the superblock of");
    }
}
